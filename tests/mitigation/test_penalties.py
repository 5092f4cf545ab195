"""Penalties against numpy, and the multipliers against cooper, the library for such constraints."""

import numpy as np
import pytest
import torch

from skqfair.mitigation._penalties import AccuracyBound, GapPenalty


def test_gap_penalty():
    losses = torch.tensor([1.0, 4.0, 2.0, 7.0], requires_grad=True)
    groups = torch.tensor([0, 0, 2, 3])  # group 1 is not in the batch
    penalty = GapPenalty(0.5, 5)(losses, groups, None)
    assert penalty.item() == 0.5 * (7 - 2)
    penalty.backward()
    np.testing.assert_allclose(losses.grad, [0.25 * 0, 0, -0.5, 0.5])
    assert GapPenalty(0.5, 5)(losses, torch.zeros(4, dtype=int), None).item() == 0


@pytest.mark.parametrize("seed", range(3))
def test_multipliers_and_gradients_are_those_of_cooper(seed):
    cooper = pytest.importorskip("cooper")
    rng = np.random.default_rng(seed)
    reference, counts, bound, steps = np.array([0.9, 0.8, 0.7]), np.array([300, 60, 20]), 0.02, 7
    ours = AccuracyBound(bound, reference, counts, steps)

    class Problem(cooper.ConstrainedMinimizationProblem):
        def __init__(self):
            super().__init__()
            self.multiplier = cooper.multipliers.DenseMultiplier(num_constraints=3)
            self.constraint = cooper.Constraint(
                constraint_type=cooper.ConstraintType.INEQUALITY, multiplier=self.multiplier
            )

        def compute_cmp_state(self, surrogate, violation):
            state = cooper.ConstraintState(violation=surrogate, strict_violation=violation)
            return cooper.CMPState(
                loss=surrogate.sum() * 0, observed_constraints={self.constraint: state}
            )

    problem = Problem()
    dual = torch.optim.SGD(problem.multiplier.parameters(), lr=10 / steps, maximize=True)
    recent, window = reference.copy(), np.minimum(counts, 256)
    for _ in range(30):
        groups = torch.as_tensor(rng.choice(3, 40, p=[0.8, 0.15, 0.05]))
        correct = torch.as_tensor(rng.random(40) < 0.75)
        losses = torch.as_tensor(rng.exponential(size=40)).requires_grad_()
        term = ours(losses, groups, correct)
        (gradient,) = torch.autograd.grad(term, losses)

        theirs = losses.detach().clone().requires_grad_()
        of = [theirs[groups == a] for a in range(3)]
        means = torch.stack([loss.mean() if len(loss) else loss.sum() for loss in of]).float()
        for a in range(3):
            n = int((groups == a).sum())
            if n:
                mean = correct[groups == a].double().mean().item()
                recent[a] += min(1, n / window[a]) * (mean - recent[a])
        violation = torch.as_tensor(reference - recent - bound).float()
        state = problem.compute_cmp_state(means, violation)
        dual.zero_grad()
        primal = state.compute_primal_lagrangian()
        (expected,) = torch.autograd.grad(primal.lagrangian, theirs, retain_graph=True)
        state.compute_dual_lagrangian().backward()
        dual.step()
        problem.multiplier.post_step_()
        np.testing.assert_allclose(gradient, expected, atol=1e-5)
        np.testing.assert_allclose(ours.multipliers, problem.multiplier().detach(), atol=1e-5)
    assert (ours.multipliers > 0).any()
