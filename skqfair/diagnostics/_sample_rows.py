"""Which rows of a layer's output belong to which sample, found by changing one sample at a time."""

from dataclasses import dataclass

import numpy as np
import torch

__all__ = ["SampleRows", "output_of", "sample_rows"]


@dataclass(frozen=True)
class SampleRows:
    """How the rows of a tensor are arranged.

    Attributes
    ----------
    each : int
        Rows of one sample, e.g. frames that are folded into the batch; 0 for one row for all samples.
    together : bool
        Whether those of a sample follow each other, else one of each sample follows the other, as
        where time comes first.
    """

    each: int
    together: bool

    def split(self, values, n_samples):
        """Return one row for each sample, shape (n_samples, ...); None if the shape does not fit."""
        if values.ndim < 2 or n_samples < 1:
            return None
        if not self.each:
            return values.reshape(1, -1).expand(n_samples, -1) if len(values) == 1 else None
        if self.together:
            return values.reshape(n_samples, -1) if len(values) == n_samples * self.each else None
        if len(values) != n_samples * self.each and values.shape[:2] != (self.each, n_samples):
            return None
        return values.reshape(self.each, n_samples, -1).transpose(0, 1).flatten(1)


def output_of(output):
    """Return the tensor of floats that a layer returns, detached; None if there is none."""
    output = output[0] if isinstance(output, tuple) else output
    return output.detach() if isinstance(output, torch.Tensor) and output.is_floating_point() else None


def sample_rows(run, modules, X):
    """Find the arrangement of the rows in the output of each layer.

    Parameters
    ----------
    run : callable
        ``X -> None``, passes all rows of X through the network at once.
    modules : dict of str to Module
        The layers.
    X : ndarray of shape (n, ...)
        Samples.

    Returns
    -------
    dict of str to list
        For each layer that was called, a :class:`SampleRows` for each of its calls; None where rows
        do not belong to one sample each, or the number of rows depends on the samples.
    """
    calls = _outputs(run, modules, X)
    changed = {k: _outputs(run, modules, changed) for k, changed in _with_one_changed(X)}
    arrangements = {}
    for name, outputs in calls.items():
        others = {k: found.get(name, []) for k, found in changed.items()}
        same = all(len(found) == len(outputs) for found in others.values())
        arrangements[name] = [
            _arrangement(clean, {k: found[i] for k, found in others.items()}, len(X)) if same else None
            for i, clean in enumerate(outputs)
        ]
    return arrangements


def _outputs(run, modules, X):
    found, handles = {}, []

    def keep(name):
        def hook(module, args, output):
            values = output_of(output)  # the next layer may change it in place
            found.setdefault(name, []).append(None if values is None else values.clone())

        return hook

    try:
        for name, module in modules.items():
            handles.append(module.register_forward_hook(keep(name)))
        run(X)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _with_one_changed(X):
    """Yield positions, and X with another sample there: at the beginning, in the middle, at the end."""
    for k in sorted({0, len(X) // 2, len(X) - 1}):
        others = np.flatnonzero((X[k] != X).reshape(len(X), -1).any(1))
        if len(others):
            changed = X.copy()
            changed[k] = X[others[len(others) // 2]]
            yield k, changed


def _arrangement(clean, changed, n_samples):
    """Return the arrangement in which each change stays with its sample, None if there is none."""
    if clean is None or clean.ndim < 2:
        return None
    if any(other is None or other.shape != clean.shape for other in changed.values()):
        return None
    rows = len(clean)
    candidates = []
    if rows % n_samples == 0:
        candidates += [SampleRows(rows // n_samples, True), SampleRows(rows // n_samples, False)]
    if clean.shape[1] == n_samples:
        candidates.append(SampleRows(rows, False))
    if rows == 1:  # e.g. embeddings of positions, added to all samples
        candidates.append(SampleRows(0, True))
    for candidate in candidates:
        before = candidate.split(clean, n_samples)
        if all(other.equal(clean) for other in changed.values()) and (before == before[0]).all():
            return candidate  # the same for all samples
        moved = {k: _moved(before, candidate.split(other, n_samples)) for k, other in changed.items()}
        if any(moved.values()) and all(set(found) <= {k} for k, found in moved.items()):
            return candidate
    return None


def _moved(before, after):
    """Return the positions of the rows that differ by more than rounding."""
    scale = before.abs().amax(1).clamp_min(1e-30)
    return ((before - after).abs().amax(1) > 1e-5 * scale).nonzero().flatten().tolist()
