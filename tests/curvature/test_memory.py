"""What is kept at the same time."""

import weakref

import numpy as np
import pytest
import torch
from torch import nn

from skqfair.curvature import Hessian, Problem, _eigenvalues, group_hessian_eigenvalues


def test_graphs_of_one_group_at_a_time(monkeypatch):
    alive, counts = weakref.WeakSet(), []

    class Counted(Hessian):
        def __init__(self, *args):
            counts.append(len(alive))
            super().__init__(*args)
            alive.add(self)

    monkeypatch.setattr(_eigenvalues, "Hessian", Counted)
    X, groups = torch.randn(12, 4), np.repeat(["a", "b", "c"], 4)
    group_hessian_eigenvalues(nn.Linear(4, 3), X, np.arange(12) % 3, groups)
    assert counts == [0, 0, 0]


@pytest.mark.parametrize("n", [1, 5, 6, 7, 1007])
@pytest.mark.parametrize("batch_size", [1, 5, 1000])
def test_parts_are_as_equal_as_can_be(n, batch_size):
    problem = Problem(nn.Linear(2, 2), torch.zeros(n, 2), np.zeros(n, int), batch_size=batch_size)
    parts = problem.batches(np.arange(n) + 3)
    assert torch.cat(parts).tolist() == list(range(3, n + 3))
    sizes = [len(part) for part in parts]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-n // batch_size)
