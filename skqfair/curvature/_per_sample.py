"""Norms of per-sample gradients: in closed form where it holds, else by vmap, else one by one."""

import warnings
from contextlib import contextmanager, suppress

import numpy as np
import torch
from torch import nn
from torch.autograd import Function
from torch.func import functional_call, grad, vmap

from skqfair.curvature._group_losses import MEMORY_BUDGET, Problem, on_a_copy
from skqfair.curvature._layer_norms import square_norms, supported

__all__ = ["LayerCalls", "closed_form_holds", "per_sample_gradient_norms", "sample_square_norms"]

_PROBE = 2  # rows on which the closed form is tried where it is not wanted for more


def per_sample_gradient_norms(module, X, y, *, criterion=None, batch_size=None):
    r"""Return the norm of the gradient of each sample's loss.

    .. math:: \left\| \nabla_\theta \ell(f_\theta(x_i), y_i) \right\|_2

    over all trainable weights, the module in eval mode.

    Parameters
    ----------
    module : torch.nn.Module
        Float module; left as it was.
    X : array, tensor, memmap or Dataset of shape (n, ...)
        Samples.
    y : array or tensor of shape (n, ...)
        Targets, for cross-entropy int64 classes of shape (n,).
    criterion : torch.nn.Module or callable, optional
        ``(outputs, targets) -> loss``; None is cross-entropy, ``BCEWithLogitsLoss()`` is for modules
        of one logit. Its ``reduction`` is set aside.
    batch_size : int, optional
        Samples at a time; None takes as many as fit into memory.

    Returns
    -------
    ndarray of float64, shape (n,)
        Euclidean norms.

    Raises
    ------
    ValueError
        For a module without trainable weights, empty input, or a loss that is not finite.

    Notes
    -----
    Linear, convolution, normalisation and embedding layers have closed forms, several calls of one
    layer included. They are taken if they agree with the plain gradients of two samples, that of the
    largest norm among them; otherwise (e.g. for recurrent nets, attention, or weights that are used
    directly) ``torch.func.vmap`` of the gradient is, and where that fails, one gradient after the other.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from skqfair.diagnostics import per_sample_gradient_norms
    >>> module = torch.nn.Linear(1, 2, bias=False)
    >>> _ = torch.nn.init.zeros_(module.weight)
    >>> per_sample_gradient_norms(module, np.array([[1.0], [2.0]]), [0, 1]).round(4)
    array([0.7071, 1.4142])
    """
    problem = Problem(module, X, y, criterion=criterion, batch_size=batch_size)
    with on_a_copy(problem) as own:
        found = sample_square_norms(own, np.arange(len(own.X)))
    return np.sqrt(found)


def sample_square_norms(problem, rows):
    """Return squared norms of the gradients of some rows.

    Parameters
    ----------
    problem : Problem
        Inside :func:`evaluating`.
    rows : array of int
        Which samples.

    Returns
    -------
    ndarray of float64, shape (len(rows),)
        By the first way that works: closed forms, vmap, one by one.
    """
    with suppress(Exception):  # what a module of another's making raises is unknown
        found = _checked(problem, rows)
        if found is not None:
            return found
    with suppress(Exception):
        found = _by_vmap(problem, rows)
        if np.isfinite(found).all() and found.any() and _agrees(problem, rows, found):
            return found
    return _one_by_one(problem, rows)  # says what is wrong with a loss: not finite, or without gradient


def closed_form_holds(problem):
    """Return whether the closed forms reproduce plain gradients on a few rows.

    Parameters
    ----------
    problem : Problem
        Inside :func:`evaluating`; it remembers the answer.

    Returns
    -------
    bool
        Whether they do.
    """
    if problem.closed_form is None:
        _checked(problem, np.arange(min(_PROBE, len(problem.X))))
    return problem.closed_form


def _checked(problem, rows):
    """Return squared norms by closed forms, None where they do not hold: two of them are compared."""
    if problem.closed_form is not None:
        return _closed_form(problem, rows) if problem.closed_form else None
    problem.closed_form, found = False, None
    covered = {id(p) for m in _layers(problem.module) for p in m.parameters(recurse=False)}
    if all(id(p) in covered for p in problem.parameters):
        with suppress(Exception):  # what a layer of another's making raises is unknown
            found = _closed_form(problem, rows)
            problem.closed_form = _agrees(problem, rows, found)
    return found if problem.closed_form else None


def _agrees(problem, rows, found):
    """Whether plain gradients of two of the rows have these squared norms."""
    some = np.unique([0, found.argmax()])  # the largest says most
    return np.allclose(found[some], _one_by_one(problem, np.asarray(rows)[some]), rtol=1e-3, atol=1e-12)


def _closed_form(problem, rows):
    parts, batches = [], problem.batches(rows)
    with LayerCalls(problem) as layers:
        for some in batches:
            losses = problem.losses(some)
            parts.append(layers.square_norms(losses, torch.ones_like(losses)))
            layers.forget()
    return torch.cat(parts).double().cpu().numpy()


def _by_vmap(problem, rows):
    caller = _Caller(problem)
    names = [f"module.{name}" for name in problem.names]
    weights = dict(zip(names, (p.detach() for p in problem.parameters), strict=True))

    def loss(weights, x, target):
        outputs = functional_call(caller, weights, (x[None],))
        return problem.sample_losses(outputs, target[None]).sum()

    per_sample = vmap(grad(loss), in_dims=(None, 0, 0))
    at_once = max(1, MEMORY_BUDGET // (2 * problem.n_weights * problem.parameters[0].element_size()))
    parts = []
    with _own_states(problem.module), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
        for some in problem.batches(rows):
            for part in some.split(at_once):
                found = per_sample(weights, problem.inputs(part), problem.y[part])
                parts.append(sum(g.flatten(1).double().square().sum(1) for g in found.values()))
    return torch.cat(parts).cpu().numpy()


@contextmanager
def _own_states(module):
    """Let recurrent layers begin with zeros for each sample, which vmap needs; theirs are for all."""
    recurrent = [m for m in module.modules() if type(m) in (nn.LSTM, nn.GRU, nn.RNN)]
    handles = [m.register_forward_pre_hook(_with_states, with_kwargs=True) for m in recurrent]
    weights = [list(m._flat_weights) for m in recurrent]  # functional_call leaves its own there
    try:
        yield
    finally:
        for m, handle, kept in zip(recurrent, handles, weights, strict=True):
            handle.remove()
            m._flat_weights = kept


def _with_states(layer, args, kwargs):
    if len(args) != 1 or kwargs or not isinstance(args[0], torch.Tensor):
        return None  # has states, or is packed
    x, n_layers = args[0], layer.num_layers * (1 + layer.bidirectional)
    n = () if x.ndim == 2 else x.shape[:1] if layer.batch_first else x.shape[1:2]
    sizes = [layer.proj_size or layer.hidden_size, layer.hidden_size]
    hidden, cell = (x.new_zeros(n_layers, *n, size) for size in sizes)
    return (x, (hidden, cell) if isinstance(layer, nn.LSTM) else hidden), kwargs


class _Caller(nn.Module):
    """The problem's forward as a module, for functional_call."""

    def __init__(self, problem):
        super().__init__()
        self.module, self.problem = problem.module, problem

    def forward(self, x):
        forward = self.problem.forward
        return self.module(x) if forward is None else forward(self.module, x)


def _one_by_one(problem, rows):
    norm, double = torch.linalg.vector_norm, torch.float64
    each = ([norm(g, dtype=double).square() for g in problem.gradient([row])] for row in rows)
    return np.array([float(sum(squares)) for squares in each])


class _Unsupported(Exception):
    """A layer was used in a way that the closed forms do not know."""


def _layers(module):
    return [m for m in module.modules() if supported(m)]


class _Rooted(Function):
    """Lets gradients reach an output that depends on no weight; it may be changed in place then."""

    @staticmethod
    def forward(ctx, root, outputs):
        return outputs[0].data

    @staticmethod
    def backward(ctx, grad):
        return None, None


class LayerCalls:
    """Records inputs of the layers and gradients of their outputs, inside a with block.

    The weights need no gradient there, so that a backward pass computes those of activations only.
    """

    def __init__(self, problem):
        self.problem, self.calls = problem, {}
        self.root = problem.parameters[0].new_zeros(()).requires_grad_()

    def __enter__(self):
        layers = _layers(self.problem.module)
        # first, so that the hooks of others see what the network goes on with
        self._handles = [m.register_forward_hook(self._note, prepend=True) for m in layers]
        self._trainable = {
            m: {kind: _is_trainable(m, kind) for kind in ("weight", "bias")} for m in layers
        }
        for p in self.problem.parameters:
            p.requires_grad_(False)
        return self

    def __exit__(self, *error):
        for p in self.problem.parameters:
            p.requires_grad_(True)
        for handle in self._handles:
            handle.remove()
        self.forget()

    def forget(self):
        """Drop what was recorded."""
        self.calls = {}

    def _note(self, module, args, output):
        if not torch.is_grad_enabled():  # no gradient comes here
            return None
        within_vmap = torch._C._are_functorch_transforms_active()
        if not args or within_vmap:  # no args: called with keywords
            raise _Unsupported
        call = [args[0].detach(), None]
        self.calls.setdefault(module, []).append(call)

        def keep(gradient):
            call[1] = gradient.detach()

        if output.requires_grad:
            output.register_hook(keep)
            return None
        output = _Rooted.apply(self.root, [output])
        output.register_hook(keep)
        return output

    def square_norms(self, outputs, cotangents, *, keep=False):
        """Go backward from ``outputs``, and return the squared norms of each sample's gradient."""
        n = len(outputs)
        for calls in self.calls.values():
            for call in calls:
                call[1] = None
                if call[0].shape[0] != n:
                    raise _Unsupported
        torch.autograd.grad(outputs, self.root, cotangents, retain_graph=keep, allow_unused=True)
        total = outputs.new_zeros(n)
        for module, calls in self.calls.items():
            used = [call for call in calls if call[1] is not None]
            if used:
                inputs, grads = zip(*used, strict=True)
                total = total + square_norms(module, inputs, grads, **self._trainable[module])
        return total


def _is_trainable(module, name):
    parameter = getattr(module, name, None)
    return parameter is not None and parameter.requires_grad
