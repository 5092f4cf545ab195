"""Offsets of the classes, fitted so that groups are served alike."""

import copy
from numbers import Real
from statistics import NormalDist

import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn import get_config
from sklearn.base import BaseEstimator, MetaEstimatorMixin, _fit_context, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils import assert_all_finite, get_tags, indexable
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, has_fit_parameter

from skqfair._groups import columns_of, encode_groups
from skqfair._labelled import ScoresItems
from skqfair._losses import log_probabilities
from skqfair._rows import opened
from skqfair._validation import check_aligned, check_no_missing, check_weights, positions
from skqfair.classifiers._all_or_nothing import all_or_nothing
from skqfair.classifiers._base import NetworkClassifier
from skqfair.classifiers._folding import fold_offsets
from skqfair.classifiers._offset_reports import moved_errors, warn_of_reach
from skqfair.classifiers._offset_samples import (
    check_probabilistic,
    checked_samples,
    class_probabilities,
    classes_of_frozen,
    out_of_fold,
)
from skqfair.metrics import accuracy_frontier
from skqfair.mitigation import STRENGTHS, class_offsets, correct_by_strength, drop_by_strength
from skqfair.storage import SavedState

__all__ = ["FairOffsetClassifier"]


class FairOffsetClassifier(SavedState, ScoresItems, MetaEstimatorMixin, BaseEstimator):
    r"""Add an offset to each class so that groups are served alike, at a stated price of accuracy.

    .. math:: p'_c \propto p_c \exp(t b_c)

    A multiclass cousin of :class:`sklearn.model_selection.TunedThresholdClassifierCV`: the direction b
    lets the groups' mean probabilities of their own classes meet
    (:func:`skqfair.mitigation.class_offsets`); the strength t, out of 0 to 1.2, is the one with the
    best ``metric`` among those whose accuracy on the fitting part is within ``max_accuracy_drop`` of
    that at t = 0. Prediction costs no more, and never needs the groups.

    It moves errors from some classes, and so from some people, to others: ``moved_`` says how many of
    whom. The offsets belong to classes, so they help most where the groups are the classes; for other
    groups a warning says how far they reach.

    Parameters
    ----------
    estimator : classifier with ``predict_proba``, or FrozenEstimator of a fitted one
        One that is not frozen is cloned: offsets are fitted to its out-of-fold predictions, then it is
        fitted to all samples. A frozen one gets its offsets from the samples given to ``fit``, which
        must be others than it was trained on.
    max_accuracy_drop : float, default=0.02
        Accuracy that the offsets may cost on the fitting part. On new samples it can be more.
    metric : {"fvo", "worst_group"}, default="fvo"
        What is best: the smallest largest gap between group accuracies, or the largest accuracy of the
        worst group.
    cv : int, splitter, iterable or None, default=None
        Folds for an estimator that is not frozen; None is 5. For a number they are shuffled, and
        stratified by class.
    random_state : int, RandomState or None, default=None
        Seed of the folds, and of the draws of what chance would show.
    confidence : float in (0.5, 1) or None, default=None
        None: the drop on the fitting part itself is within ``max_accuracy_drop``; on other samples it
        then is about as often as not. A number, e.g. 0.95: the one-sided upper bound of the paired drop
        is, so that it holds on most other samples, for less of the gap.

    Attributes
    ----------
    estimator_ : classifier
        Fitted; without offsets.
    offsets_ : ndarray of shape (C,)
        Offsets t·b of the logits, of mean 0.
    strength_ : float
        t.
    frontier_ : DataFrame
        For every t: ``accuracy``, ``fvo`` and ``worst_accuracy`` on the fitting part, each with ``_low``
        and ``_high``, and ``worst_group``; see :func:`skqfair.metrics.accuracy_frontier`.
    moved_ : DataFrame
        By group, on the fitting part: ``count``; ``wrong_before`` and ``wrong_after``; ``lost``, right
        before and wrong after; ``gained``, the reverse; ``change`` of the accuracy with its simultaneous
        interval.
    moved_classes_ : DataFrame
        The same by class.
    folded_classifier_ : classifier
        Around a classifier of skqfair: a copy of it with the offsets in the bias of its last layer,
        which is what predicts, is exported and has these sizes. Absent where there is no such bias.
    module_, model_size_, compression_ratio_, layer_bits_, quantized_weights_ : object
        Those of ``folded_classifier_``.
    classes_ : ndarray of shape (C,)
        Class labels.
    n_features_in_ : int
        Features, where the estimator has them.
    feature_names_in_ : ndarray of str
        Column names, where the estimator has them.

    See Also
    --------
    skqfair.displays.OffsetFrontierDisplay : The frontier as a picture.
    FairQATClassifier : Mitigation in training, to which offsets can be added.

    Notes
    -----
    The drop is kept on the fitting part. On other samples of the same kind it is kept only about as
    often as not, unless ``confidence`` is given, and then somewhat less often than that, since t is the
    largest that seemed within it: measure on samples that were used for nothing else, with
    :func:`skqfair.metrics.change_report`.

    References
    ----------
    Hardt, M., Price, E. & Srebro, N. (2016). Equality of opportunity in supervised learning. NeurIPS.

    Menon, A. K. et al. (2021). Long-tail learning via logit adjustment. ICLR.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skqfair import FairOffsetClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> net = LogisticRegression(C=1e-4, max_iter=500)
    >>> clf = FairOffsetClassifier(net, max_accuracy_drop=0.01, random_state=0).fit(X, y)
    >>> before = clf.frontier_.iloc[0]
    >>> after = clf.frontier_[clf.frontier_["strength"] == clf.strength_].iloc[0]
    >>> bool(after["fvo"] < before["fvo"] and after["accuracy"] >= before["accuracy"] - 0.01)
    True
    """

    _parameter_constraints = {
        "estimator": "no_validation",
        "max_accuracy_drop": [Interval(Real, 0, 1, closed="both")],
        "metric": [StrOptions({"fvo", "worst_group"})],
        "cv": ["cv_object"],
        "random_state": ["random_state"],
        "confidence": [None, Interval(Real, 0.5, 1, closed="neither")],
    }

    __metadata_request__fit = {"sensitive_features": True}

    def __init__(
        self,
        estimator,
        *,
        max_accuracy_drop=0.02,
        metric="fvo",
        cv=None,
        random_state=None,
        confidence=None,
    ):
        self.estimator = estimator
        self.max_accuracy_drop = max_accuracy_drop
        self.metric = metric
        self.cv = cv
        self.random_state = random_state
        self.confidence = confidence

    @_fit_context(prefer_skip_nested_validation=False)
    @all_or_nothing
    def fit(self, X, y=None, *, sensitive_features=None, sample_weight=None, **fit_params):
        """Fit the estimator, unless it is frozen, and the offsets.

        Parameters
        ----------
        X : array-like of shape (n, ...), frame, sparse matrix, memmap, Dataset or dict
            Samples, as the estimator takes them; one of skqfair has files and Datasets read by batch.
        y : array-like of shape (n,), optional
            Labels of any type; None for a Dataset of torch whose items are (x, label).
        sensitive_features : array-like of shape (n,) or (n, k), Series, frame or names, optional
            Group of each sample. None takes the classes as groups. A name or a list of names stands for
            columns of a frame X, which stay in it.
        sample_weight : array-like of shape (n,), optional
            Weights in all accuracies, and of the estimator where its fit takes them.
        **fit_params
            Handed to the fit of the estimator.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad input; the message names the argument, what came, and the remedy: an estimator
            without probabilities, a single group, a class without samples in a fold or in ``y``.

        Warns
        -----
        LimitedOffsetsWarning
            If no strength within the drop is better than none; and where the groups are not the classes,
            to say how far offsets of classes reach.
        TrainingSamplesWarning
            If a frozen classifier of skqfair was trained on half of the samples in X or more.
        """
        check_aligned(X, y, "y", "X")
        check_aligned(X, sample_weight, "sample_weight", "X")
        features = columns_of(X, sensitive_features)
        X, y = indexable(*checked_samples(self, X, y))
        y = column_or_1d(y, warn=True)
        check_no_missing(y, "y")
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        weight = check_weights(sample_weight, len(y))
        check_probabilistic(self.estimator)
        frozen = isinstance(self.estimator, FrozenEstimator)
        classes = classes_of_frozen(self.estimator.estimator, X, y) if frozen else np.unique(y)
        counted = slice(None) if weight is None else weight > 0
        if len(present := np.unique(y[counted])) < 2:
            raise ValueError(
                f"y has one class only, {present.tolist()}, among samples with a weight; offsets need "
                "at least two classes. Check the split, e.g. use StratifiedKFold."
            )
        features = pd.Series(y, name="class") if features is None else features
        groups = encode_groups(features, len(y))
        if len(present := groups.take(counted).index) < 2:
            raise ValueError(
                f"sensitive_features has one group only, {present[0]!r}: there is no gap to close. Pass "
                "samples of two groups or more."
            )
        params = self._params_of_estimator(sensitive_features, sample_weight, fit_params)
        if frozen:
            self.estimator_, rows = copy.deepcopy(self.estimator.estimator), np.arange(len(y))
            probabilities = class_probabilities(self.estimator_, X, classes)
        else:
            self.estimator_ = clone(self.estimator).fit(X, y, **params)
            rows, probabilities = out_of_fold(self, X, y, classes, groups, params)
        for name in ("n_features_in_", "feature_names_in_"):
            vars(self).pop(name, None)
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        self.classes_ = classes
        if weight is not None:  # who has no weight counts nowhere
            kept = weight[rows] > 0
            rows, probabilities = rows[kept], probabilities[kept]
            weight = weight[rows]
        self._fit_offsets(probabilities, y[rows], groups.take(rows), weight)
        self._folded = None
        if isinstance(self.estimator_, NetworkClassifier):
            self._folded = fold_offsets(self.estimator_, self.offsets_, X)
        return self

    def _params_of_estimator(self, sensitive_features, sample_weight, fit_params):
        given = {"sensitive_features": sensitive_features, "sample_weight": sample_weight}
        given = {name: value for name, value in given.items() if value is not None}
        if get_config()["enable_metadata_routing"]:
            return process_routing(self, "fit", **given, **fit_params).estimator.fit
        taken = {name: v for name, v in given.items() if has_fit_parameter(self.estimator, name)}
        return {**taken, **fit_params}

    def _fit_offsets(self, probabilities, y, groups, weight):
        """Fit direction and strength, and set all that is known of them."""
        target, codes = positions(y, self.classes_), groups.codes
        direction = class_offsets(probabilities, target, codes, weight)
        logits = log_probabilities(probabilities)
        correct = correct_by_strength(logits, target, codes, direction, sample_weight=weight)
        one = np.ones(len(y)) if weight is None else weight
        total, squares = np.bincount(codes, one), np.bincount(codes, one**2)
        self.frontier_ = accuracy_frontier(
            STRENGTHS, correct, total, groups=groups.index, effective=total**2 / squares
        )
        accuracy = self.frontier_["accuracy"].to_numpy()
        drop = accuracy[0] - accuracy
        if self.confidence is not None:
            drop, error = drop_by_strength(logits, target, direction, sample_weight=weight)
            drop += NormalDist().inv_cdf(self.confidence) * error
        gain = self.frontier_["worst_accuracy"] if self.metric != "fvo" else -self.frontier_["fvo"]
        within = drop <= self.max_accuracy_drop + 1e-12
        chosen = int(np.where(within, gain, -np.inf).argmax())
        self.strength_ = float(STRENGTHS[chosen])
        self.offsets_ = self.strength_ * direction
        before, after = (
            self.classes_[(logits + shift).argmax(1)] for shift in (0 * direction, self.offsets_)
        )
        self.moved_ = moved_errors(y, before, after, groups)
        self.moved_classes_ = moved_errors(
            y, before, after, encode_groups(pd.Series(y, name="class"), len(y))
        )
        warn_of_reach(self, gain, y, before, groups)

    def get_metadata_routing(self):
        """Return how metadata travel: to ``fit`` itself, and to the fit of the estimator.

        Returns
        -------
        MetadataRouter
        """
        mapping = MethodMapping().add(caller="fit", callee="fit")
        router = MetadataRouter(owner=self).add_self_request(self)
        return router.add(estimator=self.estimator, method_mapping=mapping)

    # ------------------------------------------------------------ predict

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
        predicted = self._logits(X).argmax(1)
        return self.classes_[predicted]

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
        """Return logits with their offsets.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Samples.

        Returns
        -------
        ndarray of float64
            Shape (n, C), up to a shift of each row; for two classes shape (n,), the difference of the
            two, positive for ``classes_[1]``.
        """
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def _logits(self, X):
        check_is_fitted(self, "offsets_")
        if self._folded is not None:
            network, X = self._folded._prediction_input(X)
            return self._folded._logits(network, X)
        X = opened(X, type(self).__name__)
        found = class_probabilities(self.estimator_, X, self.classes_)
        return log_probabilities(found) + self.offsets_

    @property
    def folded_classifier_(self):
        """Copy of a classifier of skqfair with the offsets in its last bias."""
        if vars(self).get("_folded") is None:
            raise AttributeError(
                f"this {type(self).__name__} has no folded_classifier_: it is not fitted, or its "
                "estimator is no classifier of skqfair that ends in a linear layer with one output for "
                "each class. In a pipeline, let FairOffsetClassifier be the last step."
            )
        return self._folded

    @property
    def module_(self):
        """Module with the offsets in its last bias."""
        return self.folded_classifier_.module_

    @property
    def model_size_(self):
        """Bytes, with the offsets."""
        return self.folded_classifier_.model_size_

    @property
    def compression_ratio_(self):
        """Bytes in float32 over ``model_size_``."""
        return self.folded_classifier_.compression_ratio_

    @property
    def layer_bits_(self):
        """Bits of the weights."""
        return self.folded_classifier_.layer_bits_

    @property
    def quantized_weights_(self):
        """Codes and scales."""
        return self.folded_classifier_.quantized_weights_

    def __sklearn_tags__(self):
        tags, inner = super().__sklearn_tags__(), get_tags(self.estimator)
        tags.input_tags.sparse = inner.input_tags.sparse
        tags.input_tags.allow_nan = inner.input_tags.allow_nan
        return tags
