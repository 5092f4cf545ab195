"""Simulated coverage of every interval of an audit, size and power of its tests, as in the guide.

    python tests/benchmarks/study_audit_intervals.py [--draws 500] [--seed 0]

Each draw is a data set of two classifiers of two classes, the second a noisier version of the first.
Samples of a group are drawn with replacement from a population of its own, so that the truth of every
figure is known. Where a figure is undefined in a draw (a rate without positives) nothing is stated, and
nothing can be wrong. Intervals by group count as right where those of all groups are. The largest group
is forty times the smallest.
"""

import argparse
import sys
import time
import warnings

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.exceptions import UndefinedMetricWarning

from skqfair.metrics import change_report, compare_models, group_report

SETTINGS = [(n_groups, smallest) for n_groups in (2, 5, 20) for smallest in (20, 100)]
N_BINS, EPS = 15, np.finfo(float).eps


def brier_score(y_true, y_proba):
    """A metric of the user's own, whose intervals come from a jackknife."""
    return np.square(y_proba - y_true).mean()


RATES = ["selection_rate", "true_positive_rate", "false_positive_rate"]
METRICS = [*RATES, "log_loss", "calibration_error", brier_score]


def sizes_of(n_groups, smallest):
    """Return sizes of groups."""
    return np.geomspace(smallest, 40 * smallest, n_groups).round().astype(int)


class Population:
    """A finite population for each group, from which samples are drawn with replacement."""

    def __init__(self, n_groups, seed, size=4000):
        rng = np.random.default_rng([n_groups, seed])
        self.y, self.p = [], []
        for _ in range(n_groups):
            logit = rng.normal(rng.normal() / 2, rng.uniform(1.5, 4), size)
            self.y.append((rng.random(size) < expit(logit)).astype(int))
            noises = rng.uniform(0.2, 0.6), rng.uniform(0.5, 1.5)
            self.p.append([expit(1.2 * logit + rng.normal(size=size) * noise) for noise in noises])

    def draw(self, sizes, rng):
        """Return labels, probabilities of both models, and groups."""
        rows = [rng.integers(0, len(y), n) for y, n in zip(self.y, sizes, strict=True)]
        y = np.concatenate([y[r] for y, r in zip(self.y, rows, strict=True)])
        p = [np.concatenate([p[i][r] for p, r in zip(self.p, rows, strict=True)]) for i in (0, 1)]
        return y, {i: np.column_stack([1 - q, q]) for i, q in enumerate(p)}, self.groups(sizes)

    def groups(self, sizes):
        return np.repeat(np.arange(len(sizes)), sizes)

    def truth(self):
        """Return the figures of the first and of the second model by group, each of shape (2, G)."""
        rows = [
            [figures_of(y, p[model]) for y, p in zip(self.y, self.p, strict=True)] for model in (0, 1)
        ]
        return {name: np.array([[group[name] for group in row] for row in rows]) for name in rows[0][0]}


def figures_of(y, p):
    """Return the figures of labels and probabilities of the second class."""
    predicted = (p > 0.5).astype(int)
    right, confidence = predicted == y, np.maximum(p, 1 - p)
    bins = np.ceil(confidence * N_BINS)
    return {
        "accuracy": right.mean(),
        "selection_rate": predicted.mean(),
        "true_positive_rate": predicted[y == 1].mean(),
        "false_positive_rate": predicted[y == 0].mean(),
        "log_loss": -np.log(np.maximum(np.where(y == 1, p, 1 - p), EPS)).mean(),
        "calibration_error": sum(abs((right - confidence)[bins == b].sum()) for b in set(bins)) / len(y),
        "brier_score": np.square(p - y).mean(),
    }


def coverage(n_groups, smallest, draws, seed, metrics=METRICS, say=lambda done: None):
    """Return the share of draws in which each interval holds the truth, by figure and what of it."""
    population, sizes = Population(n_groups, seed), sizes_of(n_groups, smallest)
    truth, rng = population.truth(), np.random.default_rng([n_groups, smallest, seed])
    share, held = sizes / sizes.sum(), {}
    names = ["accuracy", *(getattr(metric, "__name__", metric) for metric in metrics)]
    for done in range(draws):
        y, p, groups = population.draw(sizes, rng)
        tables = compare_models(y, p, sensitive_features=groups, metrics=metrics, random_state=done)
        row = tables.models.loc[1]
        for name in names:
            own = name == "accuracy"
            old, new = truth[name]
            spread = "fvo" if own else f"{name}_difference"
            changed = tables.changes["change" if own else f"{name}_change"].name
            stated = {
                "by group": (tables.groups.loc[0], name, old),
                "change by group": (tables.changes, changed, new - old),
                "largest difference": (row, spread, np.ptp(new)),
                "change of it": (row, f"{spread}_change", np.ptp(new) - np.ptp(old)),
            }
            if own:
                whole = share @ (new - old)
                excess = max(0, (whole - new + old).max())
                stated["change, all samples"] = (row, "accuracy_change", whole)
                stated["excess gap"] = (row, "excess_accuracy_gap", excess)
            for what, parts in stated.items():
                held.setdefault((name, what), []).append(holds(*parts))
        say(done + 1)
    return {key: float(np.mean(each)) for key, each in held.items()}


def holds(table, column, value):
    """Return whether the bounds of a column hold the values; those that are NaN do."""
    low, high = (np.asarray(table[f"{column}_{end}"], dtype=float) for end in ("low", "high"))
    return not ((value < low - 1e-12) | (value > high + 1e-12)).any()


def rejections(n_groups, smallest, draws, seed, say=lambda done: None):
    """Return how often tests reject what is true, and what is as false as ``detectable`` says."""
    sizes, rng = sizes_of(n_groups, smallest), np.random.default_rng([n_groups, smallest, seed, 1])
    groups, level, flip = np.repeat(np.arange(n_groups), sizes), 0.85, 0.04
    hit = n_groups // 2  # the group that is worse, or loses, where something is false
    stated = {}

    def draw(accuracy, lost, gained):
        """Return predictions before and after; all labels are 1."""
        before = rng.random(len(groups)) < accuracy
        chance = np.where(before, lost / accuracy, gained / (1 - accuracy))
        return before.astype(int), (before ^ (rng.random(len(groups)) < chance)).astype(int)

    y, options = np.ones(len(groups), int), {"sensitive_features": groups}
    rank = np.concatenate([(np.arange(n) + 0.5) / n for n in sizes])  # as expected, less roundings
    before = rank < level
    after = before ^ ((rank < flip) | (rank > 1 - flip))
    models = {0: before.astype(int), 1: after.astype(int)}
    expected = compare_models(y, models, metrics=(), **options).detectable
    small = expected.loc[(1, hit), ["gap", "loss"]]
    for done in range(draws):
        before, after = draw(level, flip, flip)
        row = group_report(y, before, random_state=done, **options).iloc[0]
        rejected, apart = row["equal_accuracy_p"] <= 0.05, row["fvo_low"] > 0
        changes = change_report(y, before, after, **options)
        moved = (changes["change_low"] > 0) | (changes["change_high"] < 0)
        low, high = changes[["fvo_change_low", "fvo_change_high"]].iloc[0]
        found = {
            "size: equal accuracy rejected": rejected,
            "size: a gap established, by either rule": rejected or apart,
            "size: any group lost or gained": moved.any(),
            "size: FVO widened or narrowed": low > 0 or high < 0,
        }
        worse, _ = draw(np.where(groups == hit, level - small["gap"], level), 0, 0)
        report = group_report(y, worse, random_state=done, **options)
        found["power: the detectable gap"] = report["equal_accuracy_p"].iloc[0] <= 0.05
        before, after = draw(level, np.where(groups == hit, flip + small["loss"], flip), flip)
        changes = change_report(y, before, after, **options)
        found["power: the detectable loss"] = changes.loc[hit, "change_high"] < 0
        for what, shown in found.items():
            stated.setdefault(what, []).append(bool(shown))
        say(done + 1)
    figures = {what: float(np.mean(shown)) for what, shown in stated.items()}
    for what in ("gap", "loss"):
        if np.isnan(small[what]):
            figures[f"power: the detectable {what}"] = np.nan
    return figures


def main():
    """Print both tables as Markdown, in percent."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore", UndefinedMetricWarning)
    start = time.process_time()
    for title, study in (("interval", coverage), ("test", rejections)):
        columns = {}
        for n_groups, smallest in SETTINGS:
            column = f"{n_groups}, {smallest}"

            def say(done, column=column, title=title):
                seconds = time.process_time() - start
                print(f"\r{title}s: {column}: {done}, {seconds:.0f} s ", end="", file=sys.stderr)

            columns[column] = study(n_groups, smallest, options.draws, options.seed, say=say)
        print(as_markdown(title, pd.DataFrame(columns)), "\n")
    print(f"{options.draws} draws, seed {options.seed}, {time.process_time() - start:.0f} s of CPU")


def as_markdown(title, table):
    """Return shares as a table of percents."""
    lines = [[title, *table.columns], ["---"] * (1 + table.shape[1])]
    for key, row in table.iterrows():
        name = ": ".join(key).replace("_", " ") if isinstance(key, tuple) else key
        lines.append([name, *("–" if np.isnan(v) else f"{100 * v:.1f}" for v in row)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()
