import numpy as np
import pytest
from module_zoo import ZOO, build
from torch import nn

from skqfair.quantization import QuantizationScheme, plain_copy, quantizable_weights
from skqfair.quantization._targets import is_reparametrized


def net():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)))


@pytest.mark.parametrize(
    ("layer_bits", "expected"),
    [
        (None, [8, 8, 8]),
        ({"0.weight": 4}, [4, 8, 8]),
        ({"0": 4}, [4, 8, 8]),
        ({"2": 4}, [8, 4, 4]),
        ({"2.*": 4, "2.1": 2}, [8, 4, 2]),
        ({"0": 2, "*": 4}, [2, 4, 4]),  # a plain name goes before wildcards
        ({"*": 4, "2.*": 2}, [4, 2, 2]),  # among equals the later holds
        ({"*": None}, [32, 32, 32]),
    ],
)
def test_patterns(layer_bits, expected):
    bits = QuantizationScheme(weight_bits=8, layer_bits=layer_bits).resolve(net())
    assert bits == dict(zip(["0.weight", "2.0.weight", "2.1.weight"], expected, strict=True))


def test_float():
    assert set(QuantizationScheme(weight_bits=None).resolve(net()).values()) == {32}


def test_bits_per_channel():
    bits = QuantizationScheme(layer_bits={"0": [2, 4, 8, 3]}).resolve(net())
    np.testing.assert_array_equal(bits["0.weight"], [2, 4, 8, 3])
    with pytest.raises(ValueError, match=r"0\.weight has 4 output channels, but got 3 bits"):
        QuantizationScheme(layer_bits={"0": [2, 4, 8]}).resolve(net())


def test_a_pattern_that_matches_nothing_names_the_layers():
    with pytest.raises(
        ValueError, match=r"'conv\*' matches no quantizable weight; the names are 0\.weight"
    ):
        QuantizationScheme(layer_bits={"conv*": 4}).resolve(net())


def test_a_pattern_that_decides_nothing():
    with pytest.raises(ValueError, match=r"'2\.\*' decides nothing.*put it after"):
        QuantizationScheme(layer_bits={"2.*": 2, "*": 4}).resolve(net())


def test_nothing_to_quantize():
    with pytest.raises(ValueError, match=r"Sequential has no quantizable weight.*Linear"):
        QuantizationScheme().resolve(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3)))


@pytest.mark.parametrize("name", ["weight_bits", "activation_bits"])
@pytest.mark.parametrize("bits", [1, 0, 17, 3.5, "8", True])
def test_bad_bits(name, bits):
    with pytest.raises(ValueError, match=f"{name} must be an integer from 2 to 16"):
        QuantizationScheme(**{name: bits})
    with pytest.raises(ValueError, match=r"layer_bits\['0'\] must be an integer"):
        QuantizationScheme(layer_bits={"0": bits})


def test_bad_layer_bits():
    with pytest.raises(ValueError, match="layer_bits must be a dict"):
        QuantizationScheme(layer_bits=[4, 8])
    with pytest.raises(ValueError, match="layer_bits must have patterns"):
        QuantizationScheme(layer_bits={0: 8})


@pytest.mark.parametrize("name", ZOO)
def test_every_weight_of_the_zoo_is_found_once(name):
    original = build(name)[0]
    module = plain_copy(original)
    assert is_reparametrized(original) == ("norm" in name)
    assert not is_reparametrized(module)
    found = quantizable_weights(module)
    assert list(QuantizationScheme().resolve(original)) == list(found)
    matrices = {
        n for n, p in module.named_parameters() if p.ndim > 1 and not n.endswith(("bias_k", "bias_v"))
    }
    assert set(found) == matrices
    assert set(found.values()) == ({0, 1} if name.startswith("convtranspose") else {0})
