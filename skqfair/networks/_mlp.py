"""A multilayer perceptron."""

import numbers

import numpy as np
from torch import nn

__all__ = ["MLP", "check_dropout", "check_sizes", "check_widths"]


def check_sizes(module, **sizes):
    """Raise if a size that is found at fit is missing or is not a positive integer."""
    for name, size in sizes.items():
        if not _counts(size):
            raise ValueError(
                f"{type(module).__name__} needs {name}, a positive integer, got {size!r}; "
                f"make_classifier() finds it at fit, elsewhere pass it (in a net as module__{name})."
            )


def _counts(size):
    """Whether a size is a positive integer."""
    return isinstance(size, numbers.Integral) and not isinstance(size, (bool, np.bool_)) and size >= 1


def check_widths(module, name, widths, least=0):
    """Raise if a parameter is no sequence of positive integers."""
    fits = isinstance(widths, (list, tuple, np.ndarray)) and len(widths) >= least
    if not fits or not all(map(_counts, widths)):
        raise ValueError(
            f"{type(module).__name__}: {name} must be a sequence of positive integers, e.g. (16, 32); "
            f"got {widths!r}."
        )


def check_dropout(module, dropout):
    """Raise if a dropout of a module is no share."""
    if isinstance(dropout, bool) or not isinstance(dropout, numbers.Real) or not 0 <= dropout <= 1:
        raise ValueError(
            f"{type(module).__name__}: dropout must be a share between 0 and 1; got {dropout!r}."
        )


class MLP(nn.Sequential):
    """Multilayer perceptron: linear layers with an activation between them; returns logits.

    Parameters
    ----------
    n_features : int
        Number of input features; inputs of a higher rank are flattened first.
    n_classes : int
        Number of logits.
    hidden_sizes : tuple of int, default=(128, 64)
        Units of the hidden layers; () is a linear model.
    activation : type of torch.nn.Module, default=torch.nn.ReLU
        Between the layers.
    batch_norm : bool, default=False
        BatchNorm before each activation.
    dropout : float, default=0.0
        Dropout after each activation.

    Raises
    ------
    ValueError
        If a size is missing or not a positive integer.

    Examples
    --------
    >>> from skqfair.networks import MLP
    >>> MLP(n_features=4, n_classes=3, hidden_sizes=(8,))
    MLP(
      (flatten): Flatten(start_dim=1, end_dim=-1)
      (hidden0): Linear(in_features=4, out_features=8, bias=True)
      (activation0): ReLU()
      (output): Linear(in_features=8, out_features=3, bias=True)
    )
    """

    def __init__(
        self,
        n_features=None,
        n_classes=None,
        *,
        hidden_sizes=(128, 64),
        activation=nn.ReLU,
        batch_norm=False,
        dropout=0.0,
    ):
        super().__init__()
        check_sizes(self, n_features=n_features, n_classes=n_classes)
        check_widths(self, "hidden_sizes", hidden_sizes)
        check_dropout(self, dropout)
        self.add_module("flatten", nn.Flatten())
        width = n_features
        for i, units in enumerate(hidden_sizes):
            self.add_module(f"hidden{i}", nn.Linear(width, units))
            if batch_norm:
                self.add_module(f"norm{i}", nn.BatchNorm1d(units))
            self.add_module(f"activation{i}", activation())
            if dropout:
                self.add_module(f"dropout{i}", nn.Dropout(dropout))
            width = units
        self.add_module("output", nn.Linear(width, n_classes))
