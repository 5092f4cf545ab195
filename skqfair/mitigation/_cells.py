"""The cells that are balanced: groups, classes, or groups within classes."""

import numpy as np
import pandas as pd

from skqfair._groups import Groups

__all__ = ["BALANCES", "make_cells"]

BALANCES = ("group", "group_class", "class")


def make_cells(balance: str, y: np.ndarray, classes: np.ndarray, groups: Groups | None = None) -> Groups:
    """Return the non-empty cells of a training set.

    Parameters
    ----------
    balance : {"group", "group_class", "class"}
        What the cells are.
    y : ndarray of int, shape (n,)
        Positions in ``classes``.
    classes : ndarray of shape (C,)
        Labels.
    groups : Groups or None
        Codes and names of the groups; without them "group" is one cell with all samples.

    Returns
    -------
    Groups
        Codes and names of the cells, in sorted order.
    """
    y = np.asarray(y, dtype=np.int64)
    by_class = pd.Index(classes, name="class")
    if balance == "class":
        return Groups(y, by_class).take(slice(None))
    if groups is None:
        return Groups.of_all(len(y))
    if balance == "group":
        return groups
    names = [
        (*(name if isinstance(name, tuple) else (name,)), label)
        for name in groups.index
        for label in by_class
    ]
    index = pd.MultiIndex.from_tuples(names, names=[*groups.index.names, "class"])
    return Groups(groups.codes * len(by_class) + y, index).take(slice(None))
