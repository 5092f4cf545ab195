"""Fuzzing of quantization and mitigation: against numpy in float64, or a law that must be kept."""

import contextlib
import re

import numpy as np
import torch
from adverse_input import FINITE, SCALARS, WITH_WEIGHTS, any_array, network, numbers, picked
from hypothesis import strategies as st
from properties import Refused, answer, call, finite, named

from skqfair import mitigation, quantization
from skqfair._groups import encode_groups
from skqfair.quantization import QuantizationScheme

ODD_BITS = [2, 3, 4, 8, 9, 16, np.int64(5), *SCALARS]
BITS = [2, 3, 4, 8, 9, 16]
GRANULARITIES = ["per_channel", "per_tensor", ("per_group", 2), ("per_group", 3)]
ODD_GRANULARITIES = [*GRANULARITIES, ("per_group", 0), ("per_group",), "x", None, 3]
CALIBRATIONS = ["minmax", "percentile", "mse"]


def check_codes(codes, scale, tensor, bits):
    limit = 2 ** (bits - 1) - 1
    assert codes.shape == tensor.shape
    assert int(codes.abs().max()) <= limit
    assert bool(torch.isfinite(scale).all())
    assert bool((scale > 0).all())
    back = codes.double() * scale.double()
    assert bool(torch.isfinite(back).all())


def quantize(draw):
    if draw(st.booleans()):
        tensor, bits = any_array(draw), draw(st.sampled_from(ODD_BITS))
        found = answer(
            quantization.quantize,
            tensor,
            bits,
            granularity=draw(st.sampled_from(ODD_GRANULARITIES)),
            calibration=draw(st.sampled_from([*CALIBRATIONS, None, "x", 3])),
            axis=draw(st.sampled_from([0, 1, -1, *SCALARS])),
        )
        if found is not None:
            check_codes(*found, torch.as_tensor(np.asarray(tensor).astype(np.float64)), int(bits))
        return
    shape = draw(st.sampled_from([(1, 1), (2, 3), (3, 2), (1, 5), (4, 1)]))
    weight = numbers(draw, shape, FINITE).astype(draw(st.sampled_from([np.float32, np.float64])))
    bits, calibration = draw(st.sampled_from(BITS)), draw(st.sampled_from(CALIBRATIONS))
    granularity = draw(st.sampled_from(GRANULARITIES))
    options = {"granularity": granularity, "calibration": calibration}
    codes, scale = call(quantization.quantize, weight, bits, **options)
    check_codes(codes, scale, torch.from_numpy(weight), bits)
    with np.errstate(all="ignore"):
        quotient = weight / scale.numpy()
    limit = 2 ** (bits - 1) - 1
    np.testing.assert_array_equal(codes.numpy(), np.clip(np.rint(quotient), -limit, limit))
    if calibration == "minmax":  # nothing is clipped: half a step at most
        error = np.abs(codes.double().numpy() * scale.double().numpy() - weight.astype(np.float64))
        step = np.maximum(scale.double().numpy(), np.finfo(weight.dtype).smallest_normal)
        assert (error <= step * (0.5 + limit * np.finfo(weight.dtype).eps)).all()
    negative, same = call(quantization.quantize, -weight, bits, **options)
    assert torch.equal(negative, -codes)
    assert torch.equal(same, scale)


def pack(draw):
    bits = draw(st.sampled_from(ODD_BITS))
    if draw(st.booleans()):
        found = answer(quantization.pack, any_array(draw), bits)
        assert found is None or found.dtype == np.uint8
        return
    bits = draw(st.sampled_from(BITS))
    limit = 2 ** (bits - 1)
    codes = np.array(draw(st.lists(st.integers(-limit, limit - 1), max_size=9)), dtype=np.int64)
    packed = call(quantization.pack, codes, bits)
    assert len(packed) == -(-len(codes) * bits // 8)
    as_one = sum((int(code) % 2**bits) << (bits * i) for i, code in enumerate(codes))
    assert int.from_bytes(packed.tobytes(), "little") == as_one
    np.testing.assert_array_equal(call(quantization.unpack, packed, bits, codes.shape), codes)


def unpack(draw):
    bits = draw(st.sampled_from(ODD_BITS))
    shape = draw(st.sampled_from([(), (0,), (1,), (2, 3), [2], 3, None, (-1,), "a", (1.5,), (2**40,)]))
    n = draw(st.integers(0, 6))
    packed = np.array(draw(st.lists(st.integers(0, 255), min_size=n, max_size=n)), dtype=np.uint8)
    odd = [packed.tolist(), packed.astype(float), None, "a", packed[None]]
    packed = draw(st.sampled_from([packed, packed, packed, *odd]))
    found = answer(quantization.unpack, packed, bits, shape)
    if found is not None:
        again = quantization.pack(found, int(bits))
        assert found.shape == tuple(shape)
        whole = found.size * int(bits) // 8  # the bits of the last byte that are no code are left out
        np.testing.assert_array_equal(again[:whole], np.asarray(packed).ravel()[:whole])


def allocate_bits(draw):
    n_layers, n_groups = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    choices = draw(st.sampled_from([(2, 4), (2, 3, 8), (4,), (8, 2)]))
    shape = (n_layers, len(choices), n_groups)
    if draw(st.booleans()):
        n_weights = numbers(draw, (n_layers,)) if draw(st.booleans()) else any_array(draw)
        sensitivity = numbers(draw, shape) if draw(st.booleans()) else any_array(draw)
        pool = [choices, (), None, (1,), 3, "ab", (2, 2), (2, 17), [4.0]]
        answer(
            quantization.allocate_bits,
            sensitivity,
            n_weights,
            budget=draw(st.sampled_from([3, 4, 8, *SCALARS])),
            choices=draw(st.sampled_from(pool)),
        )
        return
    pool = draw(st.sampled_from([[0.0, 1.0, 2.0, 5.0], [0.0, 1e-30, 3e-30], [1e30, 2e30, -1e30], [0.0]]))
    omega = numbers(draw, shape, pool)
    sizes = numbers(draw, (n_layers,), [1.0, 10.0, 1000.0])
    budget = draw(st.sampled_from([min(choices), max(choices), float(np.mean(choices))]))
    found = call(quantization.allocate_bits, omega, sizes, budget=budget, choices=choices)
    assert set(found) <= set(choices)
    assert found @ sizes <= budget * sizes.sum() * (1 + 1e-6)
    best = min(  # all of them
        omega[range(n_layers), list(chosen)].sum(0).max()
        for chosen in np.ndindex(*(len(choices),) * n_layers)
        if np.array(choices)[list(chosen)] @ sizes <= budget * sizes.sum() * (1 + 1e-12)
    )
    chosen = [choices.index(bits) for bits in found]
    reached = omega[range(n_layers), chosen].sum(0).max()
    assert reached <= best + 1e-6 * np.abs(omega).max()


def check_budget(draw):
    choices = draw(st.sampled_from([(2, 4), (8,), (), None, "ab", 3]))
    budget = draw(st.sampled_from([2, 3.0, 8, *SCALARS]))
    try:
        call(quantization.check_budget, budget, choices)
    except Refused:
        return
    assert min(choices) <= budget <= max(choices)


def scheme(draw, odd=False):
    bits = ODD_BITS if odd else [None, *BITS]
    granularities = ODD_GRANULARITIES if odd else GRANULARITIES[:2]
    return {
        "weight_bits": draw(st.sampled_from(bits)),
        "activation_bits": draw(st.sampled_from([None, None, 8, *(bits if odd else [2, 4])])),
        "granularity": draw(st.sampled_from(granularities)),
        "calibration": draw(st.sampled_from([*CALIBRATIONS, *([None, 3] if odd else [])])),
        "activation_scheme": draw(st.sampled_from(["symmetric", "affine", *(["x", 3] if odd else [])])),
        "layer_bits": draw(
            st.sampled_from([None, {"0": 4}, {"*": 3}, *([{"*": 1}, {3: 3}, "x", 3] if odd else [])])
        ),
    }


def quantization_scheme(draw):
    options = scheme(draw, odd=True)
    answer(QuantizationScheme, **options)


def convert(draw):
    module = network(draw)
    if draw(st.integers(0, 4)) == 0:
        wrong = draw(st.sampled_from([None, 3, "a", torch.nn.Linear, {}]))
        answer(quantization.convert, wrong, QuantizationScheme(4))
        answer(quantization.convert, module, wrong)
        return
    options = scheme(draw) | {"layer_bits": None}
    statistics = None
    if options["activation_bits"] is not None:
        X = torch.from_numpy(numbers(draw, (4, 3), FINITE).astype(np.float32))
        with torch.no_grad(), quantization.observe_activations(module) as statistics:
            module(X)
    try:
        found = call(quantization.convert, module, QuantizationScheme(**options), statistics)
    except Refused as error:
        if not re.search(r"finite|no quantizable weight", str(error)):
            raise
        return
    assert set(found.weights) <= {name for name, _ in module.named_parameters()}
    for name, weight in found.weights.items():
        original = module.get_parameter(name).detach()
        check_codes(weight.codes, weight.spread_scale, original, options["weight_bits"])
        own = found.module.get_parameter(name).detach()
        assert torch.equal(own, weight.dequantize().to(own.dtype))
    size = call(quantization.quantized_size, found)
    if options["weight_bits"] is None and options["activation_bits"] is None:
        assert size == call(quantization.float_size, module)
    assert size >= 0


def sizes(function):
    def target(draw):
        module = network(draw)
        wrong = draw(st.sampled_from([None, 3, "a", torch.nn.Linear, {}, [module]]))
        answer(function, wrong)
        found = call(function, module)
        parameters = {id(p): p.numel() for p in module.parameters()}
        if function is quantization.float_size:
            buffers = sum(b.numel() for n, b in module.named_buffers() if "num_batches" not in n)
            assert found == 4 * (sum(parameters.values()) + buffers)
        elif function is quantization.sparse_size:
            assert found >= 0
        elif function is quantization.has_batchnorm:
            assert found == any(isinstance(m, torch.nn.BatchNorm1d) for m in module.modules())
        elif function is quantization.quantizable_weights:
            assert set(found) <= {name for name, _ in module.named_parameters()}
        else:
            assert found is not module
            for (name, own), (same, copied) in zip(
                module.named_parameters(), found.named_parameters(), strict=True
            ):
                assert name == same
                assert torch.equal(own, copied)
                assert own.data_ptr() != copied.data_ptr() or not own.numel()

    return target


def prune(draw):
    module = network(draw)
    odd = draw(st.booleans())
    amount = draw(st.sampled_from([0.0, 0.3, 0.5, 0.99, *(SCALARS if odd else [])]))
    scope = draw(st.sampled_from(["global", "layer", *(["x", None, 3] if odd else [])]))
    if odd:
        module = draw(st.sampled_from([module, None, 3, "a"]))
    found = answer(quantization.prune, module, amount, scope=scope)
    if found is None:
        return
    total = sum(mask.numel() for mask in found.masks.values())
    gone = sum(int(mask.sum()) for mask in found.masks.values())
    assert abs(gone - amount * total) <= len(found.masks) + 1
    for name, mask in found.masks.items():
        assert not found.module.get_parameter(name)[mask].any()


def amount_for_size(draw):
    module = draw(st.sampled_from([network(draw), None, 3]))
    size = draw(st.sampled_from([*SCALARS, 40, 100, 10**9]))
    scope = draw(st.sampled_from(["global", "layer", "x", None]))
    found = answer(quantization.amount_for_size, module, size, scope=scope)
    assert found is None or 0 <= found <= 1


def observe(draw):
    module = draw(st.sampled_from([network(draw), network(draw), None, 3, torch.nn.Linear]))
    X = torch.from_numpy(numbers(draw, (draw(st.integers(1, 3)), 3)).astype(np.float32))
    names = named(quantization.observe_activations)

    def watch(module):
        with quantization.observe_activations(module) as statistics, torch.no_grad():
            module(X)
        return statistics

    found = answer(watch, module, names=names)
    if found is not None:
        assert not any(m._forward_pre_hooks or m._forward_hooks for m in module.modules())


def compensate(draw):
    module = network(draw, kinds=WITH_WEIGHTS)
    X = torch.from_numpy(numbers(draw, (4, 3), FINITE).astype(np.float32))
    converted = quantization.convert(module, QuantizationScheme(draw(st.sampled_from(BITS))))
    before = {name: weight.codes.clone() for name, weight in converted.weights.items()}
    rounding = draw(st.sampled_from(["least_squares", "gptq", "nearest", None, 3]))

    def run(module):
        with torch.no_grad():
            return module(X)

    names = named(quantization.compensate_rounding, "X")
    inputs = {"run": run}
    if draw(st.booleans()):
        inputs = {"moments": quantization.float_moments(module, run)}
    found = answer(
        quantization.compensate_rounding, converted, module, rounding=rounding, names=names, **inputs
    )
    weights = (found or converted).weights
    for name, weight in weights.items():
        check_codes(weight.codes, weight.spread_scale, before[name], int(np.max(weight.bits)))
        assert torch.equal(converted.weights[name].codes, before[name]) or found is None


def batchnorm(draw):
    module = network(draw, kinds=WITH_WEIGHTS)
    X = torch.from_numpy(numbers(draw, (4, 3), FINITE).astype(np.float32))
    converted = quantization.convert(module, QuantizationScheme(4)).module

    def run(module):
        with torch.no_grad():
            return module(X)

    with contextlib.suppress(ValueError):  # of what is not finite; then nothing is moved
        quantization.move_batchnorm(converted, module, run)
    for buffer in converted.buffers():
        assert bool(torch.isfinite(buffer.float()).all())


def groups_of(draw, n):
    return encode_groups(picked(draw, ["a", "b", "c"], n), n)


WEIGHTS = [1.0, 0.0, 0.5, 5e-324, 1e-310, 1e-30, 1e30, 1e150]


def weights_of(draw, n):
    weights = np.array(picked(draw, WEIGHTS, n))
    return None if draw(st.booleans()) or not weights.any() else weights


def balancing_weights(draw):
    n = draw(st.sampled_from([1, 2, 5]))
    cells, strength, own = (
        groups_of(draw, n),
        draw(st.sampled_from([0.0, 0.5, 1.0])),
        weights_of(draw, n),
    )
    found = call(mitigation.balancing_weights, cells, strength, own)
    assert finite(found)
    assert (found >= 0).all()
    assert abs(found.mean() - 1) < 1e-9
    if strength == 1 and (own is None or own[own > 0].min() > 1e-150 * own.max()):
        sums = np.bincount(cells.codes, found)
        np.testing.assert_allclose(sums[sums > 0], n / (sums > 0).sum(), rtol=1e-9)
    report = call(mitigation.cell_report, cells, found, cells.counts)
    assert finite(report.to_numpy(dtype=float))


def cell_report(draw):
    n = draw(st.sampled_from([1, 2, 5]))
    cells, weights = groups_of(draw, n), weights_of(draw, n)
    draws = numbers(draw, (len(cells.index),), [1.0, 0.5, 100.0])
    found = call(mitigation.cell_report, cells, weights, draws)
    assert finite(found.to_numpy(dtype=float))
    assert abs((found["effective_weight"] * found["count"]).sum() - n) < 1e-6 * n


def probabilities(draw, n, n_classes):
    raw = numbers(draw, (n, n_classes), [1.0, 0.5, 1e-30, 0.0, 5e-324, 1e-310]) + 1e-300
    return raw / raw.sum(1, keepdims=True)


def offset_case(draw):
    n, n_classes = draw(st.sampled_from([1, 2, 5, 9])), draw(st.sampled_from([2, 3]))
    y = np.array(picked(draw, range(n_classes), n))
    weights = weights_of(draw, n)
    weights = None if weights is None else np.maximum(weights, 1e-30)
    return probabilities(draw, n, n_classes), y, groups_of(draw, n).codes, weights


def class_offsets(draw):
    found = call(mitigation.class_offsets, *offset_case(draw))
    assert finite(found)
    assert abs(found.mean()) < 1e-6 * (1 + np.abs(found).max())


def strengths(draw):
    P, y, codes, weights = offset_case(draw)
    with np.errstate(divide="ignore"):
        logits = np.log(P)
    offsets = numbers(draw, (P.shape[1],), [0.0, 1.0, -1.0, 1e-30, 30.0])
    t = np.linspace(0, 1.2, 5)
    return logits, y, codes, weights, offsets, t


def correct_by_strength(draw):
    logits, y, codes, weights, offsets, t = strengths(draw)
    found = call(mitigation.correct_by_strength, logits, y, codes, offsets, t, weights)
    own = np.ones(len(y)) if weights is None else weights
    for row, strength in zip(found, t, strict=True):
        right = (logits + strength * offsets).argmax(1) == y
        expected = np.bincount(codes, own * right, codes.max() + 1)
        np.testing.assert_allclose(row, expected, rtol=1e-12)


def drop_by_strength(draw):
    logits, y, _, weights, offsets, t = strengths(draw)
    drop, error = call(mitigation.drop_by_strength, logits, y, offsets, t, weights)
    own = np.ones(len(y)) if weights is None else weights
    before = logits.argmax(1) == y
    for i, strength in enumerate(t):
        lost = before.astype(float) - ((logits + strength * offsets).argmax(1) == y)
        assert abs(drop[i] - (own * lost).sum() / own.sum()) < 1e-12
    assert finite(error)
    assert (error >= 0).all()


def make_cells(draw):
    n = draw(st.sampled_from([1, 3, 6]))
    y, groups = np.array(picked(draw, [0, 1, 2], n)), groups_of(draw, n)
    balance = draw(st.sampled_from(mitigation.BALANCES))
    cells = call(mitigation.make_cells, balance, y, np.array(["x", "y", "z"]), groups)
    assert cells.counts.sum() == n
    assert cells.counts.min() > 0
    keys = {"class": y, "group": groups.codes, "group_class": groups.codes * 3 + y}[balance]
    assert len(cells.index) == len(set(keys.tolist()))
    assert len(set(zip(keys.tolist(), cells.codes.tolist(), strict=True))) == len(cells.index)


def sampler(draw):
    codes = groups_of(draw, draw(st.sampled_from([1, 2, 7]))).codes
    sampling = draw(st.sampled_from(mitigation.SAMPLINGS))
    found = call(mitigation.CellSampler, codes, sampling, draw(st.integers(0, 3)))
    rows = found.draw()
    assert len(rows) == len(found)
    assert set(rows) <= set(range(len(codes)))
    if sampling != "balanced":
        assert len(set(np.bincount(codes[rows]).tolist())) == 1
    if sampling == "undersample":
        assert len(set(rows)) == len(rows)
    if sampling == "oversample":
        assert set(rows) == set(range(len(codes)))


def penalties(draw):
    n, n_groups = draw(st.sampled_from([1, 4])), 3
    losses = torch.from_numpy(numbers(draw, (n,), [0.0, 1.0, 1e30, 1e-30])).requires_grad_()
    groups = torch.tensor(picked(draw, range(n_groups), n))
    correct = torch.tensor(picked(draw, [True, False], n))
    gap = mitigation.GapPenalty(2.0, n_groups)(losses, groups, correct)
    means = [losses[groups == g].mean().item() for g in set(groups.tolist())]
    assert gap.item() == np.float64(2.0) * (max(means) - min(means)) or n > 1
    np.testing.assert_allclose(gap.item(), 2 * (max(means) - min(means)), rtol=1e-9)
    bound = mitigation.AccuracyBound(0.1, np.array([0.5, 1.0, 0.0]), np.array([1, 2, 3]))
    for _ in range(2):
        term = bound(losses, groups, correct)
    term.backward()
    assert finite(term.item())
    assert bool((bound.multipliers >= 0).all())


TARGETS = {
    "skqfair.quantization.quantize": quantize,
    "skqfair.quantization.pack": pack,
    "skqfair.quantization.unpack": unpack,
    "skqfair.quantization.allocate_bits": allocate_bits,
    "skqfair.quantization.check_budget": check_budget,
    "skqfair.quantization.QuantizationScheme": quantization_scheme,
    "skqfair.quantization.convert": convert,
    "skqfair.quantization.prune": prune,
    "skqfair.quantization.amount_for_size": amount_for_size,
    "skqfair.quantization.observe_activations": observe,
    "skqfair.quantization.compensate_rounding": compensate,
    "skqfair.quantization.move_batchnorm": batchnorm,
    **{
        f"skqfair.quantization.{name}": sizes(getattr(quantization, name))
        for name in ("float_size", "sparse_size", "has_batchnorm", "quantizable_weights", "plain_copy")
    },
    "skqfair.mitigation.balancing_weights": balancing_weights,
    "skqfair.mitigation.cell_report": cell_report,
    "skqfair.mitigation.class_offsets": class_offsets,
    "skqfair.mitigation.correct_by_strength": correct_by_strength,
    "skqfair.mitigation.drop_by_strength": drop_by_strength,
    "skqfair.mitigation.make_cells": make_cells,
    "skqfair.mitigation.CellSampler": sampler,
    "skqfair.mitigation.GapPenalty": penalties,
}
