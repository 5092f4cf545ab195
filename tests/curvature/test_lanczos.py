"""Lanczos and XTrace on matrices of known spectrum."""

import numpy as np
import pytest
import torch
from scipy.stats import t as student

from skqfair.curvature import _lanczos, extreme_eigenvalues
from skqfair.curvature._hessian_trace import _xtrace
from skqfair.curvature._lanczos import lanczos


class Matrix:
    """A symmetric matrix with the interface of a Hessian."""

    def __init__(self, values, *, rotate=True, seed=0, dtype=torch.float64):
        generator = torch.Generator().manual_seed(seed)
        self.values = torch.as_tensor(values, dtype=dtype)
        n = len(self.values)
        self.Q = None
        if rotate:
            self.Q = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=dtype))[0]
        self.gradient = torch.randn(n, generator=generator, dtype=dtype)
        self.n_products = 0

    def __call__(self, vector):
        self.n_products += 1
        if self.Q is None:
            return self.values * vector
        return self.Q @ (self.values * (self.Q.T @ vector))

    def vector(self, i):
        """The eigenvector of the i-th value."""
        if self.Q is not None:
            return self.Q[:, i]
        vector = torch.zeros_like(self.values)
        vector[i] = 1
        return vector


def start(n, seed=1, dtype=torch.float64):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=dtype)


SPECTRA = {
    "uniform": np.linspace(-1, 3, 60),
    "decaying": 0.7 ** np.arange(60),
    "all negative": -np.linspace(1, 3, 60),
    "outliers": np.r_[100, 90, 80, np.linspace(-0.1, 0.1, 57)],
    "large": 1e8 * np.linspace(-1, 3, 60),
    "small": 1e-8 * np.linspace(-1, 3, 60),
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize(("largest", "smallest"), [(1, 0), (0, 1), (4, 0), (0, 3), (2, 2)])
def test_ends_of_a_spectrum(name, largest, smallest):
    matrix, values = Matrix(SPECTRA[name]), np.sort(SPECTRA[name])
    found = lanczos(matrix, start(60), largest=largest, smallest=smallest, tol=1e-6, max_iter=300)
    expected = np.r_[values[::-1][:largest], values[:smallest]]
    scale = np.abs(values).max()
    np.testing.assert_allclose(found.values, expected, rtol=1e-6, atol=1e-6 * scale)
    assert found.converged
    assert found.n_products == matrix.n_products
    for value, vector in zip(found.values, found.vectors, strict=True):
        assert float(vector.norm()) == pytest.approx(1)
        assert float((matrix(vector) - value * vector).norm()) <= 2e-6 * scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "values",
    [
        np.r_[5, 5, 5, np.linspace(-1, 1, 57)],
        np.r_[5, 5, 4, 4, 3, np.linspace(-1, 1, 55)],
        np.r_[np.full(30, 2.0), np.full(30, 1.0)],
        np.ones(20),
        np.zeros(20),
        np.r_[np.zeros(19), 1],
        np.r_[-np.ones(19), -2],
        [3.0],
        [0.0],
        [2.0, 2.0],
    ],
)
def test_repeated_eigenvalues(values, dtype):
    values = np.asarray(values)
    for k in (1, 2, 3):
        if k > len(values):
            continue
        found = lanczos(
            Matrix(values, dtype=dtype), start(len(values), dtype=dtype), largest=k, max_iter=999
        )
        np.testing.assert_allclose(found.values, np.sort(values)[::-1][:k], rtol=1e-3, atol=1e-5)
        assert found.converged
        gram = found.vectors @ found.vectors.T
        torch.testing.assert_close(gram, torch.eye(k, dtype=dtype), rtol=0, atol=1e-4)
        found = lanczos(
            Matrix(values, dtype=dtype), start(len(values), dtype=dtype), largest=0, smallest=k
        )
        np.testing.assert_allclose(found.values, np.sort(values)[:k], rtol=1e-3, atol=1e-5)


def test_too_few_products():
    found = lanczos(Matrix(SPECTRA["uniform"]), start(60), max_iter=4)
    assert not found.converged
    assert found.n_products == 4
    found = lanczos(Matrix(SPECTRA["uniform"]), start(60), largest=3, max_iter=2)
    assert not found.converged
    assert len(found.values) == 2


def test_the_loss_of_a_group_that_curves_nowhere():
    found = lanczos(Matrix(np.zeros(7)), start(7), largest=1, smallest=1)
    assert (found.values == 0).all()
    assert found.converged


def test_products_that_are_not_finite():
    with pytest.raises(ValueError, match="not finite"):
        lanczos(lambda v: v * float("inf"), start(5))


@pytest.mark.parametrize("seed", range(50))
@pytest.mark.parametrize("n", [200, 20_000])
def test_a_warm_start_at_another_eigenvector_finds_the_largest(n, seed):
    """The worst a start can be: exactly the second eigenvector, or one of the bulk."""
    rng = np.random.default_rng(seed)
    outliers = np.sort(rng.uniform(1, 5, 6))[::-1]
    outliers[0] = outliers[1] * rng.uniform(1.05, 1.5)
    matrix = Matrix(np.r_[outliers, rng.uniform(-0.05, 0.05, n - 6)], rotate=n < 1000, seed=seed)
    for i in (1, 2, 5, n // 2, n - 1):
        found = extreme_eigenvalues(matrix, matrix.vector(i)[None])
        assert found.values[0] == pytest.approx(outliers[0], rel=1e-3)
        assert found.converged


def test_a_warm_start_at_the_eigenvector_needs_few_products():
    matrix = Matrix(np.r_[10, 9, 8, np.linspace(-0.1, 0.1, 497)])
    cold = extreme_eigenvalues(matrix)
    warm = extreme_eigenvalues(matrix, cold.vectors)
    assert warm.n_products <= cold.n_products
    assert warm.values[0] == pytest.approx(10, rel=1e-3)


@pytest.mark.parametrize("n", [10, 33, 400])
@pytest.mark.parametrize("decay", [0.3, 0.8, 0.97])
def test_xtrace_is_accurate_on_decaying_spectra(n, decay):
    values = decay ** np.arange(n)
    matrix = Matrix(values)
    trace, error = _xtrace(matrix)
    found = abs(trace - values.sum()) / values.sum()
    assert found <= (1e-9 if n <= 96 else 1e-6 if decay < 0.5 else 0.02)
    assert matrix.n_products == (n if n <= 96 else 32)
    assert error == 0 if n <= 96 or decay < 0.5 else error > 0


@pytest.mark.parametrize(
    "values", [np.zeros(150), np.ones(150), -np.ones(99), np.r_[7.0, np.zeros(149)]]
)
def test_xtrace_of_degenerate_matrices(values):
    assert _xtrace(Matrix(values))[0] == pytest.approx(values.sum(), rel=1e-6, abs=1e-9)


def test_xtrace_in_float32():
    values = np.r_[1000, 300, 100, np.full(997, 0.1)]
    found, _ = _xtrace(Matrix(values, dtype=torch.float32))
    assert found == pytest.approx(values.sum(), rel=1e-2)


def test_xtrace_is_unbiased():
    """Over 200 rotations the mean error is within 3 standard errors of 0."""
    values = np.r_[20 * 0.8 ** np.arange(40), np.linspace(-1, 1, 80)]
    errors = np.array([_xtrace(Matrix(values, seed=seed))[0] for seed in range(200)]) - values.sum()
    assert abs(errors.mean()) <= 3 * errors.std() / np.sqrt(len(errors))
    assert errors.std() < 0.5 * np.sqrt(2 * (values**2).sum() / 32)  # Hutchinson's, of as many products


@pytest.mark.parametrize(
    "values",
    [
        np.linspace(1, 3, 300),
        1 / np.arange(1, 301) ** 2,
        1 / np.arange(1, 301) ** 0.5,
        0.9 ** np.arange(300),
        np.r_[np.ones(50), np.full(250, 1e-3)],
        np.r_[1 / np.arange(1, 201), -0.3 / np.arange(1, 101)],
    ],
    ids=["flat", "square", "root", "exponential", "step", "indefinite"],
)
def test_the_error_of_xtrace_holds_its_level(values):
    """Of 200 rotations the 95 % interval holds the trace in 93 %: 95 less 1.3 standard errors."""
    quantile, held = student.ppf(0.975, 15), 0
    for seed in range(200):
        trace, error = _xtrace(Matrix(values, seed=seed))
        held += abs(trace - values.sum()) <= quantile * error + 1e-9 * abs(values).sum()
    assert held >= 186


@pytest.mark.parametrize("ends", [(1, 0), (0, 1), (1, 1), (3, 0)])
def test_a_basis_that_is_full_begins_anew(monkeypatch, ends):
    values = np.r_[np.linspace(-3, 5, 196), -3.3, -3.5, 5.3, 5.5]
    rng = torch.Generator().manual_seed(0)
    start = torch.randn(200, generator=rng, dtype=torch.float64)
    options = {"largest": ends[0], "smallest": ends[1], "tol": 1e-4, "max_iter": 400}
    whole = lanczos(Matrix(values), start, **options)
    monkeypatch.setattr(_lanczos, "_BUDGET", 0)
    found = lanczos(Matrix(values), start, **options)
    assert whole.converged
    assert found.converged
    np.testing.assert_allclose(found.values, whole.values, rtol=1e-3)
    assert found.n_products > 16


def test_millions_of_weights_in_float32():
    """Sums in float32 would be off by 1e-3 at ten million, and eigenvalues with them."""
    n, generator = 2_000_000, torch.Generator().manual_seed(0)
    values = torch.rand(n, generator=generator) - 0.5
    values[[7, 9, 11]] = torch.tensor([4.0, 3.7, -2.0])
    found = lanczos(lambda v: values * v, start(n, dtype=torch.float32), largest=1, smallest=1, tol=1e-4)
    assert found.converged
    np.testing.assert_allclose(found.values, [4, -2], rtol=1e-5)
    for vector in found.vectors:
        assert float(vector.double().norm()) == pytest.approx(1, abs=1e-5)
