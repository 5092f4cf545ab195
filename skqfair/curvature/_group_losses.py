"""What is differentiated: the losses of groups of samples, as functions of a module's weights."""

import copy
import math
import threading
from contextlib import ExitStack, contextmanager, nullcontext
from numbers import Integral

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from skqfair._groups import Groups, encode_groups
from skqfair._validation import check_length
from skqfair.curvature._differentiable import differentiable_copy
from skqfair.curvature._one_logit import as_cross_entropy
from skqfair.curvature._sample_losses import sample_losses
from skqfair.curvature._samples import in_floats, samples, targets

__all__ = ["MEMORY_BUDGET", "Problem", "check_count", "evaluating", "on_a_copy", "unit"]

MEMORY_BUDGET = 2**30
"""Bytes that the tensors saved for backward may take."""


# Bytes of one part of a backward and of a double one on a CPU: more are slower, by 1.4 for a ConvNet.
_CACHED = {False: 2**24, True: 2**26}
_TWICE = 4  # times the bytes of a forward that a double backward takes: 3.8 were measured
_MOST = 1000  # samples of a backward: more leave the cache, 1.2 times slower for an MLP


_IDS = (nn.Embedding, nn.EmbeddingBag)  # take integers


class Problem:
    """A module, samples and a loss, checked, for derivatives by its trainable weights.

    Parameters
    ----------
    module : torch.nn.Module
        Float module; call inside :meth:`evaluating`.
    X : array, tensor or Rows of shape (n, ...)
        Samples; floats are cast to the dtype of the module.
    y : array or tensor of shape (n, ...)
        Targets.
    groups : array-like of shape (n,) or Groups, optional
        None puts all samples into one group.
    criterion : torch.nn.Module or callable, optional
        ``(outputs, targets) -> loss``; None is cross-entropy.
    batch_size : int, optional
        Samples at a time; None takes as many as fit :data:`MEMORY_BUDGET`.
    forward : callable, optional
        ``(module, X) -> outputs``; None calls the module.

    Attributes
    ----------
    parameters : list of Parameter
        Trainable.
    names : list of str
        Theirs, as in ``named_parameters()``.
    groups : Groups
        Of the samples.
    closed_form : bool or None
        Whether closed forms hold for the norms of per-sample gradients; None until that is asked.
    no_curvature : str or None
        Why Hessian-vector products would be wrong, if that was found.
    trace_method : str or None
        Which trace of the Hessian holds, "exact" or "stochastic"; None until that is asked.
    """

    def __init__(self, module, X, y, groups=None, *, criterion=None, batch_size=None, forward=None):
        if not isinstance(module, nn.Module):
            raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}.")
        with _ONE_AT_A_TIME:  # without a copy, it has none trainable while it is differentiated
            trainable = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        if not trainable:
            raise ValueError(
                f"the module {type(module).__name__} has no trainable weights (requires_grad=True): "
                "there is nothing to differentiate by."
            )
        if batch_size is not None:
            check_count(batch_size, "batch_size")
        self.module = module
        self.names, self.parameters = [list(column) for column in zip(*trainable, strict=True)]
        like = next((p for p in self.parameters if p.is_floating_point()), self.parameters[0])
        self.device = like.device
        self.X, y = samples(X, like), targets(y, like, criterion)
        self.criterion, self.forward, self.y = as_cross_entropy(criterion, forward, y)
        whole = not self.inputs([0]).is_floating_point() if len(self.X) else False
        if whole and not any(isinstance(m, _IDS) for m in module.modules()):
            self.X = (
                self.X.to(like.dtype) if isinstance(self.X, torch.Tensor) else in_floats(self.X, like)
            )
        check_length(self.y, len(self.X), "y")
        if not len(self.X):
            raise ValueError("X is empty; at least one sample is needed.")
        if groups is None:
            self.groups = Groups.of_all(len(self.X))
        else:
            given = isinstance(groups, Groups)
            self.groups = groups if given else encode_groups(groups, len(self.X), "groups")
        self.sample_losses = sample_losses(self.criterion or nn.CrossEntropyLoss())
        self.batch_size = batch_size
        self.closed_form = self.trace_method = None
        self._bytes = self.no_curvature = None

    @property
    def n_weights(self):
        """Trainable weights, all together."""
        return sum(p.numel() for p in self.parameters)

    def subset(self, rows):
        """Return the problem of some of the samples, as one group."""
        some = copy.copy(self)
        some.X = self.X[rows] if isinstance(self.X, torch.Tensor) else self.X.only(rows)
        some.y = self.y[rows]
        some.groups = Groups.of_all(len(rows))
        return some

    def owned(self):
        """Return the same problem on a copy of the module, which nobody else can change."""
        own = copy.copy(self)
        own.module = differentiable_copy(self.module)
        parameters = dict(own.module.named_parameters())
        own.parameters = [parameters[name] for name in self.names]
        return own

    def by_all_weights(self):
        """Return the same problem on a copy of the module whose frozen weights count too."""
        own = copy.copy(self)
        own.module = differentiable_copy(self.module)
        named = [(name, p) for name, p in own.module.named_parameters() if p.is_floating_point()]
        own.names = [name for name, _ in named]
        own.parameters = [parameter.requires_grad_() for _, parameter in named]
        return own

    def members(self):
        """Return the rows of each group, in the order of ``groups.index``."""
        order = np.argsort(self.groups.codes, kind="stable")
        return np.split(order, np.cumsum(self.groups.counts)[:-1])

    def batches(self, rows, *, double=False):
        """Return ``rows`` in parts of about equal size that fit into memory."""
        n_parts = math.ceil(len(rows) / self.rows_at_once(double=double))
        return torch.as_tensor(rows).tensor_split(n_parts)

    def rows_at_once(self, *, double=False):
        """Return how many samples a backward (or a double backward) takes at a time."""
        if self.batch_size is not None:
            return int(self.batch_size)
        budget = _CACHED[double] if self.device.type == "cpu" else MEMORY_BUDGET
        n_rows = int(budget / (self.bytes_per_sample * (_TWICE if double else 1)))
        return max(1, n_rows if double else min(_MOST, n_rows))

    def keeps(self, n_samples):
        """Whether the graphs of a double backward of so many samples fit into memory."""
        if self.batch_size is not None:
            return n_samples <= self.batch_size
        return n_samples * _TWICE * self.bytes_per_sample <= MEMORY_BUDGET

    @property
    def bytes_per_sample(self):
        """What a forward saves for its backward: that of 4 samples less that of 2."""
        if self._bytes is None:
            few, more = (self._saved_bytes(n) for n in (2, 4))
            self._bytes = max(1.0, (more - few) / 2)
        return self._bytes

    def outputs(self, rows):
        """Return the outputs of the module for some rows."""
        X = self.inputs(rows)
        return self.module(X) if self.forward is None else self.forward(self.module, X)

    def inputs(self, rows):
        """Return some samples as a tensor."""
        found = self.X[rows]
        return found if isinstance(self.X, torch.Tensor) else torch.from_numpy(found).to(self.device)

    def losses(self, rows, outputs=None):
        """Return the losses of some rows, shape (len(rows),)."""
        outputs = self.outputs(rows) if outputs is None else outputs
        losses = self.sample_losses(outputs, self.y[rows])
        if not torch.isfinite(losses.detach()).all():
            bad = np.asarray(rows)[~torch.isfinite(losses.detach()).cpu().numpy()]
            raise ValueError(
                f"the loss of {len(bad)} samples is not finite (first: row {bad[0]}); check the weights "
                "of the module and the range of X."
            )
        return losses

    def gradient(self, rows, *, create_graph=False):
        """Return the gradient of the summed loss of some rows, one tensor for each parameter."""
        total = self.losses(rows).sum()
        if not total.requires_grad:
            raise ValueError(
                f"the loss of {type(self.module).__name__} does not depend on its trainable weights; a "
                "module that detaches its outputs or runs without grad cannot be differentiated."
            )
        grads = torch.autograd.grad(
            total, self.parameters, create_graph=create_graph, allow_unused=True, materialize_grads=True
        )
        return list(grads)

    def split(self, vector):
        """Return a flat vector of all weights as tensors of the parameters' shapes."""
        parts = vector.split([p.numel() for p in self.parameters])
        return [part.view_as(p) for part, p in zip(parts, self.parameters, strict=True)]

    def _saved_bytes(self, n_samples):
        storages = {}

        def note(tensor):
            if tensor.layout == torch.strided:
                storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        rows = np.arange(n_samples) % len(self.X)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), torch.enable_grad():
            kept = self.sample_losses(self.outputs(rows), self.y[rows])
        del kept
        return sum(storages.values())


@contextmanager
def on_a_copy(problem):
    """Let a problem be differentiated on a copy of its module, so that threads may share the module.

    A module that cannot be copied, or does not run as a copy, is differentiated itself, by one thread
    at a time.

    Parameters
    ----------
    problem : Problem
        Of the user's module.

    Yields
    ------
    Problem
        Inside :func:`evaluating`.
    """
    try:
        own = problem.owned()
        with evaluating(own.module), torch.no_grad():
            own.outputs([0])
    except Exception:  # it holds something that has no copy, or hooks that know the original only
        with _ONE_AT_A_TIME, evaluating(problem.module):
            _check_runs(problem)
            yield problem
    else:
        with evaluating(own.module):
            yield own


def _check_runs(problem):
    """Raise if the module fails on a sample."""
    try:
        with torch.no_grad():
            problem.outputs([0])
    except RuntimeError as error:
        raise ValueError(
            f"the module {type(problem.module).__name__} fails on X of shape {tuple(problem.X.shape)} "
            f"and dtype {problem.X.dtype}: {error}"
        ) from error


@contextmanager
def evaluating(module):
    """Let the module be differentiated twice in eval mode, and leave it as it was.

    Fused attention and recurrent kernels and compiled parts have no second derivative, so the plain
    ones run.

    Parameters
    ----------
    module : torch.nn.Module
        In any mode.

    Yields
    ------
    None
        Nothing.
    """
    modes = {m: m.training for m in module.modules()}
    grads = [(p, p.grad) for p in module.parameters()]
    module.eval()
    try:
        recurrent = any(isinstance(m, nn.RNNBase) for m in module.modules())
        with (
            torch.enable_grad(),
            _PLAIN_ATTENTION.held(),
            _PLAIN_RECURRENCE.held() if recurrent else nullcontext(),
            _NOT_COMPILED.held() if _has_compiled(module) else nullcontext(),
        ):
            yield
    finally:
        for m, training in modes.items():
            m.training = training
        for p, grad in grads:
            p.grad = grad


class _Shared:
    """A setting of the process that threads hold together: the first sets it, the last puts it back."""

    def __init__(self, setting):
        self.setting, self.lock, self.n_holders, self.stack = setting, threading.Lock(), 0, ExitStack()

    @contextmanager
    def held(self):
        with self.lock:
            if not self.n_holders:
                self.stack.enter_context(self.setting())
            self.n_holders += 1
        try:
            yield
        finally:
            with self.lock:
                self.n_holders -= 1
                if not self.n_holders:
                    self.stack.close()


@contextmanager
def _plain_attention():
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def _plain_recurrence():
    fused = [torch.backends.mkldnn, torch.backends.cudnn]
    before = [backend.set_flags(_enabled=False)[0] for backend in fused]
    try:
        yield
    finally:
        for backend, enabled in zip(fused, before, strict=True):
            backend.set_flags(_enabled=enabled)


@contextmanager
def _not_compiled():
    with torch.compiler.set_stance("force_eager"):
        yield


def _has_compiled(module):
    return any(hasattr(m, "_orig_mod") or m._compiled_call_impl is not None for m in module.modules())


_NOT_COMPILED = _Shared(_not_compiled)
_PLAIN_ATTENTION, _PLAIN_RECURRENCE = _Shared(_plain_attention), _Shared(_plain_recurrence)
_ONE_AT_A_TIME = threading.RLock()


def check_count(value, name, least=1, most=math.inf, why=""):
    """Raise if an option is not a whole number from ``least`` to ``most``."""
    if not isinstance(value, Integral) or not least <= value <= most:
        limits = f">= {least}" if most == math.inf else f"from {least} to {most}"
        raise ValueError(f"{name} must be a whole number {limits}{why}, got {value!r}.")


def unit(vector):
    """Return ``vector`` at length 1; zero stays zero."""
    norm = float(torch.linalg.vector_norm(vector))
    return vector / norm if norm and math.isfinite(norm) else vector
