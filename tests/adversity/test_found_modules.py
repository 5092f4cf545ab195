"""What fuzzing found in quantization, networks and mitigation."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from skqfair import QuantizedClassifier
from skqfair._groups import encode_groups
from skqfair.exceptions import ModuleOutputError
from skqfair.mitigation import balancing_weights
from skqfair.networks import MLP, ConvNet, TorchClassifier
from skqfair.quantization import (
    QuantizationScheme,
    SparseTensor,
    allocate_bits,
    check_budget,
    compensate_rounding,
    convert,
    float_size,
    has_batchnorm,
    move_batchnorm,
    observe_activations,
    pack,
    plain_copy,
    quantizable_weights,
    quantize,
    sparse_size,
    unpack,
)


@pytest.mark.parametrize("module", [None, nn.Linear, {}])
@pytest.mark.parametrize(
    "function",
    [
        lambda module: convert(module, QuantizationScheme(4)),
        lambda module: observe_activations(module).__enter__(),
        *(float_size, has_batchnorm, plain_copy, quantizable_weights, sparse_size),
    ],
)
def test_what_is_no_module_is_named(function, module):
    with pytest.raises(TypeError, match=r"module must be a torch\.nn\.Module"):
        function(module)


def test_what_is_no_scheme_is_named():
    with pytest.raises(TypeError, match="scheme must be a QuantizationScheme, got int"):
        convert(nn.Linear(2, 2), 4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
def test_inputs_of_layers_that_are_not_finite_are_no_scale(value, scheme):
    """NaN went unseen, and an infinity was a scale."""
    module = nn.Linear(2, 2)
    with observe_activations(module) as statistics:
        module(torch.tensor([[1.0, value], [-1.0, 0.5]]))
    asked = QuantizationScheme(4, activation_bits=8, activation_scheme=scheme)
    with pytest.raises(ValueError, match=r"statistics of the inputs of a layer .* not finite"):
        convert(module, asked, statistics)


@pytest.mark.parametrize("rounding", ["gptq", "least_squares"])
@pytest.mark.parametrize("power", [-500, -60, 60])
def test_rounding_does_not_depend_on_the_unit_of_the_inputs(rounding, power):
    """Squares of 1e-160 have no inverse in floats; powers of two change no code."""
    torch.manual_seed(0)
    module, X = nn.Linear(4, 3).double(), torch.randn(20, 4).double()
    codes = []
    for factor in (1.0, 2.0**power):
        found = compensate_rounding(
            convert(module, QuantizationScheme(3)),
            module,
            lambda m, scaled=X * factor: m(scaled),
            rounding=rounding,
        )
        codes.append(found.weights["weight"].codes)
    assert torch.equal(*codes)


@pytest.mark.parametrize("rounding", ["gptq", "least_squares"])
def test_inputs_whose_squares_are_infinite_are_refused(rounding):
    module, X = nn.Linear(2, 2), torch.full((3, 2), 1e30)
    converted = convert(module, QuantizationScheme(3))
    with pytest.raises(ValueError, match="are not finite, or their squares; check X"):
        compensate_rounding(converted, module, lambda m: m(X), rounding=rounding)


def test_batchnorm_is_not_moved_by_what_is_not_finite():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval()
    moved = convert(module, QuantizationScheme(4)).module
    before = moved[1].running_mean.clone()
    with pytest.raises(ValueError, match=r"inputs of a BatchNorm .* are not finite"):
        move_batchnorm(moved, module, lambda m: m(torch.full((3, 2), torch.inf)))
    assert torch.equal(moved[1].running_mean, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(2), 4, (2,)), "packed must be bytes"),
        ((np.zeros(1, np.uint8), 4, (3,)), "packed has 1 bytes, but 3 codes of 4 bits take 2"),
        ((np.zeros(1, np.uint8), "4", (1,)), "bits must be an integer"),
        ((np.zeros(1, np.uint8), 4, 2), "shape must be a sequence of integers"),
        ((np.zeros(1, np.uint8), 4, (-1,)), "shape must have no negative sides"),
        ((np.zeros(1, np.uint8), 4, (2**40,)), "packed has 1 bytes"),
    ],
)
def test_what_cannot_be_unpacked(arguments, message):
    """A stream that was cut short was read as zeros."""
    with pytest.raises(ValueError, match=message):
        unpack(*arguments)


@pytest.mark.parametrize("codes", [[0.5], ["a"], [1j], None])
def test_what_cannot_be_packed(codes):
    """Fractions were cut off."""
    with pytest.raises(ValueError, match="codes must be integers"):
        pack(codes, 4)
    assert len(pack([], 4)) == 0


def test_tensors_that_are_none():
    for function in (SparseTensor.from_dense, lambda tensor: quantize(tensor, 4)):
        for tensor in (None, "a", pd.DataFrame({"a": ["x"]}), np.array([1j])):
            with pytest.raises(ValueError, match="tensor must"):
                function(tensor)


@pytest.mark.parametrize("choices", [None, 3, (), "ab"])
def test_choices_that_are_none(choices):
    for call in (
        lambda: allocate_bits([[0.1, 0.2]], [1], budget=3, choices=choices),
        lambda: check_budget(3, choices),
    ):
        with pytest.raises(ValueError, match="choices must be"):
            call()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": "3"}, "budget must be a number"),
        ({"budget": True}, "budget must be a number"),
        ({"sensitivity": {}}, "sensitivity must hold numbers"),
        ({"sensitivity": [[1j, 2]]}, "sensitivity must hold numbers"),
        ({"n_weights": [np.inf]}, "n_weights must be 1 positive numbers"),
    ],
)
def test_what_cannot_be_allocated(change, message):
    arguments = {"sensitivity": [[0.1, 0.0]], "n_weights": [1], "budget": 3, "choices": (2, 4), **change}
    with pytest.raises(ValueError, match=message):
        allocate_bits(**arguments)


def test_weights_of_cells_beyond_the_range_of_floats():
    cells = encode_groups(["a", "b"], 2)
    np.testing.assert_array_equal(balancing_weights(cells, 1.0, np.array([1e150, 1e-310])), [2, 0])


@pytest.mark.parametrize("dropout", [None, "a", -0.1, 1.5, True])
def test_dropout_is_a_share(dropout):
    for make in (lambda: MLP(2, 2, dropout=dropout), lambda: ConvNet(1, 2, dropout=dropout)):
        with pytest.raises(ValueError, match="dropout must be a share"):
            make()


def test_logits_that_are_infinite_are_refused():
    """Their probabilities were NaN."""
    module = nn.Linear(2, 2)
    with torch.no_grad():
        module.weight.fill_(3e38)
    with pytest.raises(ModuleOutputError, match=r"returns \[inf, inf\] for row 1 of X"):
        TorchClassifier(module).predict_proba(np.array([[0, 0], [9, 9]], np.float32))


class Masked(nn.Module):
    """The first class is out of the question where the first input is positive."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(3, 3)

    def forward(self, x):
        out = self.out(x)
        out[:, 0] = out[:, 0].masked_fill(x[:, 0] > 0, -torch.inf)
        return out


def test_a_class_may_be_out_of_the_question():
    X, y = np.array([[1, 0, 0], [-1, 0, 0]] * 4, np.float32), [0, 1] * 4
    foreign = TorchClassifier(Masked().eval(), classes=[0, 1, 2])
    for clf in (foreign, QuantizedClassifier(foreign, weight_bits=8).fit(X, y)):
        probabilities = clf.predict_proba(X)
        assert (probabilities[:, 0] == 0).tolist() == [True, False] * 4
        np.testing.assert_allclose(probabilities.sum(1), 1)
