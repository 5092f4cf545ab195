"""What quantization does to the weights of each layer."""

import numpy as np
import pandas as pd
import torch

from skqfair.quantization import channel_shape, q_max, quantizable_weights

__all__ = ["decibels", "layer_modules", "layer_report", "weight_changes"]

_FLOAT32 = 1e-12  # 120 dB; 16 bits are about 95


def layer_modules(versions, module):
    """Return the names of all weights that can be or are quantized, with that of the module of each."""
    names = {name for version in versions for name in version.weights} | set(quantizable_weights(module))
    ordered = [name for name, _ in module.named_parameters() if name in names]
    return {name: name.rpartition(".")[0] for name in ordered}


def layer_report(versions, modules):
    """Return the table of layers: index (bits, layer); ``modules`` has each version's with its weights.

    Columns ``n_weights``; ``sparsity``, the share of codes that are 0; ``sqnr_db``, ten times the
    logarithm of the energy of the weights over that of their errors; ``saturation``, the share of
    weights beyond the largest code.
    """
    rows, index = [], []
    for version in versions:
        if version.origin is None:
            continue
        original = dict(modules[version.origin].named_parameters())
        for name, weight in version.weights.items():
            index.append((version.name, name))
            rows.append(_row(original[name].detach(), weight))
    index = pd.MultiIndex.from_tuples(index, names=["bits", "layer"])
    return pd.DataFrame(rows, index=index, columns=["n_weights", "sparsity", "sqnr_db", "saturation"])


def decibels(signal, noise):
    """Return the ratio of two powers in dB, infinite where the noise is float32's own rounding."""
    noise = np.where(noise <= _FLOAT32 * np.asarray(signal), 0.0, noise)
    with np.errstate(divide="ignore", invalid="ignore"):
        return 10 * np.log10(np.divide(signal, noise))


def _row(original, weight):
    original = original.double()
    error = original - weight.dequantize().to(original)
    limit = q_max(weight.bits if isinstance(weight.bits, int) else torch.as_tensor(weight.bits))
    if isinstance(limit, torch.Tensor):
        limit = limit.reshape(channel_shape(original, weight.axis)).to(original.device)
    ratio = (original / weight.spread_scale.to(original)).abs()
    signal, noise = float(original.square().sum()), float(error.square().sum())
    return {
        "n_weights": original.numel(),
        "sparsity": float((weight.codes == 0).double().mean()),
        "sqnr_db": float(decibels(signal, noise)),
        "saturation": float((ratio > limit + 0.5).double().mean()),
    }


def weight_changes(origin, module):
    """Return the change of every parameter, from one module to another, by name."""
    before = dict(origin.named_parameters())
    return {
        name: parameter.detach() - before[name].detach()
        for name, parameter in module.named_parameters()
        if parameter.is_floating_point()
    }
