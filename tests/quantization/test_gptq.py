"""Rounding with error feedback against a slow, obvious one."""

import numpy as np
import pytest
import torch

from skqfair.quantization._gptq import round_with_feedback


def obvious(weight, scale, limit, products, damping=0.01):
    """GPTQ as its paper says it: after each column the inverse Hessian is that of the columns left."""
    (rows, columns), scale = weight.shape, np.broadcast_to(scale, weight.shape)
    hessian = products + damping * np.mean(np.diag(products)) * np.eye(columns)
    order = np.argsort(-np.diag(products), kind="stable")
    left, codes = weight.astype(np.float64).copy(), np.zeros((rows, columns), int)
    remaining = list(order)
    for column in order:
        inverse = np.linalg.inv(hessian[np.ix_(remaining, remaining)])
        codes[:, column] = np.clip(np.rint(left[:, column] / scale[:, column]), -limit, limit)
        error = (left[:, column] - codes[:, column] * scale[:, column]) / inverse[0, 0]
        left[:, remaining] -= np.outer(error, inverse[0])
        remaining.pop(0)
    return codes


def scales_of(weight, limit, group_size):
    """The largest magnitude of each group of columns over the largest code, for each weight."""
    groups = [weight[:, i : i + group_size] for i in range(0, weight.shape[1], group_size)]
    scales = [np.repeat(np.abs(g).max(1, keepdims=True), g.shape[1], 1) for g in groups]
    return np.concatenate(scales, 1).astype(np.float32) / limit


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("seed", range(30))
def test_codes_of_a_slow_one(seed, grouped):
    rng = np.random.default_rng(seed)
    rows, columns, n = rng.integers(1, 40), rng.integers(1, 170), rng.integers(20, 400)
    bits = int(rng.integers(2, 6))
    weight = rng.normal(size=(rows, columns)).astype(np.float32)
    inputs = rng.normal(size=(n, columns)) @ rng.normal(size=(columns, columns))
    inputs[:, rng.random(columns) < 0.05] = 0  # dead inputs
    group_size = int(rng.integers(2, 40)) if grouped else columns
    scale = scales_of(weight, 2 ** (bits - 1) - 1, group_size)
    products = inputs.T @ inputs
    limit = 2 ** (bits - 1) - 1
    moved = round_with_feedback(
        *(torch.as_tensor(a)[None] for a in (weight, scale)),
        torch.tensor(limit),
        torch.as_tensor(products)[None],
    )[0].numpy()
    codes = np.clip(np.rint(moved / scale), -limit, limit)
    np.testing.assert_array_equal(codes, obvious(weight, scale, limit, products))


def test_blocks_are_alone():
    rng = torch.Generator().manual_seed(0)
    weight, inputs = torch.randn(3, 5, 7, generator=rng), torch.randn(3, 50, 7, generator=rng)
    products = (inputs.transpose(1, 2) @ inputs).double()
    limits = torch.tensor([1.0, 3, 7, 3, 1])[:, None]
    together = round_with_feedback(weight, torch.tensor(0.4), limits, products)
    for block in range(3):
        part = slice(block, block + 1)
        alone = round_with_feedback(weight[part], torch.tensor(0.4), limits, products[part])
        torch.testing.assert_close(together[part], alone)


def test_inputs_of_zeros_round_to_nearest():
    weight = torch.randn(1, 4, 6)
    moved = round_with_feedback(
        weight, torch.tensor(0.3), torch.tensor(3), torch.zeros(1, 6, 6).double()
    )
    torch.testing.assert_close(moved, weight.double())


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_error_of_the_layer_falls(bits):
    """Below that of nearest rounding on most layers; the exceptions are counted."""
    worse, ratios = 0, []
    for seed in range(40):
        rng = torch.Generator().manual_seed(seed)
        weight = torch.randn(1, 20, 50, generator=rng)
        inputs = torch.randn(300, 12, generator=rng) @ torch.randn(12, 50, generator=rng)
        inputs = inputs.relu().double()
        limit = torch.tensor(2 ** (bits - 1) - 1)
        scale = weight.abs().amax(2, keepdim=True) / limit
        moved = round_with_feedback(weight, scale, limit, (inputs.T @ inputs)[None])

        def error(values, weight=weight, scale=scale, limit=limit, inputs=inputs):
            codes = (values / scale).round().clamp(-limit, limit)
            return float((inputs @ (codes * scale - weight)[0].T.double()).square().sum())

        ratios.append(error(moved) / error(weight.double()))
        worse += ratios[-1] > 1
    assert worse <= 1
    assert np.median(ratios) < 0.5
