"""A scikit-learn classifier that runs an exported model."""

import math
import os
from pathlib import Path

import numpy as np
import onnx
from onnx.external_data_helper import uses_external_data
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import validate_data

from skqfair._losses import log_probabilities
from skqfair._validation import cast, check_sample_shape
from skqfair.export._metadata import is_intact, read
from skqfair.export._session import open_session, run

__all__ = ["OnnxClassifier"]

_NUMBERS = 2**18  # of a batch: 85 images of 3 x 32 x 32


class OnnxClassifier(ClassifierMixin, BaseEstimator):
    """Run a model that :func:`to_onnx` wrote, as a scikit-learn classifier.

    It is fitted as it is made: scorers, ``MetricFrame``, displays and pipelines take it like the
    estimator that it comes from. Torch takes no part in its predictions.

    Parameters
    ----------
    path : str, path or bytes
        The file, or its content. A file is read once, when it is first needed.
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
        Features of a sample: the first number of its shape.
    feature_names_in_ : ndarray of str
        Column names, where the estimator had names.
    metadata_ : Metadata
        What the file says about itself: ``version``, ``layer_bits``, ``activation_bits``, ``report`` and
        more.
    layer_bits_ : dict of str to (int or ndarray of int)
        Bits of every weight, by parameter name; 32 where it stays in float.
    model_size_ : int
        Bytes of the file.

    Raises
    ------
    FileNotFoundError
        At first use, if there is no such file.
    ValueError
        At first use, if it is truncated, damaged, no ONNX model, has weights in other files, or was not
        written by :func:`to_onnx`.

    See Also
    --------
    parity_report : Compare it with the estimator, by group.

    Notes
    -----
    Pickles carry the content of the file, so that they are the same model wherever they go.

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

    def __init__(self, path, *, batch_size=None, n_threads=None):
        self.path = path
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
        X : array-like of shape (n, ...)
            Samples, shaped as in the fit of the estimator.

        Returns
        -------
        ndarray of shape (n,)
            Labels out of ``classes_``.
        """
        return self.classes_[self._logits(X).argmax(1)]

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

    @property
    def classes_(self):
        return self.metadata_.classes

    @property
    def metadata_(self):
        return self._model.metadata

    @property
    def n_features_in_(self):
        return self.metadata_.input_shape[0]

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
        if loaded is None or not loaded.is_of(self.path, self.n_threads):
            if self.n_threads is not None:
                _check_count(self.n_threads, "n_threads")
            loaded = self._loaded = _Loaded(self.path, self.n_threads)
        return loaded

    def _logits(self, X):
        """Return logits in float64, shape (n, C)."""
        metadata = self.metadata_
        X = validate_data(self, X, reset=False, dtype="numeric", allow_nd=True)
        check_sample_shape(X, metadata.input_shape, "the model was exported for")
        whole = metadata.input_dtype.startswith("int")
        X = cast(X, np.dtype(np.int64 if whole else np.float32))
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
        self._model  # noqa: B018 - the content travels along
        return super().__getstate__()

    def _size_of_batches(self, shape):
        if self.batch_size is None:
            return max(1, min(256, _NUMBERS // max(1, math.prod(shape))))
        return _check_count(self.batch_size, "batch_size")

    def __sklearn_is_fitted__(self):
        return True


class _Loaded:
    """The content of a file, its metadata, and a session that is opened when it is needed."""

    def __init__(self, path, n_threads):
        self.path, self.n_threads = path, n_threads
        self.content, name = _read(path)
        self._open(name)

    def is_of(self, path, n_threads):
        return self.path == path and self.n_threads == n_threads

    def _open(self, name):
        try:
            model = onnx.load_from_string(self.content)
        except Exception as error:
            raise _not_loaded(name, error) from error
        _check_content(model, name)
        try:
            self.session = open_session(self.content, self.n_threads)
        except Exception as error:
            raise _not_loaded(name, error) from error
        try:
            self.metadata = read(self.session.get_modelmeta().custom_metadata_map)
        except ValueError as error:
            raise ValueError(f"{name} cannot be used: {error}") from error
        columns, n_classes = self.session.get_outputs()[0].shape[-1], len(self.metadata.classes)
        if isinstance(columns, int) and columns != n_classes:
            raise ValueError(
                f"{name} cannot be used: it has {columns} outputs for {n_classes} classes; export the "
                "estimator again."
            )

    def __getstate__(self):
        return {"path": self.path, "n_threads": self.n_threads, "content": self.content}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._open("the pickled model")


def _not_loaded(name, error):
    return ValueError(
        f"{name} cannot be loaded: it is truncated or no ONNX model ({error}). Export the estimator "
        "again."
    )


def _check_content(model, name):
    """Raise for a model whose weights are in other files, or are not those that were written."""
    outside = [tensor.name for tensor in _tensors(model.graph) if uses_external_data(tensor)]
    if outside:
        raise ValueError(
            f"{name} cannot be used: the weights {outside[:3]} are in another file, of which nothing is "
            "known here. Save it as one file: onnx.save(onnx.load(path), path)."
        )
    if not is_intact(model):
        raise ValueError(
            f"{name} is damaged or was changed: its digest is not that of what it computes. Export the "
            "estimator again."
        )


def _tensors(graph):
    """Yield all tensors that a graph holds."""
    yield from graph.initializer
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        yield from [*([attribute.t] if attribute.HasField("t") else ()), *attribute.tensors]
        for inner in [*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs]:
            yield from _tensors(inner)


def _check_count(value, name):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} must be a positive integer; got {value!r}.")
    return int(value)


def _read(path):
    if isinstance(path, (bytes, bytearray)):
        return bytes(path), "the model"
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(
            f"path must be the path of an ONNX file or its bytes; got {type(path).__name__}."
        )
    if not Path(path).is_file():
        raise FileNotFoundError(f"path: there is no file {str(path)!r}; write it with to_onnx.")
    return Path(path).read_bytes(), repr(str(path))
