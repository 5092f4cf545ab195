"""Is torch's second derivative of a module that of its loss? Asked before curvature is computed."""

import copy

import numpy as np
import torch
from torch import nn

from skqfair._groups import Groups
from skqfair.curvature._differentiable import differentiable_copy
from skqfair.curvature._gradients import mean_gradient
from skqfair.curvature._group_losses import Problem, evaluating
from skqfair.curvature._hessian import Hessian
from skqfair.exceptions import DoubleBackwardError

__all__ = ["check_second_derivative", "in_double"]

_ROWS = 256  # of each group: a branch that 2.5 % of the samples take is missed in 2 of 1,000
_STEPS = 1e-6, 1e-8
_DIRECTIONS = 3
_TOLERANCE, _SMOOTH = 1e-3, 1e-2


def check_second_derivative(problem):
    r"""Raise if Hessian-vector products are not the derivative of the gradient.

    Compared are :math:`H v` and :math:`(\nabla J(\theta + h v) - \nabla J(\theta - h v)) / 2h`, for
    each group in float64. They differ where an operation hides weights from the second backward:
    ``detach``, ``.data``, tensors kept on the ``ctx`` of a custom Function, some fused operations. A
    module that has no copy in float64 is not asked.

    Parameters
    ----------
    problem : Problem
        Inside :func:`evaluating`.

    Raises
    ------
    DoubleBackwardError
        Also if two passes of the same samples differ, or a product fails.
    """
    _check_graph(problem)
    double = in_double(problem)
    if double is None:
        return
    name, generator = type(problem.module).__name__, torch.Generator().manual_seed(0)
    with evaluating(double.module):
        for rows in double.members():
            with torch.no_grad():
                once, again = (double.outputs(rows) for _ in range(2))
            if not torch.allclose(once, again, equal_nan=True):
                raise DoubleBackwardError(
                    f"two passes of the same samples through {name} differ in eval mode, so that it has "
                    "no curvature; a usual cause is F.dropout without training=self.training."
                )
            for _ in range(_DIRECTIONS):
                error = _relative_error(double, rows, _direction(double, generator))
                if error is None:  # a kink on the way: another direction may avoid it
                    continue
                if error > _TOLERANCE:
                    raise DoubleBackwardError(
                        f"Hessian-vector products of {name} are off by {error:.1%} from finite "
                        "differences of its gradient, so that curvature would be wrong: detach(), "
                        ".data, tensors kept on ctx in a custom Function and some fused operations hide "
                        "weights from the second derivative."
                    )
                break


def in_double(problem):
    """Return the problem of at most 256 samples of each group in float64, on a copy of its module.

    None where the module cannot be copied, does not run in float64, or a loss is not finite.
    """
    rows = np.concatenate([_spread(members) for members in problem.members()])
    try:
        module, criterion = (
            differentiable_copy(problem.module).double(),
            copy.deepcopy(problem.criterion),
        )
        if isinstance(criterion, nn.Module):
            criterion.double()
        groups = Groups(problem.groups.codes[rows], problem.groups.index)
        options = {"criterion": criterion, "forward": problem.forward}
        double = Problem(module, problem.inputs(rows), problem.y[rows], groups, **options)
        with evaluating(module), torch.no_grad():
            for some in double.batches(np.arange(len(rows))):
                double.losses(some)
    except Exception:  # what a module of another's making raises is unknown
        return None
    return double


def _spread(rows):
    """Return at most 256 of some rows, spread evenly."""
    if len(rows) <= _ROWS:
        return rows
    return rows[np.linspace(0, len(rows) - 1, _ROWS).astype(int)]


def _check_graph(problem):
    """Raise if a custom operation has no second derivative.

    Torch says so only where it comes upon the operation, and when asked for the gradient by certain
    tensors it goes around, so that its terms would be missing without a word.
    """
    gradients = problem.gradient([0], create_graph=True)
    # the gradient of a weight that the loss does not depend on is a constant, without a node
    pending, seen, custom, error = [g.grad_fn for g in gradients if g.grad_fn], set(), set(), False
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        error |= node.name() == "torch::autograd::Error"
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            custom.add(node.name().removesuffix("Backward"))
        pending.extend(next_node for next_node, _ in node.next_functions if next_node is not None)
    if error:
        raise DoubleBackwardError(
            f"an operation marked once_differentiable, of the custom functions {sorted(custom)} in "
            f"the module {type(problem.module).__name__}, has no second derivative, so that curvature "
            "cannot be computed; write its backward in differentiable operations of torch."
        )


def _direction(problem, generator):
    """Return a random direction in which each weight tensor moves by its own norm."""
    padding = {
        id(m.weight): m.padding_idx
        for m in problem.module.modules()
        if isinstance(m, (nn.Embedding, nn.EmbeddingBag)) and m.padding_idx is not None
    }
    parts = []
    for p in problem.parameters:
        part = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.device)
        if id(p) in padding:  # torch holds this row for a constant
            part[padding[id(p)]] = 0
        norm = float(p.detach().norm()) or 1.0
        parts.append((part * (norm / max(float(part.norm()), 1e-300))).reshape(-1))
    return torch.cat(parts)


def _relative_error(problem, rows, vector):
    """Return by what share a product is off; None where a kink, e.g. of a ReLU at 0, is in the way.

    There the differences ahead and behind are not the same, whatever the step. A slight one close by may
    spoil one step and pass for smooth: what is off is off at every step.
    """
    wanted, here = Hessian(problem, rows)(vector), mean_gradient(problem, rows)
    floor, found = 1e-6 * float(here.norm()) + 1e-12, None
    for step in _STEPS:
        ahead = (_gradient_at(problem, rows, vector, step) - here) / step
        behind = (here - _gradient_at(problem, rows, vector, -step)) / step
        difference = (ahead + behind) / 2
        size = max(float(difference.norm()), float(wanted.norm())) + floor / _TOLERANCE
        error = float((difference - wanted).norm()) / size
        if error <= _TOLERANCE:
            return error
        if float((ahead - behind).norm()) <= _SMOOTH * size:
            found = error
    return found


def _gradient_at(problem, rows, vector, step):
    """Return the gradient where the weights have moved along a vector."""
    before = [p.data for p in problem.parameters]
    try:
        for p, part in zip(problem.parameters, problem.split(vector), strict=True):
            p.data = p.data + step * part
        return mean_gradient(problem, rows)
    finally:
        for p, values in zip(problem.parameters, before, strict=True):
            p.data = values
