"""A scorer that counts by group, so that folds add up to the figures of all out-of-fold predictions."""

import warnings

import numpy as np
import pandas as pd
from sklearn.metrics import check_scoring

from skqfair._groups import encode_groups
from skqfair._labelled import labels_of
from skqfair.exceptions import EmptyGroupWarning, UnknownLabelWarning
from skqfair.metrics._counts import count_groups
from skqfair.metrics._pooling import CORRECT, FOUND, POSITIVE, SAMPLES, SELECTED
from skqfair.metrics._scored_groups import NOT_ROUTED, GroupLookup, Requests, check_routing

__all__ = ["fairness_counts_scorer"]


def fairness_counts_scorer(*, sensitive_features, groups, scoring=None):
    r"""Make a scorer that also counts samples and correct predictions by group.

    The mean of FVO over folds grows with the number of folds, for a maximum over small groups is
    mostly chance. Counts add up: FVO of all out-of-fold predictions is

    .. math:: \max_{a, a'} \Big| \frac{\sum_k c_{ka}}{\sum_k n_{ka}}
              - \frac{\sum_k c_{ka'}}{\sum_k n_{ka'}} \Big|

    with :math:`n_{ka}` samples of group a in fold k, :math:`c_{ka}` of them predicted right.
    :func:`smallest_within`, :func:`pooled_report` and
    :meth:`~skqfair.displays.BitWidthDisplay.from_cv_results` compute it where they find the counts.

    Parameters
    ----------
    sensitive_features : str, list of str, Series, frame or None
        Where the groups come from, see :func:`skqfair.make_fairness_scorer`.
    groups : sequence, Series or frame
        All groups, so that every fold returns the same names: their labels, tuples for intersections
        of several columns; or sensitive features of samples that have them all, e.g. ``X["sex"]``.
    scoring : str, callable, list or dict, default=None
        Further scorers, as in ``GridSearchCV``.

    Returns
    -------
    callable
        ``(estimator, X, y) -> dict``, to be passed as ``scoring`` itself, with the names
        ``accuracy``; ``fvo``, minus the FVO of this fold alone, so that its mean over folds is not
        that of the pooled predictions; ``n_samples[a]`` and ``n_correct[a]`` for each group a; with
        two classes, of the second one, ``n_positive[a]``, ``n_predicted_positive[a]`` and
        ``n_true_positive[a]``; and the names of ``scoring`` (``score`` for one callable). Any other
        difference between groups in ``scoring`` is averaged over the folds by the search.

    Raises
    ------
    RuntimeError
        If ``sensitive_features`` is None and metadata routing is disabled.
    ValueError
        For no or repeated groups; when scoring, for a group that is not among them, or a scorer with
        a name that is taken. In a search also pass ``error_score="raise"``.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.dummy import DummyClassifier
    >>> from sklearn.model_selection import cross_validate
    >>> from skqfair.metrics import fairness_counts_scorer, pooled_report
    >>> X = pd.DataFrame({"sex": ["f", "f", "m", "m"] * 5})
    >>> y = [1, 1, 0, 1] * 5
    >>> scoring = fairness_counts_scorer(sensitive_features="sex", groups=X["sex"])
    >>> results = cross_validate(DummyClassifier(), X, y, scoring=scoring, cv=2)
    >>> pooled_report(results)[["fvo", "accuracy[f]", "accuracy[m]"]]
       fvo  accuracy[f]  accuracy[m]
    0  0.5          1.0          0.5
    """
    return _CountsScorer(sensitive_features, groups, scoring)


class _CountsScorer(Requests):
    def __init__(self, sensitive_features, groups, scoring):
        self.scoring = scoring
        if sensitive_features is None:
            check_routing("fairness_counts_scorer")
            self.lookup = None
            self.set_score_request(sensitive_features=True)
        else:
            self.lookup = GroupLookup(sensitive_features)
        if isinstance(groups, str) or not hasattr(groups, "__iter__"):
            raise ValueError(f"groups must be a sequence of all groups, got {groups!r}.")
        if isinstance(groups, (pd.Series, pd.DataFrame)):
            groups = encode_groups(groups, len(groups), "groups").index
        groups = list(groups)
        try:
            self.groups = {group: _name(group) for group in groups}
        except TypeError as error:
            raise ValueError(
                f"groups must be labels, numbers or text: {error}; got {groups!r:.60}."
            ) from error
        if len(set(self.groups.values())) < max(len(groups), 1):
            raise ValueError(f"groups must be at least one, each of its own name; got {groups!r}.")

    def __repr__(self):
        return (
            f"fairness_counts_scorer(sensitive_features={self.lookup}, groups={list(self.groups)!r}, "
            f"scoring={self.scoring!r})"
        )

    @property
    def _score_func(self):  # what TunedThresholdClassifierCV asks of a scorer
        raise ValueError(
            "fairness_counts_scorer returns several figures; where one is wanted, as by "
            "TunedThresholdClassifierCV, pass make_fairness_scorer(...)."
        )

    def __call__(self, estimator, X, y=None, sensitive_features=None, sample_weight=None):
        if sample_weight is not None:
            raise ValueError(
                "fairness_counts_scorer counts samples, so that folds add up, and takes no "
                "sample_weight; leave it out, or pass make_fairness_scorer(...), which weights them."
            )
        if self.lookup is not None:
            sensitive_features = self.lookup(X, warn=False)
        elif sensitive_features is None:
            raise ValueError(NOT_ROUTED)
        y = labels_of(X, y)
        with warnings.catch_warnings():  # folds lack rare groups and labels; the pooled counts have them
            warnings.simplefilter("ignore", EmptyGroupWarning)
            warnings.simplefilter("ignore", UnknownLabelWarning)
            predicted = estimator.predict(X)
            counts = count_groups(y, predicted, sensitive_features)
            rates = self._of_two_classes(estimator, y, predicted, sensitive_features)
        scores = {"accuracy": float(counts.overall_accuracy), "fvo": -counts.fvo}
        scores |= {key(name): 0 for name in self.groups.values() for key in (SAMPLES, CORRECT)}
        for group, n_samples, n_correct in zip(counts.index, counts.count, counts.correct, strict=True):
            if group not in self.groups:
                raise ValueError(
                    f"groups={list(self.groups)!r} lacks {group!r}, a group of this fold; name "
                    "all, e.g. those of the whole sample."
                )
            name = self.groups[group]
            scores[SAMPLES(name)], scores[CORRECT(name)] = int(n_samples), int(n_correct)
        scores |= rates
        return scores | self._others(estimator, X, y, scores)

    def _of_two_classes(self, estimator, y, predicted, sensitive_features):
        """Return the counts behind the rates of the second class."""
        classes = getattr(estimator, "classes_", ())
        if not 0 < len(classes) <= 2:
            return {}
        truth, chosen = np.asarray(y) == classes[-1], np.asarray(predicted) == classes[-1]
        of_sample = encode_groups(sensitive_features, len(truth))
        codes, index, scores = of_sample.codes, of_sample.index, {}
        for key, which in ((POSITIVE, truth), (SELECTED, chosen), (FOUND, truth & chosen)):
            found = dict(zip(index, np.bincount(codes, which, len(index)), strict=True))
            scores |= {key(name): int(found.get(group, 0)) for group, name in self.groups.items()}
        return scores

    def _others(self, estimator, X, y, taken):
        if self.scoring is None:
            return {}
        others = check_scoring(estimator, scoring=self.scoring)(estimator, X, y)
        if not isinstance(others, dict):
            others = {self.scoring if isinstance(self.scoring, str) else "score": others}
        both = sorted(set(others) & set(taken))
        if both:
            raise ValueError(
                f"scoring has the name(s) {both}, which fairness_counts_scorer returns itself; leave "
                "them out, or pass a dict with other names."
            )
        return others


def _name(group):
    return ", ".join(map(str, group)) if isinstance(group, tuple) else str(group)
