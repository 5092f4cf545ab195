"""What reports measure by group: rates, losses, and any metric of scikit-learn or fairlearn."""

import inspect
import warnings

import numpy as np
import pandas as pd

from skqfair.metrics._estimates import (
    Estimate,
    guard,
    guarded,
    guarded_mean,
    jackknife,
    proportion,
    proportion_change,
)
from skqfair.metrics._samples import N_BLOCKS

__all__ = ["default_measures", "find_measures"]

N_BINS = 15


class Rate:
    """The share of an event among the samples, or those of a true label."""

    def __init__(self, name, event, true=None):
        self.name, self.event, self.true = name, event, true

    def overall(self, samples, outcome):
        """Return the share over all groups."""
        part = samples.part(self.true)
        event = part.pick(getattr(outcome, self.event))
        return float(np.average(event, weights=part.weights)) if part.total.any() else np.nan

    def by_group(self, samples, outcome):
        """Return the share of each group."""
        return proportion(samples, getattr(outcome, self.event), self.true)

    def change(self, samples, before, after):
        """Return how the share of each group changed."""
        events = (getattr(outcome, self.event) for outcome in (before, after))
        return proportion_change(samples, *events, self.true)


class LogLoss:
    """Mean of minus the logarithm of the probability of the true label, in nats."""

    name = "log_loss"

    def _losses(self, samples, outcome, columns=None):
        """Return losses; ``columns``: had the true labels been these."""
        proba = _need_probabilities(self.name, outcome)
        columns = _true_columns(samples) if columns is None else columns
        return -np.log(np.maximum(proba[np.arange(len(columns)), columns], np.finfo(np.float64).eps))

    def overall(self, samples, outcome):
        """Return the mean over all samples."""
        return float(np.average(self._losses(samples, outcome), weights=samples.weights))

    def by_group(self, samples, outcome):
        """Return the mean of each group, with the interval of a mean of rare large values."""
        others = self._losses(samples, outcome, _other_columns(samples, outcome))
        return guarded_mean(samples, self._losses(samples, outcome), others, least=0)

    def change(self, samples, before, after):
        """Return how the mean of each group changed."""
        others = _other_columns(samples, before)
        own, other = (
            self._losses(samples, after, columns) - self._losses(samples, before, columns)
            for columns in (_true_columns(samples), others)
        )
        return guarded_mean(samples, own, other)


class CalibrationError:
    """Expected calibration error of the predicted label, in 15 bins of equal width."""

    name = "calibration_error"

    def _gaps(self, samples, outcome):
        """Return sums of (confidence - right) by block, group and bin, and of the weights."""
        confidence = _need_probabilities(self.name, outcome).max(axis=1)
        bins = _bins(confidence)
        shape = (N_BLOCKS, samples.n_groups, N_BINS)
        cell = np.ravel_multi_index((samples.blocks, samples.groups.codes, bins), shape)
        weights = np.ones(len(cell)) if samples.weights is None else samples.weights
        gap = weights * (confidence - outcome.correct)
        return (np.bincount(cell, v, np.prod(shape)).reshape(shape) for v in (gap, weights))

    def overall(self, samples, outcome):
        """Return the error over all samples."""
        gaps, weights = self._gaps(samples, outcome)
        return float(np.abs(gaps.sum(axis=(0, 1))).sum() / weights.sum())

    def _values(self, samples, outcome):
        gaps, weights = self._gaps(samples, outcome)
        whole, total = gaps.sum(axis=0), weights.sum(axis=(0, 2))
        left = np.abs(whole - gaps).sum(axis=2)
        rest = total - weights.sum(axis=2)
        without = np.divide(left, rest, out=np.full(left.shape, np.nan), where=rest > 0)
        return np.abs(whole).sum(axis=1) / total, without

    def by_group(self, samples, outcome):
        r"""Return the error of each group.

        With gaps :math:`e_i` (confidence less right) the error is
        :math:`\sum_b |\mathrm{E}[e 1_b]|`, the largest mean of :math:`s_b e` over signs of the bins. The
        observed one is therefore too large, by at most
        :math:`\sum_b \sqrt{2 \mathrm{E}[e^2 1_b] / (\pi n)}` on average, which the lower bound takes
        off; that of the true signs is a mean, whose interval is a guarded one.
        """
        confidence = _need_probabilities(self.name, outcome).max(axis=1)
        cell = samples.groups.codes * N_BINS + _bins(confidence)
        part, shape = samples.part(), (samples.n_groups, N_BINS)
        weights = np.ones(len(cell)) if samples.weights is None else samples.weights

        def parts(gaps):
            """Return the error, and the mean square by bin."""
            sums = (np.bincount(cell, weights * gaps**k, np.prod(shape)).reshape(shape) for k in (1, 2))
            total, squares = (each / part.total[:, None] for each in sums)
            return np.abs(total).sum(axis=1), squares

        own, other = parts(confidence - outcome.correct), parts(confidence - ~outcome.correct)
        bias = np.sqrt(2 / np.pi / part.effective[:, None] * own[1]).sum(axis=1)

        def interval(level):
            squares = own[1].sum(axis=1), other[1].sum(axis=1)
            extra, half = guard(part.effective, level, *squares)
            low = (1 - extra) * own[0] - extra * other[0] - bias - half
            high = (1 - extra) * own[0] + extra * other[0] + half
            return np.clip(low, 0, own[0]), np.clip(high, own[0], 1)

        return Estimate(own[0], samples.groups.counts, interval)

    def change(self, samples, before, after):
        """Return how the error of each group changed."""
        (old, old_without), (new, new_without) = (self._values(samples, o) for o in (before, after))
        return jackknife(samples.groups.counts, new - old, new_without - old_without)


class Score:
    """Any function of true labels and predictions; evaluated once more without each block."""

    def __init__(self, name, function):
        self.name, self.function = name, function
        parameters = inspect.signature(function).parameters
        if "sensitive_features" in parameters:
            raise ValueError(
                f"metrics: {name} compares groups itself; pass what it compares, e.g. selection_rate "
                "for demographic_parity_difference: differences between groups come with every metric."
            )
        names = list(parameters)
        self.of_probabilities = len(names) > 1 and names[1] in ("y_proba", "y_prob", "y_score")
        self.keywords = {"sample_weight", "pos_label"} & set(names)

    def overall(self, samples, outcome):
        """Return the figure of all samples; an error of the function is raised."""
        return self._call(samples, outcome, slice(None))

    def by_group(self, samples, outcome):
        """Return the figure of each group, with an interval that reckons with errors not seen."""
        estimate = jackknife(samples.groups.counts, *self._values(samples, outcome))
        columns = _other_columns(samples, outcome)
        return guarded(estimate, self._with(samples, outcome, columns), samples.part().effective)

    def change(self, samples, before, after):
        """Return how the figure of each group changed."""
        (old, old_without), (new, new_without) = (self._values(samples, o) for o in (before, after))
        estimate = jackknife(samples.groups.counts, new - old, new_without - old_without)
        columns = _other_columns(samples, before)
        old, new = (self._with(samples, outcome, columns) for outcome in (before, after))
        return guarded(estimate, new - old, samples.part().effective)

    def _with(self, samples, outcome, columns):
        """Return the figure of each group had the true labels been these."""
        labels = samples.classes[columns]
        return np.array([self._try(samples, outcome, rows, labels) for rows in samples.members])

    def _values(self, samples, outcome):
        if self not in outcome.memory:
            outcome.memory[self] = self._evaluate(samples, outcome)
        return outcome.memory[self]

    def _evaluate(self, samples, outcome):
        value, without = np.full(samples.n_groups, np.nan), np.full((N_BLOCKS, samples.n_groups), np.nan)
        for group, rows in enumerate(samples.members):
            value[group] = self._try(samples, outcome, rows)
            if len(rows) > 1 and np.isfinite(value[group]):
                for block in range(min(N_BLOCKS, len(rows))):
                    rest = rows[samples.blocks[rows] != block]
                    without[block, group] = self._try(samples, outcome, rest)
        return value, without

    def _try(self, samples, outcome, rows, labels=None):
        from sklearn.exceptions import UndefinedMetricWarning

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UndefinedMetricWarning)  # a default is no result
                return self._call(samples, outcome, rows, labels)
        except (ValueError, ZeroDivisionError, UndefinedMetricWarning):
            return np.nan

    def _call(self, samples, outcome, rows, labels=None):
        keywords, labels = {}, samples.labels if labels is None else labels
        if samples.weights is not None:
            if "sample_weight" not in self.keywords:
                raise ValueError(f"metrics: {self.name} takes no sample_weight; leave out one of them.")
            keywords["sample_weight"] = samples.weights[rows]
        if "pos_label" in self.keywords and samples.positive is not None:
            keywords["pos_label"] = samples.positive
        values = outcome.labels
        if self.of_probabilities:
            values = _need_probabilities(self.name, outcome)
            if len(samples.classes) == 2:
                values = values[:, int((samples.classes == samples.positive).argmax())]
        y_true, keywords = _zero_one(samples, self, labels, keywords)
        found = self.function(y_true[rows], values[rows], **keywords)
        try:
            number = float(found)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"metrics: {self.name} must return one number, got {found!r:.60}."
            ) from error
        return number if np.isfinite(number) else np.nan


def _zero_one(samples, score, labels, keywords):
    """Give scores of probabilities the labels 0 and 1: not all of them know a positive label."""
    if not score.of_probabilities or len(samples.classes) != 2:
        return labels, keywords
    keywords = {key: value for key, value in keywords.items() if key != "pos_label"}
    return (labels == samples.positive).astype(int), keywords


def _need_probabilities(name, outcome):
    if outcome.proba is None:
        raise ValueError(
            f"metrics: {name} needs probabilities, and these predictions are labels; pass arrays of "
            "shape (n, classes), or leave the metric out."
        )
    return outcome.proba


def _true_columns(samples):
    return pd.Index(samples.classes).get_indexer(samples.labels)


def _other_columns(samples, outcome):
    """Return another label for each sample: the likeliest, where it is known."""
    true, n_classes = _true_columns(samples), len(samples.classes)
    if outcome.proba is not None:
        proba = outcome.proba.copy()
        proba[np.arange(len(true)), true] = -1
        return proba.argmax(axis=1)
    predicted = pd.Index(samples.classes).get_indexer(outcome.labels)
    return np.where((predicted != true) & (predicted >= 0), predicted, (true + 1) % n_classes)


def _bins(confidence):
    return np.clip(np.ceil(confidence * N_BINS).astype(np.int64) - 1, 0, N_BINS - 1)


ACCURACY = Rate("accuracy", "correct")
OWN = {
    "accuracy": ACCURACY,
    "selection_rate": Rate("selection_rate", "is_positive"),
    "true_positive_rate": Rate("true_positive_rate", "is_positive", True),
    "false_positive_rate": Rate("false_positive_rate", "is_positive", False),
    "log_loss": LogLoss(),
    "calibration_error": CalibrationError(),
}
RATES = ("selection_rate", "true_positive_rate", "false_positive_rate")


def default_measures(samples, outcomes):
    """Return rates where there are two classes, and losses where there are probabilities."""
    names = list(RATES) if len(samples.classes) == 2 else []
    if all(outcome.proba is not None for outcome in outcomes):
        names += ["log_loss", "calibration_error"]
    return [OWN[name] for name in names]


def find_measures(metrics, samples, outcomes):
    """Return the measures that a user names or gives, less accuracy, which is always there."""
    if metrics is None:
        return default_measures(samples, outcomes)
    if isinstance(metrics, str) or callable(metrics):
        metrics = [metrics]
    if not isinstance(metrics, (dict, list, tuple)):
        raise TypeError(
            f"metrics must be a name, a function, a list or a dict of these; got {metrics!r}."
        )
    pairs = metrics.items() if isinstance(metrics, dict) else [(None, metric) for metric in metrics]
    found = [_find(name, metric, samples) for name, metric in pairs]
    names = [measure.name for measure in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"metrics has {twice} more than once; pass a dict of names to metrics.")
    return [measure for measure in found if measure is not ACCURACY]


def _find(name, metric, samples):
    if isinstance(metric, str):
        if metric in OWN and name in (None, metric):
            if metric in RATES and samples.positive is None:
                raise ValueError(
                    f"metrics: {metric} counts one label, and y_true has {len(samples.classes)}: "
                    f"{samples.classes[:5].tolist()}; say which with pos_label=."
                )
            return OWN[metric]
        import fairlearn.metrics  # only where a name needs them: the command line starts faster without
        import sklearn.metrics

        for module in (sklearn.metrics, fairlearn.metrics):
            if callable(getattr(module, metric, None)):
                return Score(name or metric, getattr(module, metric))
        raise ValueError(
            f"metrics: {metric!r} is none of {sorted(OWN)}, nor a function of sklearn.metrics or "
            "fairlearn.metrics; pass one of these, or a callable(y_true, y_pred)."
        )
    if not callable(metric):
        raise ValueError(f"metrics must hold names or callables(y_true, y_pred), got {metric!r}.")
    return Score(str(name or getattr(metric, "__name__", type(metric).__name__)), metric)
