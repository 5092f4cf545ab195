"""From layers to logits: one forward pass of all versions side by side."""

import numpy as np
import torch

from skqfair._warnings import warn
from skqfair.diagnostics._layers import decibels
from skqfair.diagnostics._sample_rows import output_of, sample_rows
from skqfair.exceptions import UnclearSamplesWarning
from skqfair.quantization import input_quantizers

__all__ = ["forward_pass", "logit_features", "sample_losses"]

_PROBED = 16  # samples, of which one at a time is changed


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
    p = _below_largest(z).exp_()
    p /= p.sum(1, keepdim=True)
    first, winner = p.max(1)
    second = p.scatter(1, winner[:, None], -1.0).amax(1)
    centred = z - z.mean(1, keepdim=True)
    features = {
        "logit_variance": torch.linalg.vecdot(centred, centred) / z.shape[1],
        "margin": first - second,
        "boundary_closeness": 1 - torch.linalg.vecdot(p, p),
        "confidence": first,
    }
    return {name: values.numpy() for name, values in features.items()}


def sample_losses(logits, y):
    """Return the cross-entropy of each sample, shape (n,)."""
    z = _below_largest(torch.from_numpy(logits))
    own = z.gather(1, torch.from_numpy(y)[:, None])[:, 0]
    return (z.exp_().sum(1).log_() - own).numpy()


def _below_largest(z):
    """Return logits less the largest: torch's own softmax of few doubles in a row is 4 times slower."""
    return z - z.amax(1, keepdim=True)


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
    size = versions[0].rows_at_once(X)
    logits = {}
    streams = {version.name: version.each_logits(X, size) for version in versions}
    with _Recorders(versions, layers, X[:size]) as recorders:
        for start in range(0, len(X), size):
            n = min(size, len(X) - start)
            for name, stream in streams.items():
                recorders[name].begin(n, versions[0].classifier._block or n)
                part = next(stream)
                if name not in logits:  # kept parts would leave holes in memory between the batches
                    logits[name] = np.empty((len(X), *part.shape[1:]))
                logits[name][start : start + n] = part
            for recorder in recorders.values():
                recorder.end(groups.codes[start : start + n], len(groups.index))
    recorders.warn_of_unclear()
    sqnr, clipping = {}, {}
    for version in versions:
        if version.origin is not None:
            for layer, module in layers.items():
                key = version.name, layer
                sqnr[key], clipping[key] = recorders[version.name].results(module, groups)
    return logits, sqnr, clipping


class _Recorders(dict):
    """A recorder for each version, attached inside a with block."""

    def __init__(self, versions, layers, X):
        wanted, first = set(layers.values()), versions[0]
        super().__init__()
        module = first.classifier.module_
        modules = {name: child for name, child in module.named_modules() if name in wanted}
        block = first.classifier._block
        X = X[np.arange(block or min(_PROBED, len(X))) % len(X)]
        self.rows = sample_rows(lambda X: list(first.each_logits(X, len(X))), modules, X)
        for v in versions:  # an origin comes before what was made from it
            self[v.name] = _Recorder(v.classifier.module_, wanted, self.get(v.origin), self.rows)

    def warn_of_unclear(self):
        """Warn of the layers of which nothing can be said by group."""
        unclear = [name for name, calls in self.rows.items() if None in calls]
        if unclear:
            warn(
                f"the outputs of {', '.join(unclear)} cannot be told apart by sample: rows depend on "
                "several samples, or their number on the samples. Their activation_sqnr_db and "
                "clipping_rate are NaN.",
                UnclearSamplesWarning,
            )

    def __enter__(self):
        for recorder in self.values():
            recorder.attach()
        return self

    def __exit__(self, *error):
        for recorder in self.values():
            recorder.detach()


class _Recorder:
    """Norms of what each sample makes of the outputs of layers, or of their errors against an origin.

    Copies of an origin's outputs are kept for a batch, because the next layer may change them in place.
    """

    def __init__(self, module, wanted, origin, rows):
        self.origin, self.rows = origin, rows
        self.modules = {name: child for name, child in module.named_modules() if name in wanted}
        self.quantizers = input_quantizers(module)
        self.kept, self.clipped, self.handles = {}, {}, []
        self.begin(0, 0)

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
        self.begin(0, 0)

    def begin(self, n_samples, batch):
        """Forget what was kept, before a batch of so many samples, filled up to ``batch`` rows."""
        self.n, self.batch = n_samples, batch
        self.outputs, self.norms, self.beyond = {}, {}, {}

    def _keep(self, name):
        def hook(module, args, output):
            norms = self.norms.setdefault(name, [])
            rows = self._rows(output_of(output), name, len(norms))
            if self.origin is None:
                self.outputs.setdefault(name, []).append(None if rows is None else rows.clone())
                norms.append(None if rows is None else _norm(rows))
                return
            clean = self.origin.outputs.get(name, ())[len(norms) : len(norms) + 1]
            same = rows is not None and clean and clean[0] is not None and clean[0].shape == rows.shape
            norms.append(_norm(clean[0] - rows) if same else None)

        return hook

    def _rows(self, values, name, call):
        """Return the values of each sample, one row each; None if that is unclear."""
        calls = self.rows.get(name, ())
        arrangement = calls[call] if call < len(calls) else None
        if arrangement is None or values is None:
            return None
        rows = arrangement.split(values, self.batch)
        return rows if rows is None else rows[: self.n]

    def _count_clipped(self, name):
        quantizer = self.quantizers[name]

        def hook(module, args, kwargs):
            calls = self.beyond.setdefault(name, [])
            rows = self._rows(output_of(args[0] if args else kwargs.get("input")), name, len(calls))
            if rows is None:
                calls.append(None)
            else:
                ratio = rows / quantizer.scale.to(rows)
                # negatives are out of an unsigned range however small they are
                low = quantizer.low - 0.5 if quantizer.low else 0.0
                beyond = ((ratio > quantizer.high + 0.5) | (ratio < low)).sum(1)
                found = torch.stack([beyond, torch.full_like(beyond, ratio.shape[1])])
                calls.append(found)

        return hook

    def end(self, codes, n_groups):
        """Take in the signal and noise of the batch, and what was clipped; calls of a layer add up."""
        for name, noise in self.norms.items() if self.origin else ():
            signal = self.origin.norms.get(name, ())
            if len(signal) == len(noise) and all(norm is not None for norm in (*signal, *noise)):
                found = _together(signal), _together(noise)
                self.kept.setdefault(name, _Sums(n_groups, power=2)).add(found, codes)
        for name, calls in self.beyond.items():
            if any(call is None for call in calls):
                continue
            self.clipped.setdefault(name, _Sums(n_groups)).add(sum(calls), codes)

    def results(self, name, groups):
        """Return the ratio of signal to noise in dB, and the share of clipped inputs, of each group."""
        nothing = _Sums(len(groups.index))
        signal, noise = self.kept.get(name, nothing).of_all(len(groups.codes))
        clipped, total = self.clipped.get(name, nothing).of_all(len(groups.codes))
        with np.errstate(invalid="ignore"):
            return decibels(signal, noise), clipped / total


class _Sums:
    """Sums of powers of two values of each sample, by group."""

    def __init__(self, n_groups, power=1):
        self.sums, self.power, self.n = np.zeros((2, n_groups)), power, 0

    def add(self, values, codes):
        """Add the two values of each sample of a batch; of another number of samples they are lost."""
        for total, column in zip(self.sums, values, strict=True):
            column = column.double().cpu().numpy() ** self.power
            if len(column) != len(codes):
                return
            total += np.bincount(codes, weights=column, minlength=len(total))
        self.n += len(codes)

    def of_all(self, n_samples):
        """Return both sums; NaN where they are not those of so many samples."""
        return self.sums if self.n == n_samples else np.full_like(self.sums, np.nan)


def _norm(rows):
    return torch.linalg.vector_norm(rows, dim=1)


def _together(norms):
    return norms[0] if len(norms) == 1 else _norm(torch.stack(norms, 1))
