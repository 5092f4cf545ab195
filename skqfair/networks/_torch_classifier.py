"""Any trained torch module as a fitted scikit-learn classifier."""

from copy import copy

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator
from torch import nn

from skqfair._labelled import ScoresItems
from skqfair._rows import cast_rows, validate_rows
from skqfair._validation import cast
from skqfair.networks._checks import check_count, check_device
from skqfair.networks._module_outputs import (
    OUTPUTS,
    check_classes,
    check_float,
    find_output,
    net_around,
    read_weights,
)
from skqfair.networks._several_inputs import named_for
from skqfair.networks._wrapped import Network
from skqfair.storage import SavedState

__all__ = ["TorchClassifier"]


class TorchClassifier(SavedState, ScoresItems, BaseEstimator):
    """Take a torch module that was trained without skorch as a fitted classifier.

    It predicts, and goes wherever a frozen net goes: ``QuantizedClassifier(TorchClassifier(module))``,
    and in the other estimators and the diagnostics. The module is copied and run in eval mode; it is
    neither changed nor trained, unless an estimator fine-tunes its copy. Modules that are quantized
    already, by ``torch.ao`` or torchao, predict as they are.

    Parameters
    ----------
    module : torch.nn.Module
        Trained. ``forward`` takes a batch and returns one tensor.
    classes : array-like of shape (C,), default=None
        Labels in the order of the outputs; None means 0 to C - 1. With a single output the second is
        what the output speaks for.
    n_classes : int, default=None
        C, where it is to be known before the first samples are.
    output : {"logits", "logit", "probabilities", "probability"}, default=None
        What the module returns: C logits (or their log-softmax), one logit for two classes, C
        probabilities or one. None finds out on the first samples. That fails for a single output whose
        values are all between 0 and 1, unless the module ends in ``torch.nn.Sigmoid``.
    batch_size : int, default=256
        Samples at a time.
    device : str or torch.device, default="cpu"
        Where the copy runs.

    Attributes
    ----------
    classes_ : ndarray of shape (C,)
        Labels; there once C is known.
    estimator_ : skorch.NeuralNetClassifier or skorch.NeuralNetBinaryClassifier
        A net around the copy of the module, which predicts positions in ``classes_``; there once the
        kind of output is known.
    n_features_in_ : int
        ``X.shape[1]``, after ``fit``.

    Raises
    ------
    TypeError
        At first use, if ``module`` is no module.
    ValueError
        At first use, for other parameters that do not fit; for input that the module fails on.
    skqfair.exceptions.ModuleOutputError
        If the module returns something else, or what it returns is unclear.

    See Also
    --------
    make_classifier : For a module that is still to be trained.
    skqfair.export.OnnxClassifier : For ONNX files.

    Notes
    -----
    ``torch.ao``'s dynamic quantization finds the ranges of a layer's inputs anew for each batch, so that
    a row's prediction depends on the rows beside it: on their number and order, and on ``batch_size``.

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_iris
    >>> from skqfair import QuantizedClassifier
    >>> from skqfair.networks import TorchClassifier
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> _ = torch.manual_seed(0)
    >>> module = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    >>> optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    >>> inputs, targets = torch.tensor(X.to_numpy(), dtype=torch.float32), torch.tensor(y.to_numpy())
    >>> for _ in range(60):
    ...     optimizer.zero_grad()
    ...     torch.nn.functional.cross_entropy(module(inputs), targets).backward()
    ...     _ = optimizer.step()
    >>> clf = TorchClassifier(module)
    >>> clf.score(X, y) > 0.9
    True
    >>> QuantizedClassifier(clf, weight_bits=4).fit(X, y).layer_bits_
    {'0.weight': 4, '2.weight': 4}
    """

    def __init__(
        self, module, classes=None, *, n_classes=None, output=None, batch_size=256, device="cpu"
    ):
        self.module = module
        self.classes = classes
        self.n_classes = n_classes
        self.output = output
        self.batch_size = batch_size
        self.device = device

    def fit(self, X, y=None):
        """Find out what the module returns for these samples; nothing is trained.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Samples.
        y : array-like of shape (n,), optional
            Labels, which must be among ``classes_``.

        Returns
        -------
        self
        """
        X = validate_rows(self, X)
        classes = self._known(X)["classes"]
        unknown = [] if y is None else np.setdiff1d(y, classes)
        if len(unknown):
            raise ValueError(
                f"y has labels that the module has no output for: {unknown[:5].tolist()}; its classes "
                f"are {classes.tolist()}. Pass classes=[...], in the order of its outputs."
            )
        return self

    def predict(self, X):
        """Predict labels.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Samples.

        Returns
        -------
        ndarray of shape (n,)
            Labels out of ``classes_``.
        """
        logits = self._logits(X)
        return self.classes_[logits.argmax(1)]

    def predict_proba(self, X):
        """Predict probabilities.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Samples.

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
            Samples.

        Returns
        -------
        ndarray of float64
            Shape (n, C), in the order of ``classes_``; for two classes shape (n,), the difference of
            the two, positive for ``classes_[1]``.
        """
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def read_weights(self):
        """Return the weights of the layers, in float whatever they are stored as.

        Returns
        -------
        dict of str to ndarray of float64
            Parameters of two or more dimensions by name, those of quantized layers dequantized.
        """
        return read_weights(self.module)

    def net_for(self, X):
        """Return the skorch net, and the labels, for the estimators that wrap it.

        Parameters
        ----------
        X : ndarray of shape (n, ...)
            Samples, on which the kind of output is found if it is not known.

        Returns
        -------
        net : skorch.NeuralNetClassifier or skorch.NeuralNetBinaryClassifier
            Around a copy of the module.
        classes : ndarray of shape (C,)
            Labels.

        Raises
        ------
        ValueError
            If layers of the module are quantized already.
        """
        known = self._known(X)
        check_float(self.module)
        return known["net"], known["classes"]

    @property
    def classes_(self):
        if self.classes is not None or self.n_classes is not None:
            return check_classes(self.classes, self.n_classes)
        return self._known()["classes"]

    @property
    def estimator_(self):
        return self._known()["net"]

    def _logits(self, X):
        fitted = hasattr(self, "n_features_in_")
        X = validate_rows(self if fitted else copy(self), X, reset=not fitted)
        X = named_for(X, self.module)
        known = self._known(X)
        network = Network.of_trained(known["net"])
        try:
            return network.logits(cast_rows(X, known["dtype"]), block=known["block"])
        except RuntimeError as error:
            raise self._failed(X, error) from error

    def _known(self, X=None):
        """Return what is known of the module; found out again where a parameter has been set since."""
        params = list(self.get_params(deep=False).values())
        known = self.__dict__.get("_found")
        if known is not None and all(map(_same, known["of"], params)):
            if "net" not in known:  # loaded from a file
                known["net"] = net_around(self, known["output"], known["classes"])
            return known
        if X is None:
            raise AttributeError(
                "classes_ and estimator_ of a TorchClassifier are known once it has seen samples: call "
                "fit or predict first, or pass classes=... or n_classes=..."
            )
        self._check_params()
        X, classes = named_for(X, self.module), check_classes(self.classes, self.n_classes)
        network = Network.of_trained(net_around(self, "logits", np.arange(2)))
        try:
            dtype = network.input_dtype(X)
            outputs = next(network.each_batch(cast(X[: self.batch_size], dtype)))
        except (RuntimeError, IndexError, TypeError) as error:
            raise self._failed(X, error) from error
        output, classes = find_output(outputs, self.output, classes, self.module)
        net = net_around(self, output, classes)
        block = Network.of_trained(net).find_block(cast_rows(X, dtype), net.module_)
        known = {"output": output, "classes": classes, "net": net, "dtype": dtype, "block": block}
        self._found = {**known, "of": params}
        return self._found

    def _check_params(self):
        if not isinstance(self.module, nn.Module):
            given = self.module.__name__ if isinstance(self.module, type) else repr(self.module)[:80]
            raise TypeError(
                f"module must be a trained torch.nn.Module, got {given}; pass the trained instance, or "
                "make_classifier(...) for one that is to be trained."
            )
        if self.output is not None and self.output not in OUTPUTS:
            raise ValueError(f"output must be one of {list(OUTPUTS)} or None; got {self.output!r}.")
        check_device(self.device)
        check_count("batch_size", self.batch_size, 1)

    def _failed(self, X, error):
        return ValueError(
            f"the module {type(self.module).__name__} fails on X of shape {X.shape} and dtype "
            f"{X.dtype}: {error}"
        )

    def _saved_attributes(self):
        state = dict(vars(self))
        if "_found" in state:
            state["_found"] = {name: v for name, v in state["_found"].items() if name != "net"}
        return state

    def __sklearn_is_fitted__(self):
        return True


def _same(a, b):
    """Tell whether a parameter is what it was; numbers and names are other objects once loaded."""
    return a is b or (type(a) is type(b) and isinstance(a, (int, str)) and a == b)
