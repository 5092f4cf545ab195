"""Masks against torch's own pruning, stored bytes against encoders written with loops."""

import copy
from itertools import chain, pairwise

import numpy as np
import pytest
import torch
from module_zoo import ZOO, build
from scipy import sparse
from torch import nn
from torch.nn.utils import prune as reference

from skqfair.quantization import (
    PrunedModule,
    SparseTensor,
    amount_for_size,
    float_size,
    prune,
    quantizable_weights,
    sparse_size,
)

AMOUNTS = [0, 0.1, 0.25, 0.5, 0.77, 0.9, 0.995]


def network(seed=0, sizes=(7, 13, 5)):
    torch.manual_seed(seed)
    layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    return nn.Sequential(*layers)


def zeros(module):
    return [(layer.weight == 0) for layer in module]


@pytest.mark.parametrize("amount", AMOUNTS)
def test_global_masks_are_those_of_torch(amount):
    module = network()
    expected = copy.deepcopy(module)
    weights = [(layer, "weight") for layer in expected]
    reference.global_unstructured(weights, reference.L1Unstructured, amount=amount)
    pruned = prune(module, amount)
    for found, wanted in zip(zeros(pruned.module), zeros(expected), strict=True):
        assert torch.equal(found, wanted)
    magnitudes = torch.cat([layer.weight.detach().abs().flatten() for layer in module]).sort().values
    count = round(amount * 156)
    assert pruned.threshold == (float(magnitudes[count - 1]) if count else 0)


@pytest.mark.parametrize("amount", AMOUNTS)
def test_masks_of_each_layer_are_those_of_torch(amount):
    module = network()
    expected = copy.deepcopy(module)
    pruned = prune(module, amount, scope="layer")
    for i, layer in enumerate(expected):
        magnitudes = layer.weight.detach().abs().flatten().sort().values
        reference.l1_unstructured(layer, "weight", amount=amount)
        assert torch.equal(pruned.module[i].weight == 0, layer.weight == 0)
        assert torch.equal(pruned.masks[f"{i}.weight"], layer.weight == 0)
        count = round(amount * len(magnitudes))
        assert pruned.threshold[f"{i}.weight"] == (float(magnitudes[count - 1]) if count else 0)


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("amount", [0.2, np.float32(0.3), 0.5, 0.9])
def test_the_first_of_equal_magnitudes_go(scope, amount):
    module = network()
    with torch.no_grad():
        for layer in module:
            layer.weight.copy_(torch.where(layer.weight > 0, 2.0, -2.0))
    found = [mask.flatten().tolist() for mask in prune(module, amount, scope=scope).masks.values()]
    found = [list(chain(*found))] if scope == "global" else found
    for mask in found:
        count = round(float(amount) * len(mask))
        assert mask == [True] * count + [False] * (len(mask) - count)


def test_pruned_weights_are_positive_zeros():
    module = prune(network(), 0.9).module
    assert not any(torch.signbit(layer.weight[layer.weight == 0]).any() for layer in module)


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("name", ZOO)
def test_every_kind_of_network(name, scope):
    module, data = build(name)
    before = copy.deepcopy(module.state_dict())
    pruned = prune(module, 0.4, scope=scope)
    assert isinstance(pruned, PrunedModule)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    whole = prune(module, 0, scope=scope).module
    with torch.no_grad():
        torch.testing.assert_close(whole(data), module(data), rtol=1e-5, atol=1e-6)
        assert torch.isfinite(pruned.module(data)).all()
    original, weights = dict(whole.named_parameters()), quantizable_weights(whole)
    assert list(pruned.masks) == list(weights)
    for key, value in pruned.module.named_parameters():
        if key not in weights:
            assert torch.equal(value, original[key])
        else:
            assert torch.equal(value, original[key].masked_fill(pruned.masks[key], 0))
    sizes = [mask.numel() for mask in pruned.masks.values()]
    counts = [int(mask.sum()) for mask in pruned.masks.values()]
    if scope == "global":
        assert sum(counts) == round(0.4 * sum(sizes))
    else:
        assert counts == [round(0.4 * size) for size in sizes]


@pytest.mark.parametrize("amount", [-0.1, 1, 1.0, 2, float("nan"), None, "half", True])
def test_other_amounts(amount):
    with pytest.raises(ValueError, match=r"amount must be a share .* below 1; got"):
        prune(network(), amount)


def test_bad_input():
    with pytest.raises(ValueError, match="scope must be one of 'global', 'layer'; got 'row'"):
        prune(network(), 0.5, scope="row")
    with pytest.raises(ValueError, match="scope must be one of"):
        amount_for_size(network(), 100, scope="row")
    for call in (lambda: prune(nn.LayerNorm(3)), lambda: amount_for_size(nn.LayerNorm(3), 10)):
        with pytest.raises(ValueError, match=r"LayerNorm has no weight to prune.*build the network"):
            call()
    for call in (lambda: prune("net"), lambda: amount_for_size("net", 10)):
        with pytest.raises(
            TypeError, match=r"must be a torch\.nn\.Module, got str; .*estimator_\.module_"
        ):
            call()
    module = network()
    module[0].weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"0\.weight must be finite, got NaN"):
        prune(module)


# ---------------------------------------------------------------- storage


def with_zeros(n, share, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=n).astype(np.float32)
    values[rng.random(n) < share] = 0
    return values


def gap_bits_by_hand(values, bits):
    """The gaps as a string of bits, each code with its lowest bit first."""
    codes, gap = [], 0
    for value in values:
        if value == 0:
            gap += 1
            continue
        while gap >= 2**bits - 1:
            codes.append(2**bits - 1)
            gap -= 2**bits - 1
        codes.append(gap)
        gap = 0
    return "".join(f"{code:0{bits}b}"[::-1] for code in codes)


def to_bytes(bits):
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8][::-1], 2) for i in range(0, len(bits), 8))


def by_hand(values):
    """All layouts as bytes, the smallest first; of equals the first tried."""
    stored = values[values != 0].tobytes()
    tried = [("dense", None, values.tobytes())]
    tried.append(("bitmap", None, to_bytes("".join("01"[int(v != 0)] for v in values)) + stored))
    count = int((values != 0).sum()).to_bytes(4, "little")
    for bits in range(2, 17):
        tried.append(("gaps", bits, count + to_bytes(gap_bits_by_hand(values, bits)) + stored))
    return min(tried, key=lambda layout: len(layout[2]))


@pytest.mark.parametrize("share", [0, 0.02, 0.3, 0.5, 0.6, 0.75, 0.9, 0.97, 0.995, 0.9995, 1])
@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 63, 1000, 20_000])
def test_the_smallest_layout_is_the_one_by_hand(n, share):
    values = with_zeros(n, share, seed=n)
    layout, bits, data = by_hand(values)
    packed = SparseTensor.from_dense(values)
    assert (packed.layout, packed.gap_bits, packed.data.tobytes()) == (layout, bits, data)
    assert packed.nbytes == len(data) <= 4 * n
    assert packed.unpack().tobytes() == values.tobytes()


def test_every_layout_and_many_widths_occur():
    shares = (0, 0.4, 0.7, 0.85, 0.93, 0.97, 0.985, 0.995, 0.998, 0.9992, 0.9997)
    found = {SparseTensor.from_dense(with_zeros(100_000, share)).layout for share in shares}
    assert found == {"dense", "bitmap", "gaps"}
    widths = {SparseTensor.from_dense(with_zeros(100_000, share)).gap_bits for share in shares}
    assert widths == {None, 2, 4, 5, 6, 8, 9, 11, 12, 13}


def test_16_bits_and_gaps_beyond_them():
    values = np.zeros(3_000_000, np.float32)
    values[np.arange(1, 40) * 65_000] = 1
    values[-1] = -3
    packed = SparseTensor.from_dense(values)
    assert packed.gap_bits == 16
    assert packed.unpack().tobytes() == values.tobytes()
    assert packed.nbytes == 4 + 2 * (40 + 464_999 // 65_535) + 4 * 40


@pytest.mark.parametrize("share", [0, 0.5, 0.9])
def test_special_numbers_survive_bit_for_bit(share):
    values = with_zeros(4000, share)
    values[[3, 77, 401, 999]] = -0.0, np.nan, np.inf, np.float32(1e-45)
    packed = SparseTensor.from_dense(values)
    assert packed.unpack().tobytes() == values.tobytes()


def test_tensors_of_any_shape():
    tensor = torch.from_numpy(with_zeros(600, 0.9)).reshape(5, 4, 30).movedim(0, 2)
    packed = SparseTensor.from_dense(nn.Parameter(tensor))
    np.testing.assert_array_equal(packed.unpack(), tensor.numpy())
    for shape in ((0, 3), ()):
        assert SparseTensor.from_dense(torch.zeros(shape)).unpack().shape == shape
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        other = tensor.to(dtype)
        np.testing.assert_array_equal(SparseTensor.from_dense(other).unpack(), other.float().numpy())


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8, 0.95, 0.99])
def test_smaller_than_compressed_rows(share):
    values = with_zeros(64 * 200, share).reshape(64, 200)
    rows = sparse.csr_array(values)
    compressed = rows.data.nbytes + rows.indices.nbytes + rows.indptr.nbytes
    assert SparseTensor.from_dense(values).nbytes < compressed


@pytest.mark.parametrize("name", ["linear", "conv2d", "lstm", "encoder", "shared", "embedding"])
def test_the_bytes_of_a_module_are_those_of_a_file(name, tmp_path):
    """Stored, read back into a network that knows nothing of these weights: the same outputs."""
    module, data = build(name)
    pruned = prune(module, 0.8).module
    weights, layouts, path = quantizable_weights(pruned), {}, tmp_path / "weights"
    with path.open("wb") as file:
        for key, value in [*pruned.named_parameters(), *pruned.named_buffers()]:
            if key in weights:
                layouts[key] = SparseTensor.from_dense(value)
                file.write(layouts[key].data.tobytes())
            elif not key.endswith("num_batches_tracked"):
                file.write(value.detach().numpy().tobytes())
    assert path.stat().st_size == sparse_size(pruned) < float_size(pruned)

    other, _ = build(name, seed=1)
    raw, start = np.fromfile(path, np.uint8), 0
    for key, value in [*other.named_parameters(), *other.named_buffers()]:
        if key.endswith("num_batches_tracked"):
            continue
        end = start + (layouts[key].nbytes if key in layouts else 4 * value.numel())
        part, start = raw[start:end], end
        if key in layouts:
            known = layouts[key].layout, tuple(value.shape), layouts[key].gap_bits
            read = SparseTensor(part, *known).unpack()
        else:
            read = part.copy().view(np.float32).reshape(value.shape)
        value.detach().copy_(torch.from_numpy(read))
    assert start == len(raw)
    with torch.no_grad():
        assert torch.equal(other(data), pruned(data))


# ---------------------------------------------------------- amount for size


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("equal", [False, True])
def test_the_amount_is_the_smallest_that_fits(scope, equal):
    module = network(sizes=(5, 9, 7))
    if equal:
        with torch.no_grad():
            module[0].weight.fill_(0.25)
    sizes = [sparse_size(prune(module, count / 108, scope=scope).module) for count in range(108)]
    assert sizes == sorted(sizes, reverse=True)
    for size in range(sizes[-1], sizes[0] + 9):
        fitting = [count for count, found in enumerate(sizes) if found <= size]
        assert amount_for_size(module, size, scope=scope) == fitting[0] / 108
    for size in (sizes[-1] - 1, 1, 0.5):
        with pytest.raises(ValueError, match=rf"size={size} is too small: .* {sizes[-1]} bytes"):
            amount_for_size(module, size, scope=scope)


@pytest.mark.parametrize("name", ["conv2d", "lstm", "shared", "weight_norm"])
def test_the_amount_gives_back_its_count(name):
    module, _ = build(name)
    whole = float_size(prune(module, 0).module)
    for share in (0.5, 0.7, 0.95):
        size = int(share * whole)
        pruned = prune(module, amount_for_size(module, size))
        assert sparse_size(pruned.module) <= size
        n, count = (sum(int(f(m)) for m in pruned.masks.values()) for f in (torch.numel, torch.sum))
        assert sparse_size(prune(module, (count - 1) / n).module) > size


@pytest.mark.parametrize("size", [0, -1, None, "100", True, float("nan")])
def test_other_sizes(size):
    with pytest.raises(ValueError, match="size must be a positive number of bytes; got"):
        amount_for_size(network(), size)
