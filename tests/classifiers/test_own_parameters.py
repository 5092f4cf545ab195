"""Weights that no module of torch holds: named, counted as float, and quantized on demand."""

import re
import warnings

import numpy as np
import pytest
import skops.io
import torch
from sklearn.base import clone
from torch import nn
from torch.nn import functional as F

from skqfair import FairQATClassifier, PrunedClassifier, QuantizationDiagnostics, QuantizedClassifier
from skqfair.exceptions import UnquantizedWeightsWarning
from skqfair.networks import make_classifier
from skqfair.quantization import quantize

SHAPES = {"mix.weight": (6, 8), "experts": (3, 8, 5), "table": (4, 5), "out": (5, 3)}
AXES = {"mix": 1, "experts": -1, "table": 0, "out": 1}


class Conv1D(nn.Module):
    """A layer of transformers: the weight is stored the other way round."""

    def __init__(self, n_out, n_in):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_in, n_out) / n_in**0.5)
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, x):
        return torch.addmm(self.bias, x, self.weight)


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.mix = Conv1D(8, 6)
        self.experts = nn.Parameter(torch.randn(3, 8, 5) / 8**0.5)
        self.table = nn.Parameter(torch.randn(4, 5) / 3)
        self.out = nn.Parameter(torch.randn(5, 3) / 2)

    def forward(self, X):
        hidden = self.mix(torch.relu(self.first(X)))
        hidden = torch.einsum("nd,edk->nk", torch.relu(hidden), self.experts)
        return F.linear(hidden, (self.table.mean(0)[:, None] * self.out).T)


@pytest.fixture
def data():
    X = np.random.default_rng(0).normal(size=(120, 6)).astype(np.float32)
    return X, (X[:, 0] > 0).astype(int) + (X[:, 1] > 1)


def net():
    return make_classifier(Own, max_epochs=2)


def test_what_stays_in_float_is_named_with_its_share(data):
    with pytest.warns(UnquantizedWeightsWarning) as caught:
        clf = QuantizedClassifier(net(), weight_bits=2, random_state=0).fit(*data)
    parameters = dict(clf.module_.named_parameters())
    left = sum(parameters[name].numel() for name in SHAPES)
    share = left / sum(p.numel() for p in parameters.values())
    message = str(caught[0].message)
    assert len(caught) == 1
    assert message.startswith(f"{share:.1%} of the weights of Own are not quantized")
    assert all(f"{name} {shape}" in message for name, shape in SHAPES.items())
    assert (
        clf.layer_bits_
        == {"first.weight": 2, **dict.fromkeys(SHAPES, 32)}
        == {name: 2 if name == "first.weight" else 32 for name, p in parameters.items() if p.ndim > 1}
    )
    assert caught[0].filename == __file__


def test_named_parameters_are_quantized_along_their_axes(data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf = QuantizedClassifier(net(), weight_bits=4, quantize_parameters=AXES, random_state=0).fit(
            *data
        )
    assert clf.layer_bits_ == dict.fromkeys([*SHAPES, "first.weight"], 4)
    trained, final = (dict(m.named_parameters()) for m in (clf.estimator_.module_, clf.module_))
    for name, axis in {**AXES, "first.weight": 0}.items():
        name = "mix.weight" if name == "mix" else name
        codes, scale = quantize(trained[name], 4, axis=axis)
        np.testing.assert_array_equal(final[name].detach(), codes * scale)
    numbers = sum(p.numel() for n, p in trained.items() if n not in clf.layer_bits_)
    scales = sum(w.scale.numel() for w in clf.quantized_weights_.values())
    packed = sum(-(-w.codes.numel() // 2) for w in clf.quantized_weights_.values())
    assert clf.model_size_ == packed + 4 * (scales + numbers)
    assert clf.quantized_weights_["experts"].scale.shape == (1, 1, 5)


def test_every_way_of_use(data, tmp_path):
    X, y = data
    options = {"quantize_parameters": AXES, "random_state": 0}
    clf = QuantizedClassifier(net(), layer_bits={"*": 8, "experts": 3}, **options).fit(X, y)
    assert clf.layer_bits_["experts"] == 3
    clone(clf)
    skops.io.dump(clf, tmp_path / "clf.skops")
    trusted = skops.io.get_untrusted_types(file=tmp_path / "clf.skops")
    loaded = skops.io.load(tmp_path / "clf.skops", trusted=trusted)
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))
    qat = FairQATClassifier(net(), weight_bits=3, calibration="learned", **options).fit(X, y)
    assert set(qat.layer_bits_.values()) == {3}
    assert len(np.unique(qat.module_.experts.detach()[..., 0])) <= 7
    auto = QuantizedClassifier(net(), layer_bits="auto", bit_budget=3, **options).fit(X, y)
    assert set(auto.layer_bits_) == set(clf.layer_bits_)
    fairquant = QuantizedClassifier(net(), layer_bits="fairquant", bit_budget=4, **options).fit(X, y)
    assert len(fairquant.layer_bits_["mix.weight"]) == 8
    ends = QuantizedClassifier(net(), layer_bits="first_last_8", weight_bits=2, **options).fit(X, y)
    assert list(ends.layer_bits_.values()).count(8) == 2


def test_exported_as_integers(data, tmp_path):
    pytest.importorskip("onnxscript")
    from skqfair.export import OnnxClassifier, to_onnx

    X, y = data
    clf = QuantizedClassifier(net(), weight_bits=4, quantize_parameters=AXES, random_state=0).fit(X, y)
    to_onnx(clf, tmp_path / "own.onnx")
    exported = OnnxClassifier(tmp_path / "own.onnx")
    np.testing.assert_allclose(exported.predict_proba(X), clf.predict_proba(X), atol=1e-5)


def test_pruning_names_them_too(data):
    with pytest.warns(UnquantizedWeightsWarning, match="Own are not pruned"):
        PrunedClassifier(net(), amount=0.5, random_state=0).fit(*data)


def test_a_report_says_it_once(data):
    X, y = np.tile(data[0], (20, 1)), np.tile(data[1], 20)
    with pytest.warns(UnquantizedWeightsWarning) as caught:
        QuantizationDiagnostics(net(), weight_bits=(8, 4, 2), n_eigenvalues=0, random_state=0).fit(
            X, y, sensitive_features=y
        )
    assert len([w for w in caught if w.category is UnquantizedWeightsWarning]) == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"nothing": 0}, "the pattern 'nothing' matches no parameter of two or more"),
        ({"first": 1}, "these are experts, table, out, mix.weight"),
        ({"out": 2}, "must be an axis of out, which has 2 dimensions; got 2"),
        ({"out": "1"}, "must be a dict of patterns to the axis"),
    ],
)
def test_bad_input(data, value, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        QuantizedClassifier(net(), quantize_parameters=value, random_state=0).fit(*data)
