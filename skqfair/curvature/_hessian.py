"""Hessian-vector products of a group's mean loss."""

import re

import torch

from skqfair.exceptions import DoubleBackwardError

__all__ = ["Hessian"]


class Hessian:
    r"""The Hessian of the mean loss of some rows, as a linear map.

    .. math:: H v = \nabla_\theta \left( v^\top \nabla_\theta J \right)

    by backward over backward. Where the graphs of all rows fit into memory they are kept, and a product
    costs one more backward; otherwise each product goes through the rows anew.

    Parameters
    ----------
    problem : Problem
        Module, samples and loss.
    rows : array of int
        Samples of the group.
    batches : list of Tensor of int, optional
        The rows in parts that fit into memory, if that is known.

    Attributes
    ----------
    gradient : Tensor of shape (n_weights,)
        Of the mean loss.
    n_products : int
        Products so far.
    """

    def __init__(self, problem, rows, batches=None):
        self.problem, self.n_samples, self.n_products = problem, len(rows), 0
        self.batches = problem.batches(rows, double=True) if batches is None else batches
        self._graphs, total, keep = [], None, problem.keeps(len(rows))
        for batch in self.batches:
            parts = self._gradient(batch) if keep else problem.gradient(batch)
            if keep:
                self._graphs.append(parts)
            total = _add(total, parts)
        self.gradient = _mean(total, self.n_samples)

    def __call__(self, vector):
        """Return the product with a flat vector of all weights."""
        if self.problem.no_curvature:
            raise DoubleBackwardError(self.problem.no_curvature)
        self.n_products += 1
        directions, total = self.problem.split(vector), None
        for i, batch in enumerate(self.batches):
            kept = bool(self._graphs)
            graph = self._graphs[i] if kept else self._gradient(batch)
            total = _add(total, self._differentiate(graph, directions, keep=kept))
        return _mean(total, self.n_samples)

    def _gradient(self, batch):
        return self.problem.gradient(batch, create_graph=True)

    def _differentiate(self, gradient, directions, *, keep):
        used = [(g, v) for g, v in zip(gradient, directions, strict=True) if g.requires_grad]
        if not used:  # a loss linear in the weights
            return [torch.zeros_like(v) for v in directions]
        gradients, vectors = zip(*used, strict=True)
        try:
            return torch.autograd.grad(
                gradients,
                self.problem.parameters,
                vectors,
                retain_graph=keep,
                allow_unused=True,
                materialize_grads=True,
            )
        except RuntimeError as error:
            raise _no_double_backward(error, self.problem.module) from error


def _no_double_backward(error, module):
    """Return the error that names the operation without a second derivative."""
    text, name = str(error), type(module).__name__
    if "not implemented" not in text and "once_differentiable" not in text:
        return DoubleBackwardError(f"a Hessian-vector product of {name} fails: {text}")
    found = re.search(r"derivative for (\S+)", text)
    operation = found[1] if found else "an operation marked once_differentiable"
    return DoubleBackwardError(
        f"{operation} in the module {name} has no second derivative, so that curvature "
        "cannot be computed; replace it by operations of torch that can be differentiated twice."
    )


def _add(total, parts):
    parts = [part.detach() for part in parts]
    return parts if total is None else [a + b for a, b in zip(total, parts, strict=True)]


def _mean(parts, n_samples):
    return torch.cat([part.reshape(-1) for part in parts]).div_(n_samples)
