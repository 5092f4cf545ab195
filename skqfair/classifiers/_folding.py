"""Offsets of the classes inside a network: in the bias of its last layer."""

import copy

import numpy as np
import torch
from scipy.special import log_softmax
from torch import nn

from skqfair._copies import deep_copy
from skqfair.networks import Network
from skqfair.quantization import float_size

__all__ = ["fold_offsets"]

_CHECKED_ROWS, _NEAR = 64, 1e-4


def fold_offsets(clf, offsets, X):
    """Return a fitted classifier with the offsets in its last bias, and whether that had none before.

    Parameters
    ----------
    clf : NetworkClassifier
        Fitted; shared except for its module.
    offsets : ndarray of shape (C,)
        Offsets of the logits.
    X : array-like
        Samples, a few of which it is checked on.

    Returns
    -------
    NetworkClassifier or None
        None where its predictions are not those of a last linear layer.
    """
    network = Network.of_trained(clf.estimator_)
    if network.has_own_probabilities or network.overrides("predict"):
        return None
    module = deep_copy(clf.module_)
    kinds = {nn.Linear: "out_features", nn.Conv1d: "out_channels", nn.Conv2d: "out_channels"}
    wide = [m for m in module.modules() if getattr(m, kinds.get(type(m), ""), None) == len(offsets)]
    if not wide:
        return None
    shift = torch.as_tensor(offsets).to(wide[-1].weight)
    added = wide[-1].bias is None
    bias = shift if added else wide[-1].bias.detach() + shift
    wide[-1].bias = nn.Parameter(bias, requires_grad=wide[-1].weight.requires_grad)
    folded = copy.copy(clf)
    folded.module_ = module.eval()
    folded.model_size_ = clf.model_size_ + (4 * len(offsets) if added else 0)
    folded.compression_ratio_ = float_size(module) / folded.model_size_
    _, X = clf._prediction_input(X)
    X = X[:_CHECKED_ROWS]
    wanted = log_softmax(clf._logits(network, X) + offsets, axis=1)
    found = log_softmax(folded._logits(network, X), axis=1)
    return folded if np.abs(np.exp(wanted) - np.exp(found)).max() < _NEAR else None
