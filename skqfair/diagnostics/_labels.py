"""Labels and groups of the samples of an audit, checked."""

import numpy as np
import pandas as pd

from skqfair._groups import Groups, encode_groups
from skqfair._validation import positions

__all__ = ["encode", "label_positions"]


def encode(sensitive_features, n_samples):
    """Return the groups, with one name each, and at least two samples in each."""
    if sensitive_features is None:
        groups = Groups.of_all(n_samples)
    else:
        groups = encode_groups(sensitive_features, n_samples)
    index = groups.index
    if isinstance(index, pd.MultiIndex):
        joined = pd.Index([", ".join(map(str, name)) for name in index])
        index = joined if joined.is_unique else pd.Index(list(map(str, index)))
    single = [name for name, n in zip(index, groups.counts, strict=True) if n < 2]
    if single:
        raise ValueError(
            f"sensitive_features: groups of 1 sample: {single[:5]}; at least 2 are needed in each, and "
            "64 to say much. Merge or drop them."
        )
    return Groups(groups.codes, index)


def label_positions(y, classes):
    """Return y as positions in the classes."""
    unknown = np.setdiff1d(y, classes)
    if len(unknown) == len(np.unique(y)):
        raise ValueError(
            f"y has none of the labels that the estimator was trained on: {unknown[:5].tolist()}; pass "
            f"y as its classes_, {classes.tolist()}."
        )
    if len(unknown):
        raise ValueError(
            f"y has labels that the estimator was not trained on: {unknown[:5].tolist()}; its classes "
            f"are {classes.tolist()}. Drop these samples."
        )
    return positions(y, classes)
