"""A scikit-learn classifier that runs an exported model."""

import math
from pathlib import PurePath

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator
from sklearn.utils.metaestimators import available_if

from skqfair._labelled import ScoresItems
from skqfair._losses import log_probabilities
from skqfair._rows import cast_rows, validate_rows
from skqfair._validation import check_sample_shape
from skqfair.export._loading import Loaded
from skqfair.export._session import run
from skqfair.export._stored_weights import stored_weights

__all__ = ["OnnxClassifier"]

_NUMBERS = 2**18  # of a batch: 85 images of 3 x 32 x 32


def _gives_scores(classifier):
    """Tell whether there are probabilities, or raise an error that says why not."""
    foreign = classifier._model.foreign
    if foreign is not None and foreign.only_labels:
        raise AttributeError(
            f"the output {foreign.chosen.name!r} of the model holds labels alone: there are neither "
            "probabilities nor logits."
        )
    return True


class OnnxClassifier(ScoresItems, BaseEstimator):
    """Run an ONNX file as a scikit-learn classifier: one of :func:`to_onnx`, or of any other origin.

    It is fitted as it is made: scorers, ``MetricFrame``, displays and pipelines take it like the
    estimator that it comes from. Torch takes no part in its predictions. Files of :func:`to_onnx` say
    themselves what they hold. Of others, e.g. of ``onnxruntime.quantization``, ``torch.onnx.export``
    or skl2onnx, it is found out: labels and probabilities (maps too), logits of all classes, one
    logit, one probability, labels alone.

    Parameters
    ----------
    path : str, path or bytes
        The file, or its content. A file is read once, when it is first needed.
    classes : array-like of shape (C,), default=None
        Labels in the order of the outputs, for files of other origin; None takes those that the file
        names, as skl2onnx's do, else 0 to C - 1.
    output : str or (str, str), default=None
        Name of the output to take, for files of other origin; None takes the only one, or the scores
        beside labels. With a second string, what it holds: "logits", "logit", "probabilities",
        "probability" or "labels", where that cannot be found out.
    batch_size : int or None, default=None
        Samples computed at a time; None takes 256, or fewer where samples are large. Rows of
        two-dimensional input travel in batches of this size, the last one padded, so that a row's
        prediction does not depend on the rows beside it. Where the rows of a module see each other, the
        batches are those of the estimator.
    n_threads : int or None, default=None
        Threads of each operation; None lets onnxruntime take one for each core.

    Attributes
    ----------
    classes_ : ndarray of shape (C,)
        Class labels.
    n_features_in_ : int
        Features of a sample: the first number of its shape. Over all inputs, where there are several.
    feature_names_in_ : ndarray of str
        Column names, where the estimator had names.
    metadata_ : Metadata
        What a file of :func:`to_onnx` says about itself: ``version``, ``layer_bits``,
        ``activation_bits``, ``report`` and more.
    layer_bits_ : dict of str to (int or ndarray of int)
        Bits of every weight, by parameter name; 32 where it stays in float. Of files of
        :func:`to_onnx`.
    model_size_ : int
        Bytes of the file.

    Raises
    ------
    FileNotFoundError
        At first use, if there is no such file.
    ValueError
        At first use, if it is truncated, damaged, no ONNX model, has custom operators, lacks the output
        or has several that could be meant (the message lists them).

    See Also
    --------
    parity_report : Compare it with the estimator, by group.

    Notes
    -----
    Pickles and files of skops carry the content of the file, so that they are the same model wherever
    they go; a path in them is text.

    Several inputs take a frame or a dict with their names, or an array with the columns of all in their
    order. A file for a fixed number of rows gets batches of that number, the last one filled up. Inputs
    of float16 and integers are cast, and an error says where that would change a value.

    Examples
    --------
    >>> import os, tempfile
    >>> from sklearn.datasets import load_iris
    >>> from skqfair import QuantizedClassifier
    >>> from skqfair.export import OnnxClassifier, to_onnx
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = QuantizedClassifier(weight_bits=4, random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = to_onnx(clf, os.path.join(folder, "iris.onnx"))
    ...     deployed = OnnxClassifier(path).fit(X, y)
    >>> deployed.predict(X[:3])
    array([0, 0, 0])
    >>> deployed.metadata_.layer_bits
    {'hidden0.weight': 4, 'hidden1.weight': 4, 'output.weight': 4}
    """

    def __init__(self, path, *, classes=None, output=None, batch_size=None, n_threads=None):
        self.path = path
        self.classes = classes
        self.output = output
        self.batch_size = batch_size
        self.n_threads = n_threads

    def fit(self, X=None, y=None):
        """Load the file; nothing is trained.

        Parameters
        ----------
        X, y : ignored
            There for scikit-learn.

        Returns
        -------
        self
        """
        self._model  # noqa: B018 - loads it
        return self

    def predict(self, X):
        """Predict labels.

        Parameters
        ----------
        X : array-like of shape (n, ...), frame or dict of arrays
            Samples, shaped as in the fit of the estimator.

        Returns
        -------
        ndarray of shape (n,)
            Labels out of ``classes_``.
        """
        foreign = self._model.foreign
        if foreign is not None and foreign.only_labels:
            return foreign.predicted(X, self._checked_batch_size())
        predicted = self._logits(X).argmax(1)  # after which all classes are known
        return self.classes_[predicted]

    @available_if(_gives_scores)
    def predict_proba(self, X):
        """Predict probabilities.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Samples, shaped as in the fit of the estimator.

        Returns
        -------
        ndarray of float64, shape (n, C)
            Columns in the order of ``classes_``; rows sum to 1.
        """
        return softmax(self._logits(X), axis=1)

    @available_if(_gives_scores)
    def decision_function(self, X):
        """Return logits.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Samples, shaped as in the fit of the estimator.

        Returns
        -------
        ndarray of float64
            Shape (n, C), in the order of ``classes_``; for two classes shape (n,), the difference of
            the two, positive for ``classes_[1]``.
        """
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def read_weights(self):
        """Return the weights of the layers, in float whatever they are stored as.

        Returns
        -------
        dict of str to ndarray of float64
            Initializers of two or more dimensions by name, less what quantizers add to names; codes are
            dequantized.
        """
        return stored_weights(self._model.content)

    @property
    def classes_(self):
        foreign = self._model.foreign
        if foreign is None:
            return self.metadata_.classes
        if foreign.classes is None:
            raise AttributeError(
                f"classes_: the file does not say how many classes the output {foreign.chosen.name!r} "
                "has; predict first, or pass classes=[...]."
            )
        return foreign.classes

    @property
    def metadata_(self):
        if self._model.metadata is None:
            raise AttributeError("the file was not written by skqfair: it has no metadata of it.")
        return self._model.metadata

    @property
    def n_features_in_(self):
        foreign = self._model.foreign
        if foreign is None:
            return self.metadata_.input_shape[0]
        if foreign.n_features is None:
            raise AttributeError("n_features_in_: the file takes any number of features.")
        return foreign.n_features

    @property
    def feature_names_in_(self):
        names = self.metadata_.feature_names
        if names is None:
            raise AttributeError("feature_names_in_: the estimator was fitted without feature names.")
        return np.array(names, dtype=object)

    @property
    def layer_bits_(self):
        bits = self.metadata_.layer_bits
        return {name: np.array(b) if isinstance(b, list) else b for name, b in bits.items()}

    @property
    def model_size_(self):
        return len(self._model.content)

    @property
    def _model(self):
        """The loaded model; loaded again where a parameter has been set since."""
        loaded = self.__dict__.get("_loaded")
        options = self.path, self.n_threads, self.classes, self.output
        if loaded is None or not loaded.is_of(*options):
            if self.n_threads is not None:
                _check_count(self.n_threads, "n_threads")
            loaded = self._loaded = Loaded(*options)
        return loaded

    def _logits(self, X):
        """Return logits in float64, shape (n, C)."""
        if self._model.foreign is not None:
            return self._model.foreign.logits(X, self._checked_batch_size())
        metadata = self.metadata_
        X = validate_rows(self, X, reset=False)
        check_sample_shape(X, metadata.input_shape, "the model was exported for")
        whole = metadata.input_dtype.startswith("int")
        X = cast_rows(X, np.dtype(np.int64 if whole else np.float32))
        together = metadata.batch_size is not None  # no row may be added to a batch
        size = metadata.batch_size if together else self._size_of_batches(metadata.input_shape)
        parts = []
        for start in range(0, len(X), size):
            batch = X[start : start + size]
            missing = size - len(batch) if X.ndim == 2 and not together else 0
            padded = np.concatenate([batch, np.repeat(batch[-1:], missing, 0)]) if missing else batch
            parts.append(run(self._model.session, padded)[: len(batch)])
        outputs = np.concatenate(parts)
        return outputs if metadata.returns_logits else log_probabilities(outputs)

    def __getstate__(self):
        content = self._model.content
        state = {**super().__getstate__(), "_loaded": content}
        if isinstance(self.path, PurePath):
            state["path"] = str(self.path)
        return state

    def __setstate__(self, state):
        attributes = dict(state)
        content = attributes.pop("_loaded")
        super().__setstate__(attributes)
        options = self.path, self.n_threads, self.classes, self.output
        self._loaded = Loaded(*options, content=content)

    def _size_of_batches(self, shape):
        size = self._checked_batch_size()
        return size or max(1, min(256, _NUMBERS // max(1, math.prod(shape))))

    def _checked_batch_size(self):
        return None if self.batch_size is None else _check_count(self.batch_size, "batch_size")

    def __sklearn_is_fitted__(self):
        return True


def _check_count(value, name):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} must be a positive integer; got {value!r}.")
    return int(value)
