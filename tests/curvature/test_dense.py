"""Every curvature function against dense Hessians and single gradients, in float64."""

import numpy as np
import pytest
import torch
from curvature_zoo import KINDS, dense_hessian, make, single_gradients

from skqfair.curvature import (
    Problem,
    evaluating,
    group_gradient_norms,
    group_hessian_eigenvalues,
    group_hessian_trace,
    per_sample_gradient_norms,
    trace_method,
)
from skqfair.quantization import QuantizationScheme, convert


def quantized(module, bits):
    """The module with dequantized weights, trainable again."""
    return convert(module, QuantizationScheme(bits)).module.requires_grad_(True)


def probing_error(H, n_products=32):
    """The standard deviation of Hutchinson's estimate from as many products."""
    return float(H.norm()) * np.sqrt(2 / n_products)


DENSE = [
    pytest.param(name, bits, marks=pytest.mark.slow if name == "attention" and bits in (8, 4) else [])
    for name in ("mlp", "mlp gelu", "convnet", "attention", "lstm")
    for bits in (None, 8, 4, 2)
]


@pytest.mark.parametrize(("name", "bits"), DENSE)
def test_eigenvalues_and_traces(name, bits):
    module, X, y, groups = make(name, torch.float64)
    if bits is not None:
        module = quantized(module, bits)
    largest, vectors = group_hessian_eigenvalues(
        module, X, y, groups, k=3, return_eigenvectors=True, max_iter=2000
    )
    smallest = group_hessian_eigenvalues(module, X, y, groups, which="SA", max_iter=2000)
    traces, method = group_hessian_trace(module, X, y, groups, return_method=True)
    for g, group in enumerate("abc"):
        H = dense_hessian(module, X[groups == group], y[groups == group])
        expected = torch.linalg.eigvalsh(H).numpy()
        scale = np.abs(expected).max()
        np.testing.assert_allclose(largest[g], expected[:-4:-1], rtol=1e-3, atol=1e-6 * scale)
        np.testing.assert_allclose(smallest[g, 0], expected[0], rtol=1e-3, atol=1e-6 * scale)
        residual = H.numpy() @ vectors[g].T - vectors[g].T * largest[g]
        assert np.abs(residual).max() <= 1.01e-3 * scale
        error = abs(traces[g] - float(H.trace()))
        assert error <= (1e-5 * traces[g] if method == "exact" else 3 * probing_error(H))


@pytest.mark.parametrize("name", KINDS)
def test_the_network_is_asked_which_trace_holds(name):
    module, X, y, groups = make(name, torch.float64)
    with evaluating(module):
        assert trace_method(Problem(module, X, y)) == ("exact" if KINDS[name][2] else "stochastic")
    if not KINDS[name][2]:
        with pytest.raises(ValueError, match="does not hold"):
            group_hessian_trace(module, X, y, groups, method="exact")


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind[2]])
def test_exact_traces(name):
    module, X, y, groups = make(name, torch.float64)
    found = group_hessian_trace(module, X, y, groups, method="exact")
    expected = [float(dense_hessian(module, X[groups == g], y[groups == g]).trace()) for g in "abc"]
    np.testing.assert_allclose(found, expected, rtol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", KINDS)
def test_norms_of_gradients(name, dtype):
    module, X, y, groups = make(name, dtype)
    singles = single_gradients(module, X, y).numpy()
    found = per_sample_gradient_norms(module, X, y)
    np.testing.assert_allclose(found, np.linalg.norm(singles, axis=1), rtol=1e-4)
    expected = [np.linalg.norm(singles[groups == g].mean(0)) for g in "abc"]
    np.testing.assert_allclose(group_gradient_norms(module, X, y, groups), expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["mlp", "convnet", "words", "attention"])
def test_batches_change_nothing(name):
    module, X, y, groups = make(name, torch.float64)
    for of in (group_gradient_norms, group_hessian_eigenvalues, group_hessian_trace):
        whole = of(module, X, y, groups)
        np.testing.assert_allclose(of(module, X, y, groups, batch_size=5), whole, rtol=1e-5)
    whole = per_sample_gradient_norms(module, X, y)
    np.testing.assert_allclose(per_sample_gradient_norms(module, X, y, batch_size=5), whole)


@pytest.mark.parametrize("frozen", [["0.weight", "0.bias"], ["6.bias"], ["1.weight"]])
def test_frozen_weights_do_not_count(frozen):
    module, X, y, groups = make("mlp", torch.float64)
    for name, p in module.named_parameters():
        p.requires_grad_(name not in frozen)
    singles = single_gradients(module, X, y).numpy()
    found = per_sample_gradient_norms(module, X, y)
    np.testing.assert_allclose(found, np.linalg.norm(singles, axis=1), rtol=1e-8)
    H = dense_hessian(module, X[groups == "a"], y[groups == "a"])
    assert group_hessian_trace(module, X, y, groups)[0] == pytest.approx(float(H.trace()), rel=1e-8)
    top = group_hessian_eigenvalues(module, X, y, groups)[0, 0]
    assert top == pytest.approx(float(torch.linalg.eigvalsh(H)[-1]), rel=1e-3)
    assert {name for name, p in module.named_parameters() if not p.requires_grad} == set(frozen)
