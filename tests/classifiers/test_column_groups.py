"""Groups of columns through the estimators: codes, bytes, files, searches, diagnostics."""

import pickle

import numpy as np
import pytest
import torch
from nets import CODES, small
from saving import same, saved
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV

from skqfair import FairQATClassifier, QuantizationDiagnostics, QuantizedClassifier
from skqfair.networks import make_classifier
from skqfair.quantization import CHOICES, quantize

GROUPS = ("per_group", 3)


@pytest.fixture(scope="module")
def frozen(problem):
    """Weights of 5, 8 and 6 columns."""
    X, y, _ = problem
    torch.manual_seed(0)
    net = small(module__hidden_sizes=(8, 6), max_epochs=6)
    return FrozenEstimator(net.fit(X, np.array([CODES[label] for label in y])))


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((150, 5)).astype(np.float32)
    y = np.array(list(CODES))[np.digitize(X[:, 0] + X[:, 1], [-0.7, 0.7])]
    return X, y, np.array(list("abc"))[rng.integers(0, 3, 150)]


def coded(problem):
    X, y, groups = problem
    return X, np.array([CODES[label] for label in y]), groups


@pytest.mark.parametrize("bits", [2, 4])
def test_module_and_bytes(problem, frozen, bits):
    X, y, _ = coded(problem)
    clf = QuantizedClassifier(frozen, weight_bits=bits, granularity=GROUPS, random_state=0).fit(X, y)
    floats, size = dict(clf.estimator_.module_.named_parameters()), 0
    for name, weight in floats.items():
        if weight.ndim == 1:
            size += 4 * weight.numel()
            continue
        channels, columns = weight.shape
        codes, scale = quantize(weight, bits, granularity=GROUPS)
        assert torch.equal(clf.module_.get_parameter(name), codes * scale)
        assert clf.quantized_weights_[name].scale.shape == (channels, -(-columns // 3))
        size += -(-weight.numel() * bits // 8) + 4 * channels * -(-columns // 3)
    assert clf.model_size_ == size


@pytest.mark.parametrize("calibration", ["mse", "learned"])
def test_fine_tuning_ends_on_the_grid_of_its_groups(problem, frozen, calibration):
    X, y, _ = coded(problem)
    clf = FairQATClassifier(frozen, granularity=GROUPS, weight_bits=3, finetune_epochs=2, random_state=0)
    clf.set_params(calibration=calibration, finetune_lr=0.1).fit(X, y)
    for name, weight in clf.latent_module_.named_parameters():
        if weight.ndim == 2:
            tensor = clf.quantized_weights_[name]
            assert tensor.scale.shape == (len(weight), -(-weight.shape[1] // 3))
            of_each = tensor.scale.numpy()[:, np.arange(weight.shape[1]) // 3]
            codes = np.clip(np.rint(weight.detach().numpy() / of_each), -3, 3)
            np.testing.assert_array_equal(tensor.codes.numpy(), codes)
            assert torch.equal(clf.module_.get_parameter(name), torch.as_tensor(codes * of_each))
            assert len(np.unique(codes)) > 3


@pytest.mark.parametrize("how", ["pickle", "skops"])
@pytest.mark.parametrize("kind", [QuantizedClassifier, FairQATClassifier])
def test_saved_and_loaded(problem, kind, how):
    X, y, _ = problem
    net = make_classifier(max_epochs=1, module__hidden_sizes=(8,))
    clf = kind(net, weight_bits=3, granularity=GROUPS, rounding="gptq", random_state=0).fit(X, y)
    loaded = pickle.loads(pickle.dumps(clf)) if how == "pickle" else saved(clf, kind)
    same(clf, loaded)
    assert loaded.granularity == GROUPS
    assert [w.group_size for w in loaded.quantized_weights_.values()] == [3, 3]
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))
    weight = loaded.quantized_weights_["hidden0.weight"]
    assert torch.equal(weight.dequantize(), clf.quantized_weights_["hidden0.weight"].dequantize())


def test_what_was_saved_before_there_were_groups():
    """The state of a QuantizedTensor had four attributes."""
    from skqfair.quantization import QuantizedTensor

    old = object.__new__(QuantizedTensor)
    vars(old).update(codes=torch.ones(2, 3).char(), scale=torch.ones(2, 1), bits=4, axis=0)
    assert torch.equal(old.dequantize(), torch.ones(2, 3))
    assert old.nbytes == 3 + 8


@pytest.mark.parametrize("rule", ["auto", "fairquant"])
@pytest.mark.parametrize("kind", [QuantizedClassifier, FairQATClassifier])
def test_rules_for_bits(problem, frozen, kind, rule):
    X, y, groups = coded(problem)
    clf = kind(frozen, layer_bits=rule, bit_budget=3, granularity=GROUPS, random_state=0)
    clf.fit(X, y, sensitive_features=groups)
    weights = clf.quantized_weights_
    bits = {name: np.broadcast_to(w.bits, len(w.codes)) for name, w in weights.items()}
    spent = sum(float(b.mean()) * weights[name].codes.numel() for name, b in bits.items())
    assert spent <= 3 * sum(w.codes.numel() for w in weights.values()) * (1 + 1e-9)
    for name, w in weights.items():
        assert set(bits[name].tolist()) <= set(CHOICES)
        assert (w.codes.abs().numpy() <= (2 ** (bits[name] - 1) - 1)[:, None]).all()
        assert w.scale.shape[1] == -(-w.codes.shape[1] // 3)


def test_auto_measures_what_groups_lose(problem, frozen, monkeypatch):
    """The sensitivities are those of weights with scales of groups, by a loop."""
    from skqfair.classifiers import _layer_bits

    X, y, groups = coded(problem)
    seen = []

    def keep(sensitivity, sizes, **options):
        seen.append(np.array(sensitivity))
        return np.full(len(sizes), 2)

    monkeypatch.setattr(_layer_bits, "allocate_bits", keep)
    options = {"calibration_size": 150, "calibration_groups": "proportional", "random_state": 0}
    clf = QuantizedClassifier(frozen, layer_bits="auto", bit_budget=3, granularity=GROUPS, **options)
    clf.fit(X, y, sensitive_features=groups)
    module = clf.estimator_.module_
    weight = module.output.weight
    before = weight.detach().clone()

    def losses():
        logits = module(torch.as_tensor(X)).double()
        each = torch.nn.functional.cross_entropy(logits, torch.as_tensor(y), reduction="none")
        return np.array([float(each[groups == g].mean()) for g in "abc"])

    with torch.no_grad():
        without = losses()
        for j, bits in enumerate(CHOICES):
            codes, scale = quantize(before, bits, granularity=GROUPS)
            weight.copy_(codes * scale)
            np.testing.assert_allclose(seen[0][-1, j], losses() - without, atol=1e-6)
        weight.copy_(before)


@pytest.mark.filterwarnings("ignore:groups with fewer than 64 samples")
def test_diagnostics(problem, frozen):
    X, y, groups = coded(problem)
    diagnostics = QuantizationDiagnostics(
        frozen, weight_bits=(4, 2), granularity=GROUPS, n_eigenvalues=0, random_state=0
    )
    report = diagnostics.fit(X, y, sensitive_features=groups).layer_report_
    floats = dict(frozen.estimator.module_.named_parameters())
    for (bits, name), row in report.iterrows():
        weight = floats[name].detach().double().numpy()
        codes, scale = (t.double().numpy() for t in quantize(floats[name], bits, granularity=GROUPS))
        noise = np.square(weight - codes * scale).sum()
        assert row["sqnr_db"] == pytest.approx(10 * np.log10(np.square(weight).sum() / noise), abs=1e-4)
        assert row["sparsity"] == pytest.approx((codes == 0).mean())
        beyond = np.abs(weight / scale) > 2 ** (bits - 1) - 0.5
        assert row["saturation"] == pytest.approx(beyond.mean())


@pytest.mark.parametrize("granularity", ["per_group", ("per_group", 1), ["per_group", 8]])
def test_diagnostics_refuse_other_granularities(problem, frozen, granularity):
    X, y, _ = coded(problem)
    with pytest.raises(ValueError, match=r"granularity must be one of .*\('per_group', n\)"):
        QuantizationDiagnostics(frozen, granularity=granularity).fit(X, y)


def test_in_a_search(problem, tmp_path):
    X, y, _ = problem
    net = make_classifier(max_epochs=2, module__hidden_sizes=(8,))
    clf = QuantizedClassifier(net, weight_bits=3, memory=str(tmp_path), random_state=0)
    grid = {"granularity": ["per_channel", ("per_group", 4), ("per_group", 2)]}
    search = GridSearchCV(clf, grid, cv=2, error_score="raise").fit(X, y)
    assert list(search.cv_results_["param_granularity"]) == grid["granularity"]
    assert clone(clf.set_params(granularity=GROUPS)).granularity == GROUPS


def test_networks_without_matrices_are_refused_before_training(problem):
    X = np.zeros((6, 1, 4, 4), np.float32)

    class Convolutions(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Conv2d(1, 2, 4)

        def forward(self, X):
            assert not self.training, "was trained"
            return self.layer(X).flatten(1)

    for kind in (QuantizedClassifier, FairQATClassifier):
        clf = kind(make_classifier(Convolutions, max_epochs=1), granularity=GROUPS)
        with pytest.raises(ValueError, match="Convolutions has no weight whose columns"):
            clf.fit(X, np.arange(6) % 2)
