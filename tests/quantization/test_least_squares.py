"""Codes nearest to the float network's outputs: a slow descent, all codes there are, the true error."""

import itertools

import numpy as np
import pytest
import torch
from quantization.test_gptq import obvious as feedback_codes
from quantization.test_gptq import scales_of

from skqfair.quantization._least_squares import round_to_outputs


def problem(seed, rows=None, columns=None, bits=None, group_size=None):
    """Return float weights, scales, limit and the inputs of a layer in both networks."""
    rng = np.random.default_rng(seed)
    rows, columns = rows or rng.integers(1, 30), columns or rng.integers(1, 150)
    limit = 2 ** ((bits or int(rng.integers(2, 6))) - 1) - 1
    weight = rng.normal(size=(rows, columns)).astype(np.float32)
    of_float = rng.normal(size=(rng.integers(20, 400), columns)) @ rng.normal(size=(columns, columns))
    quantized = of_float + 0.3 * rng.normal(size=of_float.shape) * of_float.std()
    quantized[:, rng.random(columns) < 0.05] = 0  # dead inputs
    scale = scales_of(weight, limit, group_size or columns)
    return weight, scale, limit, of_float, quantized


def rounded(weight, scale, limit, of_float, quantized, **options):
    weight, scale, of_float, quantized = map(torch.as_tensor, (weight, scale, of_float, quantized))
    products, cross = quantized.T @ quantized, of_float.T @ quantized
    found = round_to_outputs(
        weight[None], scale[None], torch.tensor(limit), products[None], cross[None], **options
    )[0]
    return np.rint((found / scale).numpy()).astype(int)


def error(codes, weight, scale, limit, of_float, quantized, damping=0.01):
    """The definition, from the inputs: the error of the outputs and what keeps weights near."""
    added = damping * np.mean((quantized**2).sum(0)) or 1.0
    change = weight @ of_float.T - (codes * scale) @ quantized.T
    return np.sum(change**2, 1) + added * np.sum((weight - codes * scale) ** 2, 1)


def obvious(weight, scale, limit, of_float, quantized, damping=0.01):
    """Least squares, error feedback, then one code after the other; every product anew."""
    products = quantized.T @ quantized
    added = damping * np.mean(np.diag(products)) or 1.0
    stacked = np.vstack([quantized, np.sqrt(added) * np.eye(len(products))])
    wanted = np.vstack([of_float, np.sqrt(added) * np.eye(len(products))]) @ weight.T.astype(float)
    target = np.linalg.lstsq(stacked, wanted, rcond=None)[0].T
    codes = feedback_codes(target, scale, limit, products)
    hessian = products + added * np.eye(len(products))
    for _ in range(20):
        before = codes.copy()
        for j in range(codes.shape[1]):
            pull = (target - codes * scale) @ hessian[:, j]
            best = codes[:, j] + pull / hessian[j, j] / scale[:, j]
            codes[:, j] = np.clip(np.rint(best), -limit, limit)
        if np.array_equal(codes, before):
            break
    return codes


@pytest.mark.parametrize("group_size", [None, 2, 33])
@pytest.mark.parametrize("seed", range(12))
def test_codes_of_a_slow_one(seed, group_size):
    case = problem(seed, group_size=group_size)
    np.testing.assert_array_equal(rounded(*case), obvious(*case))


@pytest.mark.parametrize("bits", [2, 3])
def test_distance_to_the_best_of_all_codes(bits, record_property):
    above = []
    for seed in range(40):
        case = problem(seed, rows=1, columns=5, bits=bits)
        limit = case[2]
        every = np.array(list(itertools.product(range(-limit, limit + 1), repeat=5)))
        least = error(every, *case).min()
        above.append(float(error(rounded(*case), *case)[0] / least - 1))
    record_property("above", above)
    print(
        f"{bits} bits: best codes found in {np.mean(np.array(above) < 1e-9):.0%}, {max(above):.1%} above"
    )
    assert min(above) > -1e-9
    assert np.mean(np.array(above) < 1e-9) > 0.6


def test_no_single_code_could_be_better():
    for seed in range(20):
        case = problem(seed, rows=4, columns=20)
        codes, limit = rounded(*case), case[2]
        least = error(codes, *case)
        for column, step in itertools.product(range(20), (-1, 1)):
            other = codes.copy()
            other[:, column] = np.clip(other[:, column] + step, -limit, limit)
            assert (error(other, *case) >= least * (1 - 1e-9)).all()


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_error_is_below_that_of_feedback(bits):
    ratios = []
    for seed in range(30):
        case = problem(seed, columns=60, bits=bits)
        weight, scale, limit, _, quantized = case
        fed = feedback_codes(weight, scale, limit, quantized.T @ quantized)
        ratios.append(error(rounded(*case), *case).sum() / error(fed, *case).sum())
    assert max(ratios) < 1, ratios


def test_inputs_of_zeros_round_to_nearest():
    weight, scale, limit, *_ = case = problem(3, rows=4, columns=6)
    nothing = (*case[:3], np.zeros((9, 6)), np.zeros((9, 6)))
    np.testing.assert_array_equal(rounded(*nothing), np.clip(np.rint(weight / scale), -limit, limit))


def test_blocks_are_alone():
    cases = [problem(seed, rows=5, columns=7, bits=3) for seed in range(3)]
    parts = zip(*[tuple(map(torch.as_tensor, case)) for case in cases], strict=True)
    weight, scale, _, of_float, quantized = (list(p) for p in parts)
    products = torch.stack([q.T @ q for q in quantized])
    cross = torch.stack([f.T @ q for f, q in zip(of_float, quantized, strict=True)])
    scale = torch.stack(scale)
    together = round_to_outputs(torch.stack(weight), scale, torch.tensor(3), products, cross)
    for block, case in enumerate(cases):
        np.testing.assert_array_equal((together / scale)[block].round().numpy(), rounded(*case))
