"""Labels that come with the items of a Dataset, where no y is passed."""

from sklearn.base import ClassifierMixin

from skqfair._items import is_dataset
from skqfair._rows import rows_of

__all__ = ["ScoresItems", "labels_of"]


class ScoresItems(ClassifierMixin):
    """A classifier whose score takes the labels of a Dataset from its items."""

    def score(self, X, y=None, sample_weight=None):
        """Return the accuracy.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Samples, shaped as in fit.
        y : array-like of shape (n,), optional
            Labels; None for a Dataset whose items are (x, label).
        sample_weight : array-like of shape (n,), optional
            Weights.

        Returns
        -------
        float
            Share of correct predictions.
        """
        return super().score(X, labels_of(X, y), sample_weight)


def labels_of(X, y):
    """Return y, or if it is None the labels of the items of a Dataset, all of which are read."""
    if y is not None:
        return y
    rows = rows_of(X) if is_dataset(X) else None
    if rows is None or not rows.is_labelled:
        raise ValueError(
            "y is None, so that the labels must come with X, from the items (x, label) of a Dataset; "
            f"got {type(X).__name__} without labels. Pass y."
        )
    rows.keep_labels()
    for _ in rows.chunks():
        pass
    return rows.labels()
