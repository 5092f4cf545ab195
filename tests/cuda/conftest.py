"""The same tests on a card and, to know that they are right, on the CPU."""

import numpy as np
import pytest
import torch


@pytest.fixture(
    params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)],
)
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device is here")
    return request.param


@pytest.fixture(scope="session")
def images():
    """Small images of three classes and two groups, 0 to 255."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 240)
    X = rng.normal(size=(240, 3, 8, 8)) + y[:, None, None, None] * 0.7
    return X.astype(np.float32), np.array(["low", "mid", "high"])[y], rng.choice(["a", "b"], 240)
