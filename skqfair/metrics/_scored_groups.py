"""Where a scorer finds the groups of a fold: columns of X, a Series by index, routed metadata."""

import copy
import warnings

import numpy as np
import pandas as pd
import sklearn
from sklearn.utils.metadata_routing import MetadataRequest

from skqfair._groups import encode_groups, is_names, named_columns
from skqfair._items import is_dataset
from skqfair._warnings import warn
from skqfair.exceptions import EmptyGroupWarning

__all__ = ["NOT_ROUTED", "GroupLookup", "Requests", "check_routing"]

NOT_ROUTED = (
    "sensitive_features did not reach the scorer; pass them to the fit of the search, "
    "search.fit(X, y, sensitive_features=...), or to cross_validate as params."
)


def check_routing(scorer):
    """Raise if groups are to be routed while metadata routing is disabled."""
    if not sklearn.get_config()["enable_metadata_routing"]:
        raise RuntimeError(
            f"{scorer}: sensitive_features is None, so they would be routed as metadata, "
            "but metadata routing is disabled and they would never arrive. Either name the "
            "column(s) of X, pass an index-aligned Series, or call "
            "sklearn.set_config(enable_metadata_routing=True) first."
        )


class Requests:
    """A scorer that says which metadata it wants, as scikit-learn's own do."""

    def set_score_request(self, **requests):
        """Request metadata by name, e.g. ``sample_weight=True``, from scikit-learn's routing."""
        if not sklearn.get_config()["enable_metadata_routing"]:
            raise RuntimeError(
                "set_score_request needs sklearn.set_config(enable_metadata_routing=True)."
            )
        self._request = self.get_metadata_routing()
        for name, alias in requests.items():
            self._request.score.add_request(param=name, alias=alias)
        return self

    def get_metadata_routing(self):
        """Return the requests, for scikit-learn's routing."""
        if not hasattr(self, "_request"):
            return MetadataRequest(owner=type(self).__name__)
        return copy.deepcopy(self._request)

    _get_metadata_request = get_metadata_routing  # what scikit-learn 1.6 asks


class GroupLookup:
    """The groups of the rows of X.

    Parameters
    ----------
    sensitive_features : str, list of str, Series or frame
        Column names of X, or groups by index.

    Attributes
    ----------
    names : str, list of str or None
        The column names, if these were given.
    """

    def __init__(self, sensitive_features):
        self.features = sensitive_features
        self.names = sensitive_features if is_names(sensitive_features) else None
        if isinstance(sensitive_features, (pd.Series, pd.DataFrame)):
            if not sensitive_features.index.is_unique:
                raise ValueError(
                    "sensitive_features must have a unique index, so that each sample of a fold has "
                    "one group; use reset_index(drop=True) on it and on X before the split."
                )
        elif self.names is None:
            raise ValueError(
                "sensitive_features must be a column name, a list of names, a pandas Series or "
                f"frame, or None; got {type(sensitive_features).__module__}."
                f"{type(sensitive_features).__qualname__}. Without an index it cannot be matched to the "
                "rows of a fold: name columns of X, or use pd.Series(values, index=X.index)."
            )

    def __repr__(self):
        features = self.features
        if isinstance(features, pd.Series):
            features = features.name or "Series"
        elif isinstance(features, pd.DataFrame):
            features = list(features.columns)
        return repr(features)

    def __call__(self, X, name="X", *, warn=True):
        """Return the groups of the rows of X; a group that has none of them warns."""
        if self.names is not None:
            return named_columns(X, self.names)
        index = self._numbers(X) if is_dataset(X) else getattr(X, "index", None)
        if not isinstance(index, pd.Index):
            raise ValueError(
                f"sensitive_features is a Series, so {name} must be a pandas "
                f"{'frame' if name == 'X' else 'Series'} with the same index; got "
                f"{'polars.' * type(X).__module__.startswith('polars')}{type(X).__name__}. "
                "Pass it as one; for images and other arrays route the groups as metadata: "
                "sklearn.set_config(enable_metadata_routing=True)."
            )
        missing = ~index.isin(self.features.index)
        if missing.any():
            raise ValueError(
                f"sensitive_features has no entry for {int(missing.sum())} of {len(index)} rows of "
                f"{name}, e.g. index {index[missing][0]!r}; its index must cover that of {name}."
            )
        fold = self.features.loc[index]
        if warn:
            _warn_absent(self.features, fold)
        return fold

    def _numbers(self, X):
        """Return the numbers of the items of a Dataset, by which the groups must be indexed too."""
        whole = getattr(X, "dataset", X)  # of a slice
        numbers = pd.RangeIndex(len(whole))
        if not self.features.index.equals(numbers):
            raise ValueError(
                f"X is of a Dataset of {len(whole)} items, so sensitive_features must have their "
                f"numbers as its index, 0 to {len(whole) - 1} in this order; got "
                f"{self.features.index[:3].tolist()} at its beginning, {len(self.features)} in all. "
                "With one entry for each item in their order, use reset_index(drop=True)."
            )
        return numbers if whole is X else pd.Index(X.indices_)


def _warn_absent(features, fold):
    """Warn of groups that the whole Series has and this fold has not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyGroupWarning)
        whole, part = (encode_groups(f, len(f)) for f in (features, fold))
    absent = whole.index.difference(part.index)
    categorical = any(isinstance(t, pd.CategoricalDtype) for t in np.atleast_1d(_dtypes(features)))
    if len(absent) and not categorical:  # of categories the metric itself warns
        warn(
            f"sensitive_features: no sample of the group(s) {', '.join(map(str, absent))} in this "
            "fold; they have no accuracy and are left out. Larger or stratified folds keep them.",
            EmptyGroupWarning,
        )


def _dtypes(features):
    return list(features.dtypes) if isinstance(features, pd.DataFrame) else [features.dtype]
