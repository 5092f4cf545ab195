"""What the classifiers share: checked input, the float network, prediction by the final module."""

import os
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator, MetaEstimatorMixin
from sklearn.frozen import FrozenEstimator
from sklearn.preprocessing import LabelEncoder
from sklearn.utils._param_validation import HasMethods
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from torch.nn.modules.conv import _ConvNd

from skqfair._float_training import fit_reaches
from skqfair._groups import Groups, columns_of, encode_groups
from skqfair._labelled import ScoresItems
from skqfair._row_sketch import sketch
from skqfair._rows import AT_ONCE, Rows, cast_rows, check_cast, only, validate_rows
from skqfair._seeding import draw_seed, seeded
from skqfair._validation import (
    check_aligned,
    check_no_missing,
    check_sample_shape,
    check_weights,
    positions,
)
from skqfair.networks import Network
from skqfair.quantization import QuantizationScheme, float_size, observe_activations, quantized_size
from skqfair.storage import Cache, SavedState

__all__ = ["NetworkClassifier", "TrainedNetwork", "observe"]


@dataclass
class TrainedNetwork:
    """The float network and the checked input that it was trained on.

    Attributes
    ----------
    network : Network
        Trained.
    X : ndarray or Rows
        In the dtype of the module.
    y : ndarray of int64
        Positions in ``classes``.
    classes : ndarray
        Labels.
    groups : Groups or None
        From the sensitive features.
    seed : int
        Seed of the training, the calibration sample and the draws.
    cache : Cache
        Where results are kept.
    key : str or None
        Key of the training in the cache; None where it is not cached.
    sample_weight : ndarray of shape (n,) or None
        The user's weights.
    held_out : tuple of (ndarray, ndarray, Groups or None), or None
        X, y and groups of the samples that were not trained on.
    """

    network: Network
    X: np.ndarray
    y: np.ndarray
    classes: np.ndarray
    groups: Groups | None
    seed: int
    cache: Cache
    key: str | None
    sample_weight: np.ndarray | None = None
    held_out: tuple | None = None

    def cached(self, parts, compute):
        """Return what ``parts`` and this training determine, from the cache if it is there."""
        return self.cache.get(self.cache.key(self.key, *parts), compute)


class NetworkClassifier(SavedState, ScoresItems, MetaEstimatorMixin, BaseEstimator):
    """Base of the classifiers around a skorch network."""

    _parameter_constraints = {
        "estimator": "no_validation",
        "memory": [str, os.PathLike, HasMethods(["cache"]), None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    __metadata_request__fit = {"sensitive_features": True}

    _block = None  # rows of a batch in prediction, see Network.find_block

    # ---------------------------------------------------------------- fit

    def _fit_float(
        self, X, y, sensitive_features, sample_weight, fit_params, before_training, hold_out=None
    ):
        """Check the input, and train the float net or take the frozen one.

        ``before_training`` is called with the untrained float module where there is one, so that a
        parameter that does not fit the network is found before the time is spent. ``hold_out`` takes
        y, the groups and the seed, and returns a mask of the samples that are not to be trained on.
        """
        check_aligned(X, y, "y", "X")
        check_aligned(X, sample_weight, "sample_weight", "X")
        sensitive_features = columns_of(X, sensitive_features)
        X, y = self._check_X_y(X, y)
        groups = None if sensitive_features is None else encode_groups(sensitive_features, len(X))
        sample_weight = check_weights(sample_weight, len(X))
        _check_fit_params(fit_params, len(X))
        network = Network(self.estimator, X)
        X = network.named(X)
        classes, y = _encode_labels(y, network)
        network.take_classes(classes)
        seed = draw_seed(self.random_state)

        probe = network.probe(X, y, seed)
        if probe is not None:
            _check_sparse(X, probe.module)
            dtype = probe.input_dtype(X)
            X = cast_rows(X, dtype)
            probe.check_outputs(X, len(classes), trained=network.frozen)
            if not probe.changes_when_training_begins:
                before_training(probe.module)
        else:
            X = cast_rows(X, np.dtype(np.float32))
        check_cast(X)

        held_out = None
        if hold_out is not None:
            out = hold_out(y, groups, seed)
            held_out = only(X, out), y[out], groups and groups.take(out)
            X, y, groups = only(X, ~out), y[~out], groups and groups.take(~out)
            sample_weight = None if sample_weight is None else sample_weight[~out]

        cache = Cache(self.memory)
        if self.random_state is None and not network.frozen:
            cache.bypass(
                "memory is bypassed: with random_state=None every training is another one; set "
                "random_state to an integer to reuse trainings."
            )
        n_samples = f"{len(X):,} samples"
        self._say(f"frozen net, {n_samples}" if network.frozen else f"float training on {n_samples}")
        if network.frozen:
            key = cache.key(*network.recipe(), network.module)
            fit_reaches("key", key=None, stored=True)
        else:
            module = None if probe is None else probe.module
            key = cache.key(*network.recipe(), module, X, y, sample_weight, seed, fit_params)
            fit_reaches("key", key=key, stored=lambda: cache.has(key))
            network.state = cache.get(
                key,
                lambda: network.train(X, y, sample_weight, seed, fit_params, cache.memory is not None),
                known=(network.state, module),
            )
            network.check_outputs(X, len(classes), trained=True)
        network.check_finite()
        fit_reaches("trained")
        return TrainedNetwork(network, X, y, classes, groups, seed, cache, key, sample_weight, held_out)

    def _say(self, stage):
        """Print the stage that begins, if asked for."""
        if self.verbose:
            print(f"[{type(self).__name__}] {stage}")

    def _publish(self, trained):
        """Set the attributes that all classifiers have."""
        self.estimator_, self.classes_ = trained.network.net, trained.classes
        self.input_shape_ = getattr(trained.X, "sample_shape", trained.X.shape[1:])
        self._input_dtype = trained.X.dtype
        self._block = trained.network.find_block(trained.X, trained.network.module)
        seen = not trained.network.frozen or getattr(self, "finetune_epochs", 0) > 0
        self._training_rows = sketch(trained.X) if seen else None

    def _publish_quantized(self, trained, quantized):
        """Set the attributes of classifiers that quantize."""
        self._publish(trained)
        self.module_ = quantized.module
        self.layer_bits_ = quantized.layer_bits
        self.quantized_weights_ = quantized.weights
        self.model_size_ = quantized_size(quantized)
        self.compression_ratio_ = float_size(quantized.module) / self.model_size_

    def _calibration_rows(self, trained, *, balanced=True):
        """Draw the calibration sample, equally many of each group where that is asked for."""
        rng, n = np.random.default_rng(trained.seed), len(trained.X)
        balanced = balanced and getattr(self, "calibration_groups", "balanced") != "proportional"
        if trained.groups is None or not balanced:
            return np.sort(rng.choice(n, min(n, int(self.calibration_size)), replace=False))
        members = [np.flatnonzero(trained.groups.codes == g) for g in range(len(trained.groups.index))]
        each = max(1, min(n, self.calibration_size) // len(members))
        drawn = [rng.choice(rows, each, replace=len(rows) < each) for rows in members]
        return np.sort(np.concatenate(drawn))

    def _float_statistics(self, trained):
        """Return the statistics of the inputs of all layers in the float net."""
        sample = trained.X[self._calibration_rows(trained)]

        def compute():
            with seeded(trained.seed):
                return observe(trained.network, trained.network.module, sample)

        return trained.cached(("activations", sample), compute)

    def _check_X_y(self, X, y):
        try:
            X, y = validate_rows(self, X, y)
        except ValueError as error:
            if "inconsistent numbers of samples" not in str(error):
                raise
            raise ValueError(f"y must have one label for each row of X. {error}") from error
        check_no_missing(y, "y")
        check_classification_targets(y)
        return X, y

    @property
    def float_classifier_(self):
        """Fitted classifier of the float network: same X, labels and probabilities.

        ``estimator_`` is the bare skorch net of the same network, which predicts positions in
        ``classes_``.
        """
        from skqfair.classifiers._quantized import QuantizedClassifier

        check_is_fitted(self, "estimator_")
        whole = QuantizedClassifier(FrozenEstimator(self.estimator_), weight_bits=None)
        shared = ("estimator_", "classes_", "input_shape_", "_input_dtype", "_block")
        for name in (*shared, "n_features_in_", "feature_names_in_"):
            if hasattr(self, name):
                setattr(whole, name, getattr(self, name))
        whole.module_ = Network.of_trained(self.estimator_).module
        whole.layer_bits_ = QuantizationScheme(weight_bits=None).resolve(whole.module_)
        whole.quantized_weights_ = {}
        whole.model_size_, whole.compression_ratio_ = float_size(whole.module_), 1.0
        return whole

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # ------------------------------------------------------------ predict

    def predict(self, X):
        """Predict labels.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Samples, shaped as in fit.

        Returns
        -------
        ndarray of shape (n,)
            Labels out of ``classes_``.
        """
        network, X = self._prediction_input(X)
        if not network.overrides("predict"):
            return self.classes_[self._logits(network, X).argmax(1)]
        predicted = network.by_parts(network.view(self.module_).predict, X)
        if (
            predicted.dtype.kind not in "iu"
            or not np.isin(predicted, np.arange(len(self.classes_))).all()
        ):
            raise ValueError(
                f"predict of {type(self.estimator_).__name__} must return positions in classes_, 0 to "
                f"{len(self.classes_) - 1}; got {np.unique(predicted)[:5].tolist()}."
            )
        return self.classes_[predicted]

    def predict_proba(self, X):
        """Predict probabilities.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Samples, shaped as in fit.

        Returns
        -------
        ndarray of float64, shape (n, C)
            Columns in the order of ``classes_``; rows sum to 1.
        """
        network, X = self._prediction_input(X)
        return softmax(self._logits(network, X), axis=1)

    def decision_function(self, X):
        """Return logits.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Samples, shaped as in fit.

        Returns
        -------
        ndarray of float64
            Shape (n, C), in the order of ``classes_``; for two classes shape (n,), the difference of
            the two, positive for ``classes_[1]``.
        """
        network, X = self._prediction_input(X)
        logits = self._logits(network, X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def _prediction_input(self, X):
        if not hasattr(self, "module_"):
            check_is_fitted(self)
        network = Network.of_trained(self.estimator_)
        if self._would_pass(X):
            return network, X
        X = network.named(validate_rows(self, X, reset=False))
        check_sample_shape(X, self.input_shape_, f"{type(self).__name__} was fitted on")
        return network, cast_rows(X, self._input_dtype)

    def _would_pass(self, X):
        """Whether scikit-learn's checks, slower than a small network, would return X itself."""
        return (
            type(X) is np.ndarray
            and X.dtype == self._input_dtype
            and 0 < X.nbytes <= AT_ONCE
            and X.shape[1:] == self.input_shape_
            and not hasattr(self, "feature_names_in_")
            and bool(np.isfinite(X).all())
        )

    def _logits(self, network, X):
        """Return logits in float64, shape (n, C)."""
        return network.logits(X, self.module_, block=self._block)


def observe(network, module, sample):
    """Return the statistics of the inputs of all layers of ``module`` on a sample."""
    with observe_activations(module) as statistics:
        network.outputs(sample, module)
    return statistics


def _encode_labels(y, network):
    """Return the classes and y as positions in them."""
    if network.frozen:
        classes = network.classes
        unknown = np.setdiff1d(y, classes)
        if len(unknown):
            raise ValueError(
                f"y has labels that the given network has no output for: {unknown[:5].tolist()}; its "
                f"classes are {classes.tolist()}. Pass y in that coding, or to TorchClassifier "
                "classes=[...], in the order of its outputs."
            )
        return classes, positions(y, classes)
    encoder = LabelEncoder().fit(y)
    if len(encoder.classes_) < 2:
        raise ValueError(
            f"y has one class only, {encoder.classes_[0]!r}; a classifier needs at least two classes. "
            "Check the split, e.g. use StratifiedKFold."
        )
    return encoder.classes_, encoder.transform(y).astype(np.int64)


def _check_sparse(X, module):
    convolutions = [name for name, child in module.named_modules() if isinstance(child, _ConvNd)]
    if convolutions and isinstance(X, Rows) and X.is_sparse:
        raise ValueError(
            f"X is a scipy sparse matrix of shape {X.shape}, but the network has convolutions "
            f"({convolutions[0]}), which take images or sequences; pass a dense array of these: "
            "X.toarray().reshape(...)."
        )


def _check_fit_params(fit_params, n_samples):
    for name, value in fit_params.items():
        if np.ndim(value) and np.shape(value)[0] == n_samples:
            raise ValueError(
                f"fit parameter {name} has one entry for each sample, but skorch hands fit parameters "
                "whole to every batch; put such data into X, or use sensitive_features or "
                "sample_weight."
            )
