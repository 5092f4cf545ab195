"""Validation data that the user gave beside X and y, with labels as the net is trained on."""

import functools

import numpy as np
import torch
from skorch.dataset import Dataset
from skorch.helper import predefined_split
from torch.utils.data import TensorDataset

__all__ = ["with_positions"]

_SPLIT = predefined_split(None).func


def with_positions(train_split, classes):
    """Return a ``train_split`` whose validation data have positions in the classes as labels.

    Parameters
    ----------
    train_split : callable or None
        Of the net. One of ``skorch.helper.predefined_split`` holds data; those in a skorch Dataset or a
        TensorDataset are encoded, others are left as they are.
    classes : ndarray of shape (C,)
        Labels.

    Raises
    ------
    ValueError
        If the data have labels that are neither classes nor all positions.
    """
    is_split = isinstance(train_split, functools.partial) and train_split.func is _SPLIT
    data = train_split.keywords.get("valid_ds") if is_split else None
    if type(data) is Dataset and data.y is not None:
        labels = np.asarray(data.y)
    elif type(data) is TensorDataset:
        labels = data.tensors[-1].cpu().numpy()
    else:
        return train_split
    positions = {label: i for i, label in enumerate(classes.tolist())}
    if all(type(label) is int and label == i for label, i in positions.items()):
        return train_split
    found = set(labels.tolist())
    if not found <= positions.keys():
        if found <= set(range(len(classes))):
            return train_split  # they are positions
        raise ValueError(
            f"the validation data of predefined_split have labels {sorted(found, key=str)[:5]} that y "
            f"lacks; its classes are {classes.tolist()[:10]}."
        )
    encoded = np.array([positions[label] for label in labels.tolist()])
    if type(data) is Dataset:
        return predefined_split(Dataset(data.X, encoded, length=len(data)))
    return predefined_split(TensorDataset(*data.tensors[:-1], torch.as_tensor(encoded)))
