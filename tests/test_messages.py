"""Bad input gets an error that names the argument, what came, and the remedy; odd input works."""

import threading
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback
from torch import nn

from skqfair import (
    CompressionAudit,
    FairQATClassifier,
    QuantizationDiagnostics,
    QuantizedClassifier,
    fairness_violation_observed,
    make_fairness_scorer,
)
from skqfair.diagnostics import (
    group_gradient_norms,
    group_hessian_eigenvalues,
    group_hessian_trace,
    per_sample_gradient_norms,
)
from skqfair.exceptions import ManyGroupsWarning
from skqfair.metrics import group_report, smallest_within
from skqfair.networks import MLP, ConvNet, make_classifier
from skqfair.quantization import quantize


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(257, 6)).astype(np.float32)
    return X, (X[:, 0] > 0).astype(int), rng.choice(["a", "b"], 257)


def normed():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def fit(X, y, module=MLP, **options):
    return QuantizedClassifier(
        make_classifier(module, **{"max_epochs": 1, **options}), random_state=0
    ).fit(X, y)


class Sizes(nn.Module):
    """Notes the sizes of training batches."""

    seen = []

    def __init__(self):
        super().__init__()
        self.layers = normed()

    def forward(self, X):
        if self.training:
            Sizes.seen.append(len(X))
        return self.layers(X)


@pytest.mark.parametrize(
    ("n", "sizes"), [(257, [128, 129]), (256, [128, 128]), (129, [129]), (65, [65])]
)
def test_a_last_row_joins_the_batch_before_where_there_is_batchnorm(data, n, sizes):
    X, y, _ = data
    Sizes.seen = []
    fit(X[:n], y[:n], Sizes)
    assert Sizes.seen == sizes


def test_a_last_row_after_sampling(data):
    X, y, _ = data
    groups = np.r_[np.zeros(200), np.ones(57)].astype(int)
    Sizes.seen = []
    net = make_classifier(Sizes, max_epochs=1, batch_size=57)
    FairQATClassifier(net, sampling="undersample", finetune_epochs=1, random_state=0).fit(
        X[:229], y[:229], sensitive_features=np.r_[groups[:200], groups[200:229]]
    )
    assert Sizes.seen[-1:] == [58]  # 2 x 29 rows
    assert min(Sizes.seen) > 1


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"iterator_train": torch.utils.data.DataLoader}])
def test_rows_that_cannot_join(data, options):
    X, y, _ = data
    with pytest.raises(ValueError, match=r"leave a batch of one row.*iterator_train__drop_last=True"):
        fit(X, y, normed(), **options)
    fit(
        X, y, normed(), **options, iterator_train__drop_last=True
    ) if "batch_size" not in options else None


@pytest.mark.parametrize("device", ["cuda", "mps", "gpu", "cuda:7", "meta", 0])
def test_devices_that_are_not_there(data, device):
    if device in ("cuda", 0) and torch.cuda.is_available():
        pytest.skip("it is there")
    with pytest.raises(ValueError, match=rf"device={device!r} of the net cannot be used here.*'cpu'"):
        fit(*data[:2], device=device)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"batch_size": 0},
            "batch_size of the net must be an integer >= 1, or -1 for all samples; got 0",
        ),
        ({"batch_size": 2.5}, "batch_size of the net must be an integer"),
        ({"iterator_valid__batch_size": 0}, "iterator_valid__batch_size of the net must be an integer"),
        ({"lr": "a"}, "lr of the net must be a number, .* got 'a'"),
        ({"optimizer": "adam"}, r"optimizer of the net must be a class, .*Adam, .* got 'adam'"),
        ({"callbacks": 5}, "callbacks of the net must be a list of callbacks; got 5"),
        ({"train_split": 5}, r"train_split of the net must be None or .*ValidSplit\(5\); got 5"),
        ({"max_epochs": -1}, "max_epochs of the net must be an integer >= 0; got -1"),
        ({"module__hidden_sizes": 8}, r"hidden_sizes must be a sequence of positive integers.* got 8"),
        ({"module__hidden_sizes": (4, 0)}, r"hidden_sizes must be .* got \(4, 0\)"),
        ({"module__hidden_sizes": (True,)}, r"hidden_sizes must be .* got \(True,\)"),
    ],
)
def test_parameters_of_the_net(data, options, message):
    with pytest.raises(ValueError, match=message):
        fit(*data[:2], **options)


def test_sizes_of_numpy(data):
    X, y, _ = data
    expected = fit(X, y, batch_size=32, max_epochs=2).predict_proba(X)
    found = fit(X, y, batch_size=np.int64(32), max_epochs=np.int64(2)).predict_proba(X)
    np.testing.assert_array_equal(found, expected)


def test_callbacks_without_a_copy_are_named(data):
    class Locked(Callback):
        def __init__(self):
            self.lock = threading.Lock()

    X, y, _ = data
    with pytest.raises(TypeError, match=r"callbacks of the net cannot be copied .*FrozenEstimator"):
        fit(X, y, callbacks=[Locked()])
    frozen = FrozenEstimator(make_classifier(max_epochs=1, callbacks=[Locked()]).fit(X, y))
    QuantizedClassifier(frozen).fit(X, y)


def test_sizes_of_networks():
    for widths in (8, (), (4, -1)):
        with pytest.raises(ValueError, match="ConvNet: widths must be a sequence of positive integers"):
            ConvNet(3, 2, widths=widths)
    with pytest.raises(TypeError, match=r"hidden_sizes is an argument of MLP, .* pass module__"):
        make_classifier(hidden_sizes=(8,))
    make_classifier(batch_size=8, callbacks=None, device="cpu", classes=None, compile=False)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(0), r"tensor is empty, of shape \(0,\)"),
        (np.zeros((0, 3)), r"tensor is empty, of shape \(0, 3\)"),
        (None, "must be a tensor or array of floats, got NoneType"),
        ("a", "must be a tensor or array of floats, got str"),
        (np.array([[1, None]], dtype=object), "must be a tensor or array of floats"),
        (torch.eye(3).to_sparse(), r"must be dense, got layout torch.sparse_coo; use tensor.to_dense"),
        (torch.ones(3).to(torch.float8_e4m3fn), "16 bits or more, got dtype torch.float8_e4m3fn"),
        (torch.ones(3, dtype=torch.int32), "got dtype torch.int32; cast it first"),
        (torch.ones(3, device="meta"), "tensor has no values"),
        (np.ones(3, np.longdouble), "got ndarray of float128"),
        (np.ma.masked_array([1.0, 2.0], [0, 1]), r"masked array; .* tensor\.filled\(0\)"),
    ],
)
def test_what_cannot_be_quantized(tensor, message):
    with pytest.raises(ValueError, match=message):
        quantize(tensor, 4, axis=0)


def test_arrays_of_other_byte_order_and_axes():
    values = np.arange(6.0).reshape(2, 3)
    for some in (values.astype(">f4"), values.astype(">f8")):
        torch.testing.assert_close(quantize(some, 4), quantize(some.astype("=f8"), 4), check_dtype=False)
    for axis in (2, 0.5, None, True):
        with pytest.raises(ValueError, match=f"axis must index one of 2 dimensions, got {axis!r}"):
            quantize(values, 4, axis=axis)


FUNCTIONS = [group_hessian_eigenvalues, group_hessian_trace, group_gradient_norms]


@pytest.mark.parametrize("function", [*FUNCTIONS, per_sample_gradient_norms])
def test_labels_of_curvature(data, function):
    X, y, groups = data
    module = MLP(n_features=6, n_classes=2, hidden_sizes=(4,))
    rest = () if function is per_sample_gradient_norms else (groups,)
    for wrong in (y + 1, y - 1):
        with pytest.raises(
            ValueError, match=r"y must be positions of classes, 0 to 1 for 2 outputs; got"
        ):
            function(module, X, wrong, *rest)
    with pytest.raises(ValueError, match="got fractions"):
        function(module, X, y + 0.5, *rest)
    with pytest.raises(ValueError, match="y must hold numbers, got <U3"):
        function(module, X, np.array(["no", "yes"])[y], *rest)
    expected = function(module, np.rint(X), y, *rest)
    np.testing.assert_array_equal(
        function(module, np.rint(X).astype(int), y.astype(float), *rest), expected
    )


@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_cannot_be_differentiated(data, function):
    X, y, groups = data
    module = MLP(n_features=6, n_classes=2, hidden_sizes=(4,))
    with pytest.raises(ValueError, match=r"module MLP fails on X of shape \(257, 12\)"):
        function(module, np.c_[X, X], y, groups)
    with pytest.raises(ValueError, match=r"y of shape \(\d+, 1\).*positions, y of shape \(n,\)"):
        function(module, X, y[:, None], groups)
    for criterion in ("ce", nn.CrossEntropyLoss):
        with pytest.raises(TypeError, match=r"criterion must be a function .*, e.g. torch"):
            function(module, X, y, groups, criterion=criterion)


def test_groups():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 120)
    twice = pd.DataFrame(np.c_[y, y], columns=["s", "s"])
    with pytest.raises(ValueError, match=r"has the columns \['s'\] more than once"):
        group_report(y, y, sensitive_features=twice)
    with pytest.raises(ValueError, match="sensitive_features must be given"):
        fairness_violation_observed(y, y, sensitive_features=None)
    small = group_report(y, y, sensitive_features=(y * 0.5).astype(np.float16), random_state=0)
    assert small.index.tolist() == [0.0, 0.5]
    for many in (rng.normal(size=120), np.arange(120) % 60, np.arange(120)):
        with pytest.warns(ManyGroupsWarning, match=rf"has {len(set(many))} different values for 120"):
            group_report(y, y, sensitive_features=many)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group_report(y, y, sensitive_features=np.arange(120) % 50)
        group_report(y[:4], y[:4], sensitive_features=np.arange(4))


def test_masked_values_are_not_taken_for_data(data):
    X, y, groups = data
    masked = np.ma.masked_array(y, np.arange(257) < 3)
    clf = fit(X, y)
    for call in (
        lambda: fairness_violation_observed(masked, y, sensitive_features=groups),
        lambda: fairness_violation_observed(y, masked, sensitive_features=groups),
        lambda: fairness_violation_observed(y, y, sensitive_features=masked),
        lambda: fairness_violation_observed(y, y, sensitive_features=groups, sample_weight=masked),
        lambda: fit(X, masked),
        lambda: fit(np.ma.masked_less(X, 0), y),
        lambda: clf.predict(np.ma.masked_less(X, 0)),
        lambda: clf.fit(X, y, sensitive_features=masked),
    ):
        with pytest.raises(ValueError, match=r"has \d+ masked values; drop .* fill them in"):
            call()
    assert fairness_violation_observed(np.ma.masked_array(y), y, sensitive_features=groups) == 0


def test_what_reports_and_selections_take(data):
    _, y, groups = data
    with pytest.raises(TypeError, match=r"metrics must be a name, a function, a list or a dict.*got 5"):
        group_report(y, y, sensitive_features=groups, metrics=5)
    with pytest.raises(ValueError, match="predictions is a list; pass a dict of model names"):
        CompressionAudit.from_predictions(y, [y, y], sensitive_features=groups)
    for name in ("fvo", "accuracy_drop"):
        with pytest.raises(ValueError, match=rf"{name} must be a share, .* got 5; 0.05 stands for"):
            smallest_within(**{name: 5})


def test_polars_with_pandas_groups(data):
    X, y, groups = data
    frame = pl.DataFrame({f"c{i}": X[:, i] for i in range(6)})
    clf = fit(frame, y)
    with pytest.raises(ValueError, match=r"X must be a pandas frame .* got polars\.DataFrame"):
        make_fairness_scorer(sensitive_features=pd.Series(groups))(clf, frame, y)


@pytest.mark.parametrize("kind", [pd.Series, pl.Series, np.asarray, list])
def test_sample_weights_of_any_kind(data, kind):
    X, y, _ = data
    weights = np.linspace(0.5, 1, len(y))
    weights.flags.writeable = False
    clf = QuantizedClassifier(make_classifier(max_epochs=1), random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = clf.fit(X, y, sample_weight=kind(weights)).predict_proba(X)
    np.testing.assert_array_equal(found, clf.fit(X, y, sample_weight=weights.copy()).predict_proba(X))


def test_a_frozen_pipeline_is_diagnosed_by_its_last_step(data):
    X, y, groups = data
    frame = pd.DataFrame(X * 10 + 3, columns=list("abcdef"))
    clf = QuantizedClassifier(make_classifier(max_epochs=2), weight_bits=4, random_state=0)
    pipeline = make_pipeline(StandardScaler(), clf).fit(frame, y)
    options = {"n_eigenvalues": 0, "random_state": 0}
    whole = QuantizationDiagnostics(FrozenEstimator(pipeline), **options)
    whole.fit(frame, y, sensitive_features=groups)
    last = QuantizationDiagnostics(FrozenEstimator(pipeline[-1]), **options)
    scaled = pipeline[:-1].transform(frame)
    last.fit(scaled, y, sensitive_features=groups)
    pd.testing.assert_frame_equal(whole.group_report_, last.group_report_)
    np.testing.assert_array_equal(whole.transform(frame), last.transform(scaled))
    assert whole.group_report_.loc[4, "accuracy"].mul(whole.group_report_.loc[4, "count"]).sum() == (
        pipeline.score(frame, y) * len(y)
    )


def test_pipelines_in_pipelines_and_frozen_steps(data):
    X, y, groups = data
    clf = QuantizedClassifier(make_classifier(max_epochs=2), weight_bits=4, random_state=0)
    whole = make_pipeline(StandardScaler(), make_pipeline("passthrough", StandardScaler(), clf)).fit(
        X, y
    )
    options = {"n_eigenvalues": 0, "random_state": 0}
    nested = QuantizationDiagnostics(FrozenEstimator(whole), **options)
    nested.fit(X, y, sensitive_features=groups)
    frozen = make_pipeline(whole[0], whole[-1][:-1], FrozenEstimator(whole[-1][-1]))
    one = QuantizationDiagnostics(FrozenEstimator(frozen), **options)
    one.fit(X, y, sensitive_features=groups)
    pd.testing.assert_frame_equal(nested.group_report_, one.group_report_)
    with pytest.raises(TypeError, match=r"got Pipeline.*a fitted Pipeline goes inside"):
        QuantizationDiagnostics(make_pipeline(StandardScaler(), clf)).fit(X, y)


def test_parity_of_a_pipeline(data, tmp_path):
    pytest.importorskip("onnxscript")
    from skqfair.export import OnnxClassifier, parity_report, to_onnx

    X, y, groups = data
    pipeline = make_pipeline(StandardScaler(), QuantizedClassifier(random_state=0)).fit(X * 10 + 3, y)
    exported = OnnxClassifier(to_onnx(pipeline[-1], tmp_path / "model.onnx"))
    for estimator in (pipeline, FrozenEstimator(pipeline)):
        report = parity_report(estimator, exported, X * 10 + 3, y, sensitive_features=groups)
        assert (report["agreement"] == 1).all()
    with pytest.raises(ValueError, match="y must have one entry for each sample: expected 257, got 256"):
        parity_report(pipeline, exported, X, y[:-1], sensitive_features=groups)
    with pytest.raises(ValueError, match="sensitive_features must be given"):
        parity_report(pipeline, exported, X, y, sensitive_features=None)
