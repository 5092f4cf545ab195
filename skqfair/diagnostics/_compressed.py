"""Models that something else compressed, beside the float net: what they predict, and their weights."""

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skqfair._losses import log_probabilities
from skqfair._validation import positions
from skqfair.diagnostics._layers import decibels

__all__ = ["Predictor", "find_compressed", "with_compressed"]

_NO_WEIGHTS = "its classifier has no read_weights(): there is nothing to compare."
_ABSENT = "the compressed model stores no weight of this name and shape."
_OTHER = (
    "the weight of this name differs by more than its size, so that it is another one; exporters fold "
    "BatchNorm into weights."
)


class Predictor:
    """A classifier that predicts and shows nothing more: its logits can be looked at.

    Parameters
    ----------
    name : int or str
        Its bits, or what the user calls it.
    classifier : fitted classifier
        With ``predict``, and ``predict_proba`` where it has probabilities.
    classes : ndarray or None, default=None
        The labels in whose order columns are wanted; None takes its own.
    """

    def __init__(self, name, classifier, classes=None):
        self.name, self.classifier, self.classes = name, classifier, classes

    def logits(self, X):
        """Return logits, shape (n, C), less a constant of each row; NaN where there are labels alone."""
        X = self._named(X)
        if not hasattr(self.classifier, "predict_proba"):
            return np.full((len(X), len(self.classes)), np.nan)
        logits = log_probabilities(self.classifier.predict_proba(X))
        if self.classes is None:
            return logits
        own = np.asarray(self.classifier.classes_)
        _check_labels(self.name, own, self.classes)
        columns = positions(self.classes, own)
        return logits[:, columns]

    def predicted(self, X):
        """Return positions of the predicted labels, shape (n,)."""
        labels = np.asarray(self.classifier.predict(self._named(X)))
        if len(unknown := np.setdiff1d(labels, self.classes)):
            raise ValueError(
                f"compressed[{self.name!r}] predicts {unknown[:5].tolist()}, which are not among the "
                f"classes of the float model, {self.classes.tolist()}; pass classes=[...] to it."
            )
        return positions(labels, self.classes)

    def of(self, X, given):
        """Return logits and predicted positions; a pipeline takes what was given."""
        X = given if isinstance(self.classifier, Pipeline) else X
        return self.logits(X), self.predicted(X)

    def input(self, X):
        """Return samples as the model takes them."""
        return X

    def _named(self, X):
        names = getattr(self.classifier, "feature_names_in_", None)
        named = names is None or hasattr(X, "columns")
        return X if named else pd.DataFrame(X, columns=names)


def _check_labels(name, own, classes):
    if set(own.tolist()) != set(np.asarray(classes).tolist()):
        raise ValueError(
            f"compressed[{name!r}] has the classes {own.tolist()[:10]}, the float model "
            f"{np.asarray(classes).tolist()[:10]}; pass classes=[...] to it, in the order of outputs."
        )


def find_compressed(compressed, classes, taken):
    """Return the models of ``compressed=`` as predictors.

    Parameters
    ----------
    compressed : dict or None
        Name to fitted classifier.
    classes : ndarray
        Labels of the float model.
    taken : list
        Names of the versions that are there already.

    Returns
    -------
    list of Predictor
    """
    found = []
    for name, classifier in (compressed or {}).items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"compressed must have strings as keys, names of models; got {name!r}.")
        if name in taken:
            raise ValueError(f"compressed has the name {name!r}, which a version here has; rename it.")
        if not hasattr(classifier, "predict") or isinstance(classifier, type):
            raise TypeError(
                f"compressed[{name!r}] must be a fitted classifier, got {type(classifier).__name__}; a "
                "torch module is TorchClassifier(module), an ONNX file OnnxClassifier(path)."
            )
        check_is_fitted(classifier)
        found.append(Predictor(name, classifier, classes))
    return found


def with_compressed(table, predictors, original):
    """Return the table of layers with rows for compressed models.

    Parameters
    ----------
    table : DataFrame
        Of the versions made here.
    predictors : list of Predictor
        The compressed models.
    original : dict of str to ndarray
        Weights of the float model, by name.

    Returns
    -------
    DataFrame
        Index (bits, layer); ``saturation`` is not known of others' codes. ``.attrs["reasons"]``: name,
        or (name, layer), to why figures are NaN.
    """
    rows, index, reasons = [], [], {}
    for predictor in predictors:
        classifier = predictor.classifier
        last = classifier[-1] if isinstance(classifier, Pipeline) else classifier
        if not hasattr(last, "read_weights"):
            reasons[predictor.name] = _NO_WEIGHTS
            stored = None
        else:
            stored = last.read_weights()
        for layer, weight in original.items():
            row, reason = _row(weight, stored and stored.get(layer))
            if stored is not None and reason:
                reasons[predictor.name, layer] = reason
            index.append((predictor.name, layer))
            rows.append(row)
    if rows:
        index = pd.MultiIndex.from_tuples(index, names=table.index.names)
        added = pd.DataFrame(rows, index=index, columns=table.columns)
        table = pd.concat([table, added]) if len(table) else added
    table.attrs["reasons"] = reasons
    return table


def _row(original, stored):
    row = {"n_weights": original.size, "sparsity": np.nan, "sqnr_db": np.nan, "saturation": np.nan}
    if stored is None:
        return row, _ABSENT
    # graphs may hold the weights of products transposed
    fitting = [each for each in (stored, stored.T) if each.shape == original.shape]
    if not fitting:
        return row, _ABSENT
    signal = np.square(original).sum()
    noise = min(np.square(original - each).sum() for each in fitting)
    if noise >= signal:
        return row, _OTHER
    sqnr = float(decibels(signal, noise))
    return {**row, "sparsity": float((stored == 0).mean()), "sqnr_db": sqnr}, None
