"""Samples that are no arrays yet, and lists of items that cannot become one."""

from collections.abc import Mapping

import numpy as np
from sklearn.utils.validation import validate_data

__all__ = ["check_no_items", "validate_array"]


def validate_array(estimator, X, *y, reset):
    """Check X, and y, as scikit-learn does; samples of unequal length have an error of their own."""
    try:
        return validate_data(estimator, X, *y, reset=reset, dtype="numeric", allow_nd=True)
    except ValueError as error:
        if "setting an array element with a sequence" not in str(error):
            raise
        raise ValueError(
            "X has samples of unequal length or shape. Pad them to one length before, in X or in a "
            "Dataset, and pass what is padding as an input of its own: a dict of arrays."
        ) from error


def check_no_items(X):
    """Raise if X is a list of items of a Dataset, which scikit-learn makes of one that it slices."""
    first = X[0] if isinstance(X, list) and X else None
    if isinstance(first, Mapping) or (isinstance(first, tuple) and any(np.ndim(x) for x in first)):
        raise ValueError(
            "X is a list of items of a Dataset, as scikit-learn makes of a Dataset that it slices. Pass "
            "searches and cross-validation a skorch.helper.SliceDataset(dataset), with the labels as y."
        )
