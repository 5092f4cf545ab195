"""Choosing among the candidates of a search: the smallest model within limits."""

import numbers

import numpy as np

from skqfair._warnings import warn
from skqfair.exceptions import NoModelWithinLimitsWarning
from skqfair.metrics._pooling import DIFFERENCES, has_counts, pooled_report

__all__ = ["smallest_within"]


def smallest_within(
    *,
    accuracy_drop=None,
    fvo=None,
    at_least=None,
    accuracy="accuracy",
    fvo_score="fvo",
    size="size",
):
    """Make a callable for ``refit`` that takes the smallest model within the limits.

    Parameters
    ----------
    accuracy_drop : float >= 0 or None, default=None
        Largest loss of mean cross-validated accuracy against the best candidate.
    fvo : float >= 0 or None, default=None
        Largest FVO of all out-of-fold predictions, where the search scored with
        :func:`fairness_counts_scorer`; else the largest mean of FVO over the folds, which grows with
        their number.
    at_least : dict of str to float or None, default=None
        Lowest mean of any other scores by name, e.g. ``{"neg_log_loss": -0.5}``: a search prefers the
        larger score, so a loss is negative there. Of the differences of :func:`pooled_report`, minus
        the pooled value counts, e.g. ``{"selection_rate_difference": -0.1}``.
    accuracy, fvo_score, size : str
        Names of the scorers in ``scoring``: accuracy, :func:`skqfair.make_fairness_scorer` (not asked
        for where there are counts) and :func:`model_size_scorer`.

    Returns
    -------
    callable
        ``refit(cv_results) -> int``, the index of the candidate; of equally small ones the more
        accurate. If none is within the limits it warns, names the closest, and takes it: the one
        whose largest excess over a limit is least. Candidates with a nan score are passed over.

    Raises
    ------
    ValueError
        For negative limits; when called, if a scorer is missing or every score is nan.

    Warns
    -----
    NoModelWithinLimitsWarning
        When called, if no candidate is within the limits.

    Examples
    --------
    >>> import numpy as np
    >>> from skqfair.metrics import smallest_within
    >>> refit = smallest_within(accuracy_drop=0.01, fvo=0.1)
    >>> refit({"mean_test_accuracy": np.array([0.90, 0.895, 0.80]),
    ...        "mean_test_fvo": np.array([-0.08, -0.09, -0.30]),
    ...        "mean_test_size": np.array([-400.0, -100.0, -50.0])})
    1
    """
    return _SmallestWithin(accuracy_drop, fvo, at_least, accuracy, fvo_score, size)


class _SmallestWithin:
    def __init__(self, accuracy_drop, fvo, at_least, accuracy, fvo_score, size):
        for name, limit in (("accuracy_drop", accuracy_drop), ("fvo", fvo)):
            if limit is not None and not (isinstance(limit, numbers.Real) and 0 <= limit <= 1):
                raise ValueError(
                    f"{name} must be a share, a number in [0, 1], or None, got {limit!r}; 0.05 stands "
                    "for 5 points."
                )
        for name, limit in (at_least or {}).items():
            if not isinstance(limit, numbers.Real):
                raise ValueError(f"at_least must hold numbers, got {limit!r} for {name!r}.")
        self.accuracy_drop, self.fvo, self.at_least = accuracy_drop, fvo, dict(at_least or {})
        self.accuracy, self.fvo_score, self.size = accuracy, fvo_score, size

    def __repr__(self):
        others = f", at_least={self.at_least}" if self.at_least else ""
        return f"smallest_within(accuracy_drop={self.accuracy_drop}, fvo={self.fvo}{others})"

    def __call__(self, cv_results):
        size = -self._mean(cv_results, self.size, "model_size_scorer", negated=True)
        accuracy = self._mean(cv_results, self.accuracy, "'accuracy'")
        usable = np.isfinite(size) & np.isfinite(accuracy)
        excess = np.full(len(size), -np.inf)
        fvo = None
        if self.fvo is not None:
            fvo, which = self._gap(cv_results)
            usable &= np.isfinite(fvo)
            excess = np.maximum(excess, fvo - self.fvo)
        others = {name: self._other(cv_results, name) for name in self.at_least}
        for name, means in others.items():
            usable &= np.isfinite(means)
            excess = np.maximum(excess, self.at_least[name] - means)
        if not usable.any():
            raise ValueError(
                "every candidate has a nan score; run the search with error_score='raise' to see why."
            )
        drop = accuracy[usable].max() - accuracy
        if self.accuracy_drop is not None:
            excess = np.maximum(excess, drop - self.accuracy_drop)
        candidates = np.flatnonzero(usable)
        within = candidates[excess[candidates] <= 1e-12]
        if len(within):
            return int(within[np.lexsort((-accuracy[within], size[within]))[0]])
        best = int(candidates[np.argmin(excess[candidates])])
        warn(
            f"no candidate is within the limits of {self!r}; taking the closest, candidate {best} "
            f"({_describe(cv_results, best)}): its accuracy is {drop[best]:.4g} below the best"
            + (f", its {which} {fvo[best]:.4g}" if fvo is not None else "")
            + "".join(f", its {name} {means[best]:.4g}" for name, means in others.items())
            + ". Loosen the limits or widen the grid.",
            NoModelWithinLimitsWarning,
        )
        return best

    def _gap(self, cv_results):
        """Return FVO of each candidate, and which FVO it is."""
        if has_counts(cv_results):
            return pooled_report(cv_results)["fvo"].to_numpy(), "pooled FVO"
        scorer = "make_fairness_scorer(...)"
        return -self._mean(cv_results, self.fvo_score, scorer, negated=True), "mean FVO over folds"

    def _other(self, cv_results, name):
        """Return a mean over folds, or minus a difference of the pooled counts."""
        if name in DIFFERENCES and f"mean_test_{name}" not in cv_results and has_counts(cv_results):
            pooled = pooled_report(cv_results)
            if name in pooled:
                return -pooled[name].to_numpy()
        return self._mean(cv_results, name, "a scorer")

    def _mean(self, cv_results, name, scorer, negated=False):
        key = f"mean_test_{name}"
        if key not in cv_results:
            scorers = sorted(k[10:] for k in cv_results if k.startswith("mean_test_"))
            raise ValueError(
                f"smallest_within needs a scorer named {name!r}, got {scorers}; "
                f"add scoring={{{name!r}: {scorer}, ...}} or give its name."
            )
        means = np.asarray(cv_results[key], dtype=float)
        if negated and (means > 1e-12).any():
            raise ValueError(
                f"the scores {name!r} must be minus the value, so that a search prefers the smaller; "
                f"got {means[means > 0].max():.4g}. Make them with {scorer}, greater_is_better=False."
            )
        return means


def _describe(cv_results, index):
    params = cv_results.get("params")
    return params[index] if params else "no parameters given"
