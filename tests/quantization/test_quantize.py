import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from reference import numpy_clip, numpy_codes, rows_of

from skqfair.quantization import QuantizedTensor, pack, quantize, unpack

weights = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=4, max_side=6),
    elements=st.floats(-100, 100, width=32, allow_subnormal=False),
)


@settings(max_examples=200)
@given(
    weight=weights,
    bits=st.integers(2, 16),
    granularity=st.sampled_from(["per_channel", "per_tensor"]),
    calibration=st.sampled_from(["minmax", "percentile", "mse"]),
    axis=st.integers(0, 1),
)
def test_codes_equal_numpy_given_the_scale(weight, bits, granularity, calibration, axis):
    codes, scale = quantize(weight, bits, granularity=granularity, calibration=calibration, axis=axis)
    np.testing.assert_array_equal(codes.numpy(), numpy_codes(weight, scale.numpy(), bits))
    assert codes.dtype == (torch.int8 if bits <= 8 else torch.int16)
    assert scale.numel() == (weight.shape[axis] if granularity == "per_channel" else 1)


@settings(max_examples=200)
@given(weight=weights, bits=st.integers(2, 16), axis=st.integers(0, 1))
def test_minmax_scale_equals_numpy(weight, bits, axis):
    q = np.float32(2 ** (bits - 1) - 1)
    expected = np.abs(rows_of(weight, axis)).max(1) / q
    expected[expected == 0] = 1
    _, scale = quantize(weight, bits, calibration="minmax", axis=axis)
    np.testing.assert_array_equal(scale.numpy().ravel(), expected)
    _, scale = quantize(weight, bits, calibration="minmax", granularity="per_tensor")
    largest = np.abs(weight).max() / q
    assert float(scale) == (largest if largest > 0 else 1)


@pytest.mark.parametrize("calibration", ["minmax", "percentile", "mse"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8, 16])
@pytest.mark.parametrize("shape", [(4, 30), (3, 40_000), (5, 3, 3, 3)])
def test_clip_equals_the_definition(calibration, bits, shape):
    weight = np.random.default_rng(bits).standard_t(4, shape).astype(np.float32)
    q = 2 ** (bits - 1) - 1
    _, scale = quantize(weight, bits, calibration=calibration)
    expected = [numpy_clip(row, calibration, q) / np.float32(q) for row in rows_of(weight, 0)]
    np.testing.assert_allclose(scale.numpy().ravel(), expected, rtol=2e-6)


def test_mse_clip_has_the_least_error_of_all_ratios():
    weight = np.random.default_rng(0).standard_t(3, (1, 5000)).astype(np.float32)
    for bits in range(2, 17):
        codes, scale = quantize(weight, bits, calibration="mse")
        error = float(((codes * scale).double() - torch.as_tensor(weight)).square().sum())
        for k in range(1, 101):
            s = np.abs(weight).max() * k / 100 / (2 ** (bits - 1) - 1)
            other = np.square(numpy_codes(weight, s, bits) * s - weight).sum()
            assert error <= other * (1 + 1e-5)


def test_percentile_of_mostly_zeros_falls_back_to_the_maximum():
    weight = torch.zeros(1, 30_000)
    weight[0, 0] = 2.0
    codes, _ = quantize(weight, 4, calibration="percentile")
    assert codes[0, 0] == 7
    assert codes.count_nonzero() == 1


def test_zeros_have_scale_one():
    codes, scale = quantize(torch.zeros(3, 4), 8)
    assert torch.equal(scale.flatten(), torch.ones(3))
    assert not codes.any()


def test_two_bits_are_ternary():
    codes, _ = quantize(torch.randn(50, 50, generator=torch.Generator().manual_seed(0)), 2)
    assert codes.unique().tolist() == [-1, 0, 1]


@pytest.mark.parametrize("bits", [1, 0, 17, 3.5, "8", True, None, -2])
def test_bad_bits(bits):
    with pytest.raises(ValueError, match=r"bits must be an integer from 2 to 16, got .*[;]"):
        quantize(torch.ones(2, 2), bits)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"granularity must be one of .*'per_group'"):
        quantize(torch.ones(2, 2), 8, granularity="per_group")
    with pytest.raises(ValueError, match=r"calibration must be one of .*'entropy'"):
        quantize(torch.ones(2, 2), 8, calibration="entropy")
    with pytest.raises(ValueError, match="axis must index one of 2 dimensions, got 2"):
        quantize(torch.ones(2, 2), 8, axis=2)
    with pytest.raises(ValueError, match="must be finite"):
        quantize(torch.tensor([[1.0, float("nan")]]), 8)
    with pytest.raises(ValueError, match=r"floating point.*int64"):
        quantize(torch.ones(2, 2, dtype=torch.long), 8)


@pytest.mark.parametrize("bits", range(2, 17))
def test_packing_is_dense_and_exact(bits):
    q = 2 ** (bits - 1) - 1
    codes = np.random.default_rng(bits).integers(-q, q + 1, (7, 3, 5))
    packed = pack(codes, bits)
    assert packed.dtype == np.uint8
    assert len(packed) == -(-codes.size * bits // 8)
    np.testing.assert_array_equal(unpack(packed, bits, codes.shape), codes)


@pytest.mark.parametrize("bits", [2, 5, 8, 13, np.array([2, 8, 4, 3, 16])])
def test_claimed_bytes_are_the_packed_bytes(bits):
    weight = torch.randn(5, 3, 3, generator=torch.Generator().manual_seed(1))
    quantized = QuantizedTensor.from_float(weight, bits, per_channel=True, calibration="mse")
    assert quantized.nbytes == len(quantized.pack()) + 4 * 5


def test_bits_per_channel():
    weight = torch.randn(4, 100, generator=torch.Generator().manual_seed(2))
    bits = np.array([2, 4, 8, 3])
    quantized = QuantizedTensor.from_float(weight, bits, per_channel=True, calibration="mse")
    expected = numpy_codes(weight, quantized.scale.numpy(), bits[:, None])
    np.testing.assert_array_equal(quantized.codes.numpy(), expected)
    for row, b in zip(quantized.codes, bits, strict=True):
        assert len(row.unique()) <= 2**b


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_halves_have_the_codes_of_their_values_in_float32(dtype, granularity):
    values = torch.cat([torch.randn(3, 50), torch.ones(3, 1), -torch.ones(3, 1)], 1).to(dtype)
    for bits in (2, 8, 10, 13, 16):
        for calibration in ("minmax", "percentile", "mse"):
            options = {"granularity": granularity, "calibration": calibration}
            codes, scale = quantize(values, bits, **options)
            expected, expected_scale = quantize(values.float(), bits, **options)
            assert torch.equal(codes, expected)
            assert torch.equal(scale, expected_scale)
            assert int(codes.abs().max()) <= 2 ** (bits - 1) - 1


@pytest.mark.parametrize(("code", "bits"), [(100, 4), (-9, 4), (8, 4), (2, 2), (-129, 8), (2**15, 16)])
def test_codes_that_do_not_fit_are_not_packed(code, bits):
    with pytest.raises(ValueError, match=f"codes must be from -{2 ** (bits - 1)} to .* at {bits} bits"):
        pack(np.array([0, code]), bits)
