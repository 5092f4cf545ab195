"""From layers to logits: one forward pass of all versions side by side."""

import numpy as np
import torch
from scipy.special import log_softmax
from torch import nn

from skqfair.quantization import input_quantizers

__all__ = ["forward_pass", "logit_features"]


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
    p = np.exp(log_softmax(logits, axis=1))
    second, first = np.partition(p, -2, axis=1)[:, -2:].T
    return {
        "logit_variance": logits.var(axis=1),
        "margin": first - second,
        "boundary_closeness": 1 - np.square(p).sum(axis=1),
        "confidence": first,
    }


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
    with _Recorders(versions, layers) as recorders:
        for start in range(0, len(X), size):
            batch = X[start : start + size]
            codes = groups.codes[start : start + size]
            for version in versions:
                recorders[version.name].begin(len(batch))
                logits[version.name].append(version.logits(batch))
            for version in versions:
                if version.origin is not None:
                    recorders[version.name].compare(recorders[version.origin], codes, groups.counts)
    logits = {name: np.concatenate(parts) for name, parts in logits.items()}
    sqnr, clipping = {}, {}
    for version in versions:
        if version.origin is not None:
            for layer, module in layers.items():
                key = version.name, layer
                sqnr[key], clipping[key] = recorders[version.name].results(module, len(groups.index))
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
    """Keeps the outputs of the layers of one batch, and adds up by group what is made of them."""

    def __init__(self, module, wanted):
        self.modules = {name: child for name, child in module.named_modules() if name in wanted}
        self.quantizers = input_quantizers(module)
        self.energy, self.clipped = {}, {}
        self.n, self.outputs, self.handles = 0, {}, []

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
        self.outputs = {}

    def begin(self, n_samples):
        self.n, self.outputs, self.beyond = n_samples, {}, {}

    def _keep(self, name):
        def hook(module, args, output):
            output = output[0] if isinstance(output, tuple) else output
            rows = _by_sample(output, module, self.n)
            if rows is not None:
                self.outputs.setdefault(name, []).append(rows)

        return hook

    def _count_clipped(self, name):
        quantizer = self.quantizers[name]

        def hook(module, args, kwargs):
            values = args[0] if args else kwargs.get("input")
            rows = _by_sample(values, module, self.n)
            if rows is not None:
                ratio = rows / quantizer.scale.to(rows)
                # negatives are out of an unsigned range however small they are
                low = quantizer.low - 0.5 if quantizer.low else 0.0
                beyond = (ratio > quantizer.high + 0.5) | (ratio < low)
                self.beyond.setdefault(name, []).append((beyond.sum(1), ratio.shape[1]))

        return hook

    def compare(self, origin, codes, counts):
        """Add this batch's signal and noise, and what was clipped, to the sums of the groups."""
        n_groups = len(counts)
        for name, calls in self.outputs.items():
            clean = origin.outputs.get(name, ())
            if len(clean) != len(calls) or any(
                a.shape != b.shape for a, b in zip(clean, calls, strict=True)
            ):
                continue
            pairs = list(zip(clean, calls, strict=True))
            signal = sum(_energy(a) for a, _ in pairs)
            noise = sum(_energy(a - b) for a, b in pairs)
            self._add(self.energy, name, signal, noise, codes, n_groups)
        for name, calls in self.beyond.items():
            beyond = sum(count for count, _ in calls)
            total = torch.full_like(beyond, sum(width for _, width in calls))
            self._add(self.clipped, name, beyond, total, codes, n_groups)

    @staticmethod
    def _add(sums, name, first, second, codes, n_groups):
        sums.setdefault(name, np.zeros((2, n_groups)))
        for row, values in enumerate((first, second)):
            values = values.double().cpu().numpy()
            sums[name][row] += np.bincount(codes, weights=values, minlength=n_groups)

    def results(self, name, n_groups):
        nan = np.full((2, n_groups), np.nan)
        signal, noise = self.energy.get(name, nan)
        clipped, total = self.clipped.get(name, nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            return 10 * np.log10(signal / noise), clipped / total


def _energy(rows):
    return torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64).square()


def _by_sample(values, module, n_samples):
    """Return the values of the first ``n_samples`` samples, one row each; None if that is unclear."""
    if not isinstance(values, torch.Tensor) or not values.is_floating_point() or not values.ndim:
        return None
    values = values.detach()
    if isinstance(module, nn.RNNBase) and not module.batch_first and values.ndim == 3:
        values = values.transpose(0, 1)
    return values[:n_samples].flatten(1) if len(values) >= n_samples else None
