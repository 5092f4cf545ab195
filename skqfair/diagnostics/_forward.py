"""From layers to logits: one forward pass of all versions side by side."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from skqfair.quantization import input_quantizers

__all__ = ["forward_pass", "logit_features", "sample_losses"]


def logit_features(logits):
    """Return what each sample's logits say.

    Parameters
    ----------
    logits : ndarray of shape (n, C)
        Float64.

    Returns
    -------
    dict of str to ndarray of shape (n,)
        ``logit_variance``, ``margin``, ``boundary_closeness`` and ``confidence``.
    """
    z = torch.from_numpy(logits)  # on rows this short several times faster than numpy
    p = z.softmax(1)
    first, second = p.topk(2, dim=1).values.unbind(1)
    features = {
        "logit_variance": z.var(1, correction=0),
        "margin": first - second,
        "boundary_closeness": 1 - torch.linalg.vecdot(p, p),
        "confidence": first,
    }
    return {name: values.numpy() for name, values in features.items()}


def sample_losses(logits, y):
    """Return the cross-entropy of each sample, shape (n,)."""
    return functional.cross_entropy(
        torch.from_numpy(logits), torch.from_numpy(y), reduction="none"
    ).numpy()


def forward_pass(versions, X, groups, *, layers):
    """Run all versions on the same batches.

    Parameters
    ----------
    versions : list of Version
        The float one first.
    X : ndarray of shape (n, ...)
        Samples in the dtype of the module.
    groups : Groups
        Of the samples.
    layers : dict of str to str
        Parameter name to the name of the module that has it: the layers to look into.

    Returns
    -------
    logits : dict
        Version name to ndarray of shape (n, C).
    sqnr : dict
        (version name, parameter name) to ndarray of shape (G,): signal to noise, in dB, of the outputs
        of the layer against those of the version that it was made from.
    clipping : dict
        (version name, parameter name) to ndarray of shape (G,): share of the layer's inputs beyond the
        range of their quantizer.
    """
    size = versions[0].network.batch_size(len(X))
    logits = {version.name: [] for version in versions}
    streams = {version.name: version.each_logits(X, size) for version in versions}
    with _Recorders(versions, layers) as recorders:
        for start in range(0, len(X), size):
            n = min(size, len(X) - start)
            for name, stream in streams.items():
                recorders[name].begin(n)
                logits[name].append(next(stream))
            for version in versions:
                if version.origin is not None:
                    recorders[version.name].compare(recorders[version.origin])
    logits = {name: np.concatenate(parts) for name, parts in logits.items()}
    sqnr, clipping = {}, {}
    for version in versions:
        if version.origin is not None:
            for layer, module in layers.items():
                key = version.name, layer
                sqnr[key], clipping[key] = recorders[version.name].results(module, groups)
    return logits, sqnr, clipping


class _Recorders(dict):
    """A recorder for each version, attached inside a with block."""

    def __init__(self, versions, layers):
        wanted = set(layers.values())
        super().__init__({v.name: _Recorder(v.classifier.module_, wanted) for v in versions})

    def __enter__(self):
        for recorder in self.values():
            recorder.attach()
        return self

    def __exit__(self, *error):
        for recorder in self.values():
            recorder.detach()


class _Recorder:
    """Keeps the outputs of the layers of one batch, and what each sample makes of them."""

    def __init__(self, module, wanted):
        self.modules = {name: child for name, child in module.named_modules() if name in wanted}
        self.quantizers = input_quantizers(module)
        self.energy, self.clipped, self.handles = {}, {}, []
        self.begin(0)

    def attach(self):
        for name, child in self.modules.items():
            self.handles.append(child.register_forward_hook(self._keep(name)))
            if name in self.quantizers:
                hook = self._count_clipped(name)
                self.handles.append(
                    child.register_forward_pre_hook(hook, with_kwargs=True, prepend=True)
                )

    def detach(self):
        for handle in self.handles:
            handle.remove()
        self.begin(0)

    def begin(self, n_samples):
        """Forget what was kept, before a batch of so many samples."""
        self.n, self.outputs, self.beyond = n_samples, {}, {}

    def _keep(self, name):
        def hook(module, args, output):
            rows = _rows(output[0] if isinstance(output, tuple) else output, module, self.n)
            if rows is not None:
                self.outputs.setdefault(name, []).append(rows)

        return hook

    def _count_clipped(self, name):
        quantizer = self.quantizers[name]

        def hook(module, args, kwargs):
            rows = _rows(args[0] if args else kwargs.get("input"), module, self.n)
            if rows is not None:
                ratio = rows / quantizer.scale.to(rows)
                # negatives are out of an unsigned range however small they are
                low = quantizer.low - 0.5 if quantizer.low else 0.0
                beyond = ((ratio > quantizer.high + 0.5) | (ratio < low)).sum(1)
                found = torch.stack([beyond, torch.full_like(beyond, ratio.shape[1])])
                self.beyond.setdefault(name, []).append(found)

        return hook

    def compare(self, origin):
        """Take in the signal and noise of the batch, and what was clipped; calls of a layer add up."""
        for name, calls in self.outputs.items():
            clean = origin.outputs.get(name, ())
            if [a.shape for a in clean] == [b.shape for b in calls]:
                a, b = (rows[0] if len(rows) == 1 else torch.cat(rows, 1) for rows in (clean, calls))
                both = torch.stack([_energy(a), _energy(a - b)])
                self.energy.setdefault(name, []).append(both)
        for name, calls in self.beyond.items():
            self.clipped.setdefault(name, []).append(sum(calls))

    def results(self, name, groups):
        """Return the ratio of signal to noise in dB, and the share of clipped inputs, of each group."""
        signal, noise = _sums(self.energy.get(name, ()), groups)
        clipped, total = _sums(self.clipped.get(name, ()), groups)
        with np.errstate(divide="ignore", invalid="ignore"):
            return 10 * np.log10(signal / noise), clipped / total


def _sums(batches, groups):
    """Add up two rows of values of the samples by group; NaN if they are not of all samples."""
    n_groups = len(groups.index)
    values = torch.cat(batches, 1).double().cpu().numpy() if batches else np.empty((2, 0))
    if values.shape[1] != len(groups.codes):
        return np.full((2, n_groups), np.nan)
    return [np.bincount(groups.codes, weights=row, minlength=n_groups) for row in values]


def _rows(values, module, n_samples):
    """Return the values of the first samples, one row each; None if that is unclear."""
    if not isinstance(values, torch.Tensor) or not values.is_floating_point() or not values.ndim:
        return None
    values = values.detach()
    if isinstance(module, nn.RNNBase) and not module.batch_first and values.ndim == 3:
        values = values.transpose(0, 1)
    return values[:n_samples].flatten(1) if len(values) >= n_samples else None  # the rest is padding


def _energy(rows):
    return torch.linalg.vector_norm(rows, dim=1).square()
