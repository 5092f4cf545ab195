"""The diagnostics as an estimator: scikit-learn's checks, input, pipelines, and what may go wrong."""

import copy
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from module_zoo import build
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch import NeuralNetClassifier
from torch import nn

from skqfair import QuantizationDiagnostics, QuantizedClassifier
from skqfair.displays import GroupDiagnosticsDisplay, HessianSpectrumDisplay
from skqfair.exceptions import NoCurvatureWarning, SmallGroupWarning, UntrainedNetworkError
from skqfair.export import OnnxClassifier, to_onnx
from skqfair.networks import make_classifier

SMALL = {"module__hidden_sizes": (6,), "max_epochs": 2, "lr": 0.02}


@parametrize_with_checks(
    [
        QuantizationDiagnostics(weight_bits=(4,)),  # a net's repr would differ between processes
        QuantizationDiagnostics(weight_bits=2, activation_bits=4, match_group_sizes=False),
    ]
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learn(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def net(problem):
    X, y, _ = problem
    codes = np.unique(y, return_inverse=True)[1]
    torch.manual_seed(0)
    return make_classifier(**SMALL).fit(X, codes)


@pytest.fixture
def frozen(net):
    return FrozenEstimator(net)


@pytest.fixture
def coded(problem):
    X, y, groups = problem
    groups = np.where(groups == "c", "b", groups)  # enough of each
    return X, np.unique(y, return_inverse=True)[1], groups


def same(first, second):
    for name in ("group_report_", "layer_report_", "attribution_"):
        pd.testing.assert_frame_equal(getattr(first, name), getattr(second, name))


def test_what_is_frozen_is_left_as_it_was(frozen, coded):
    X, y, groups = coded
    net = frozen.estimator
    net.module_.train()
    before = copy.deepcopy(net.module_.state_dict())
    generator = torch.get_rng_state()
    diagnostics = QuantizationDiagnostics(frozen, weight_bits=2, random_state=0)
    diagnostics.fit(X, y, sensitive_features=groups)
    assert net.module_.training
    assert all(torch.equal(before[name], value) for name, value in net.module_.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.module_.modules())
    assert torch.equal(generator, torch.get_rng_state())
    assert diagnostics.estimator is frozen


def test_training_is_repeatable_and_labels_are_kept(problem):
    X, y, groups = problem
    groups = np.where(groups == "c", "b", groups)
    options = {"weight_bits": (3,), "random_state": 0}
    fits = [
        QuantizationDiagnostics(make_classifier(**SMALL), **options, n_jobs=n_jobs).fit(
            X, y, sensitive_features=groups
        )
        for n_jobs in (None, 1)
    ]
    same(*fits)
    assert fits[0].classes_.tolist() == ["high", "low", "mid"]
    by_hand = QuantizedClassifier(make_classifier(**SMALL), weight_bits=3, random_state=0).fit(X, y)
    assert fits[0].group_report_.loc[3, "accuracy"].notna().all()
    assert by_hand.classes_.tolist() == fits[0].classes_.tolist()


def test_processes_give_the_same_figures(frozen, coded):
    X, y, groups = coded
    reports = [
        QuantizationDiagnostics(frozen, weight_bits=2, random_state=0, n_jobs=n_jobs)
        .fit(X, y, sensitive_features=groups)
        .group_report_
        for n_jobs in (1, 2)
    ]
    pd.testing.assert_frame_equal(*reports, rtol=1e-4)


def test_progress(frozen, coded, capsys):
    X, y, groups = coded
    QuantizationDiagnostics(frozen, weight_bits=2, verbose=1).fit(X, y, sensitive_features=groups)
    assert "100%" in capsys.readouterr().err
    QuantizationDiagnostics(frozen, weight_bits=2).fit(X, y, sensitive_features=groups)
    assert not capsys.readouterr().err


def test_transform(frozen, coded):
    X, y, _ = coded
    diagnostics = QuantizationDiagnostics(frozen, weight_bits=(2, 8), random_state=0).fit(X, y)
    found = diagnostics.set_output(transform="pandas").transform(X)
    assert found.columns.tolist() == diagnostics.get_feature_names_out().tolist()
    assert [name for name in found if name.startswith("flip")] == ["flip_8bit", "flip_2bit"]
    logits = {}
    for bits in (None, 2):
        classifier = QuantizedClassifier(frozen, weight_bits=bits, random_state=0).fit(X, y)
        logits[bits] = classifier.decision_function(X)
    p = np.exp(logits[2]) / np.exp(logits[2]).sum(1, keepdims=True)
    top = np.sort(p, 1)
    shift = np.sqrt(((logits[2] - logits[None]) ** 2).mean(1))
    np.testing.assert_allclose(found["margin_2bit"], top[:, -1] - top[:, -2], atol=1e-9)
    np.testing.assert_allclose(found["logit_shift_2bit"], shift, atol=1e-9)
    flips = logits[2].argmax(1) != logits[None].argmax(1)
    assert (found["flip_2bit"] == flips).all()
    report = diagnostics.group_report_
    assert report.index.unique("group").tolist() == ["all"]
    means = [report.loc[(2, "all"), name] for name in ("margin", "boundary_closeness", "flip_rate")]
    names = ["margin_2bit", "boundary_closeness_2bit", "flip_2bit"]
    np.testing.assert_allclose(means, found[names].mean(), atol=1e-9)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_frames(frozen, coded, frame):
    X, y, groups = coded
    names = list("uvwxyz")
    data = frame({name: X[:, i] for i, name in enumerate(names)})
    diagnostics = QuantizationDiagnostics(frozen, weight_bits=2, random_state=0)
    diagnostics.fit(data, y, sensitive_features=frame({"g": groups}))
    assert diagnostics.feature_names_in_.tolist() == names
    assert len(diagnostics.transform(data)) == len(X)
    other = QuantizationDiagnostics(frozen, weight_bits=2, random_state=0)
    same(diagnostics, other.fit(X, y, sensitive_features=groups))


def test_several_sensitive_features_mean_their_intersections(frozen, coded):
    X, y, groups = coded
    sex = np.where(np.arange(len(X)) % 2, "f", "m")
    features = pd.DataFrame({"g": groups, "sex": sex})
    diagnostics = QuantizationDiagnostics(frozen, weight_bits=2)
    diagnostics.fit(X, y, sensitive_features=features)
    assert diagnostics.group_report_.index.unique("group").tolist() == ["a, f", "a, m", "b, f", "b, m"]


def test_pipelines_and_searches(problem):
    X, y, groups = problem
    groups = np.where(groups == "c", "b", groups)
    features = QuantizationDiagnostics(make_classifier(**SMALL), weight_bits=(4, 2), random_state=0)
    pipeline = make_pipeline(StandardScaler(), features, LogisticRegression())
    pipeline.fit(X, y, quantizationdiagnostics__sensitive_features=groups)
    assert pipeline.score(X, y) > 0.5
    assert pipeline[1].group_report_.index.unique("group").tolist() == ["a", "b"]
    grid = {"quantizationdiagnostics__granularity": ["per_tensor", "per_channel"]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, y)
    assert search.best_score_ > 0.5
    with config_context(enable_metadata_routing=True):
        routed = make_pipeline(StandardScaler(), clone(features)).fit(X, y, sensitive_features=groups)
    assert routed[-1].group_report_.index.unique("group").tolist() == ["a", "b"]


def test_it_pickles(frozen, coded):
    X, y, groups = coded
    diagnostics = QuantizationDiagnostics(frozen, weight_bits=2, random_state=0)
    diagnostics.fit(X, y, sensitive_features=groups)
    loaded = pickle.loads(pickle.dumps(diagnostics))
    same(loaded, diagnostics)
    np.testing.assert_array_equal(loaded.transform(X), diagnostics.transform(X))
    assert "QuantizationDiagnostics" in repr(diagnostics)
    assert "QuantizationDiagnostics" in diagnostics._repr_html_()


def test_max_samples_bounds_what_needs_gradients(frozen, coded):
    X, y, groups = coded
    options = {"weight_bits": 2, "random_state": 0, "max_samples": 70}
    report = (
        QuantizationDiagnostics(frozen, **options).fit(X, y, sensitive_features=groups).group_report_
    )
    assert (report["n_matched"] == 70).all()
    assert report.loc["float", "count"].sum() == len(X)
    assert report["gradient_norm_low"].notna().all()


@pytest.mark.parametrize("name", ["lstm", "encoder", "shared", "attention"])
def test_networks_of_many_kinds(name, coded):
    X, y, groups = coded
    module, sample = build(name)
    X = np.random.default_rng(0).normal(size=(200, *sample.shape[1:])).astype(np.float32)
    with torch.no_grad():
        n_classes = module(torch.as_tensor(X[:2])).shape[1]
    y, groups = np.arange(200) % n_classes, groups[:200]
    net = NeuralNetClassifier(
        module, criterion=nn.CrossEntropyLoss, max_epochs=1, verbose=0, train_split=None
    ).fit(X, y.astype(np.int64))
    diagnostics = QuantizationDiagnostics(FrozenEstimator(net), weight_bits=3, random_state=0)
    report = diagnostics.fit(X, y, sensitive_features=groups).group_report_
    assert (
        report.drop(columns=[c for c in report if c.endswith(("_low", "_high"))]).notna().all(axis=None)
    )


def test_probabilities_are_diagnosed_as_logits(coded):
    X, y, groups = coded
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(1))
    net = NeuralNetClassifier(module, max_epochs=2, verbose=0, train_split=None).fit(X, y)
    plain = make_classifier(nn.Sequential(*net.module_[:3]), max_epochs=0).fit(X, y)
    plain.module_.load_state_dict(net.module_[:3].state_dict())
    plain.history.new_epoch()
    reports = [
        QuantizationDiagnostics(FrozenEstimator(n), weight_bits=3, random_state=0)
        .fit(X, y, sensitive_features=groups)
        .group_report_
        for n in (net, plain)
    ]
    logits = ["logit_variance"]  # logarithms of probabilities have another mean than logits, only
    pd.testing.assert_frame_equal(*(r.drop(columns=logits) for r in reports), rtol=1e-3, atol=1e-5)
    assert reports[0].attrs["hessian_trace_method"]["float"] == "exact"


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 2 * x * grad


class Squares(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.outer(Once.apply(self.inner(x)))


def test_a_network_without_second_derivative(coded):
    X, y, groups = coded
    net = make_classifier(Squares, max_epochs=1).fit(X, y)
    diagnostics = QuantizationDiagnostics(FrozenEstimator(net), weight_bits=3, random_state=0)
    with pytest.warns(NoCurvatureWarning, match="once_differentiable"):
        report = diagnostics.fit(X, y, sensitive_features=groups).group_report_
    curvature = [c for c in report if c.startswith("hessian_max")]
    assert report[curvature].isna().all(axis=None)
    rest = ["loss", "gradient_norm", "gradient_norm_debiased", "excess_loss_first_order"]
    assert report[rest].notna().all(axis=None)


def test_without_curvature(frozen, coded):
    X, y, groups = coded
    with_it, without = (
        QuantizationDiagnostics(frozen, weight_bits=2, n_eigenvalues=k, random_state=0).fit(
            X, y, sensitive_features=groups
        )
        for k in (1, 0)
    )
    report = without.group_report_
    empty = [name for name in report if name.startswith("hessian")]
    assert len(empty) == 9
    assert report[empty].isna().all(axis=None)
    kept = report.columns.difference(empty)
    pd.testing.assert_frame_equal(
        report[kept], with_it.group_report_[kept], check_exact=False, rtol=1e-4
    )
    pd.testing.assert_frame_equal(without.attribution_, with_it.attribution_)
    np.testing.assert_array_equal(without.transform(X), with_it.transform(X))
    assert report.attrs["hessian_trace_method"] == {}
    assert without.hessian_eigenvalues_.empty
    columns = GroupDiagnosticsDisplay.from_diagnostics(without).columns_
    assert not [name for name in columns if name.startswith("hessian")]
    with pytest.raises(ValueError, match="n_eigenvalues is 0"):
        HessianSpectrumDisplay.from_diagnostics(without)


def test_eigenvalues_that_did_not_converge_are_named(frozen, coded, monkeypatch):
    X, y, groups = coded
    monkeypatch.setattr("skqfair.diagnostics._derivatives.MAX_ITER", 3)
    with pytest.warns(ConvergenceWarning, match=r"'a' at 2.*bounds"):
        QuantizationDiagnostics(frozen, weight_bits=2).fit(X, y, sensitive_features=groups)


def test_bad_input(frozen, net, coded):
    X, y, groups = coded
    make = QuantizationDiagnostics
    with pytest.raises(ValueError, match=r"fitted NeuralNet.*|fitted TensorNet.*FrozenEstimator"):
        make(net).fit(X, y)
    fitted = QuantizedClassifier(frozen, weight_bits=4).fit(X, y)
    with pytest.raises(ValueError, match="fitted QuantizedClassifier; wrap it"):
        make(fitted).fit(X, y)
    with pytest.raises(UntrainedNetworkError, match="never been trained"):
        make(FrozenEstimator(clone(net))).fit(X, y)
    with pytest.raises(TypeError, match="best_estimator_"):
        make(FrozenEstimator(LogisticRegression().fit(X, y))).fit(X, y)
    with pytest.raises(NotFittedError):
        make(FrozenEstimator(QuantizedClassifier())).fit(X, y)
    with pytest.raises(
        ValueError, match=r"labels that the (estimator was not trained on|given network has no)"
    ):
        make(frozen).fit(X, y + 1)
    with pytest.raises(ValueError, match=r"groups of 1 sample: \['z'\]"):
        make(frozen).fit(X, y, sensitive_features=["z", *groups[1:]])
    with pytest.raises(ValueError, match="weight_bits"):
        make(frozen, weight_bits=(8, 1)).fit(X, y)
    with pytest.raises(ValueError, match="weight_bits"):
        make(frozen, weight_bits=()).fit(X, y)
    with pytest.raises(ValueError, match="sensitive_features"):
        make(frozen).fit(X, y, sensitive_features=groups[:-1])
    with pytest.raises(NotFittedError):
        make(frozen).transform(X)
    with pytest.raises(ValueError, match="features"):
        make(frozen, weight_bits=2).fit(X, y).transform(X[:, :5])


def test_small_groups_are_named(frozen, coded):
    X, y, groups = coded
    groups = groups.copy()
    groups[:30] = "few"
    with pytest.warns(SmallGroupWarning, match=r"'few' \(30\); all groups are compared on 30"):
        report = QuantizationDiagnostics(frozen, weight_bits=2).fit(X, y, sensitive_features=groups)
    assert (report.group_report_["n_matched"] == 30).all()


def test_columns_in_another_order_are_refused(coded, tmp_path):
    X, y, groups = coded
    names = [f"x{i}" for i in range(X.shape[1])]
    frame, text = pd.DataFrame(X, columns=names), np.array(["no", "yes", "perhaps"])[y]
    clf = QuantizedClassifier(make_classifier(**SMALL), weight_bits=3, random_state=0).fit(frame, text)
    model = OnnxClassifier(to_onnx(clf, tmp_path / "m.onnx")).fit()
    for fitted in (clf, model):
        diagnostics = QuantizationDiagnostics(FrozenEstimator(fitted), n_eigenvalues=0, random_state=0)
        for other in (frame[names[::-1]], frame.rename(columns={"x0": "z"})):
            with pytest.raises(ValueError, match="feature names should match"):
                diagnostics.fit(other, text, sensitive_features=groups)
    right = QuantizationDiagnostics(FrozenEstimator(clf), n_eigenvalues=0, random_state=0)
    report = right.fit(frame, text, sensitive_features=groups).group_report_
    own = [(clf.predict(frame) == text)[groups == g].mean() for g in "ab"]
    np.testing.assert_allclose(report.loc[3, "accuracy"], own)


def test_few_samples_by_choice_are_named(frozen, coded):
    X, y, groups = coded
    with pytest.warns(SmallGroupWarning, match="max_samples is 10; gradients and curvature of so few"):
        QuantizationDiagnostics(frozen, weight_bits=2, max_samples=10, random_state=0).fit(
            X, y, sensitive_features=groups
        )


def test_intersections_keep_their_names(frozen, coded):
    X, y, _ = coded
    first = np.where(np.arange(len(X)) % 2, "x, y", "x")
    second = np.where(np.arange(len(X)) % 2, "z", "y, z")
    report = (
        QuantizationDiagnostics(frozen, weight_bits=2, n_eigenvalues=0, random_state=0)
        .fit(X, y, sensitive_features=np.column_stack([first, second]))
        .group_report_
    )
    assert report.index.is_unique
    assert report.loc["float"].index.to_list() == ["('x', 'y, z')", "('x, y', 'z')"]


def test_none_of_the_labels(coded):
    X, y, groups = coded
    text = np.array(["no", "yes", "perhaps"])[y]
    clf = QuantizedClassifier(make_classifier(**SMALL), weight_bits=3, random_state=0).fit(X, text)
    with pytest.raises(ValueError, match=r"none of the labels .* pass y as its classes_"):
        QuantizationDiagnostics(FrozenEstimator(clf)).fit(X, y, sensitive_features=groups)
