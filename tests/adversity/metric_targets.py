"""Fuzzing of the metrics: each against loops in exact fractions, or a law that it must keep."""

import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from adverse_input import (
    SCALARS,
    any_column,
    any_weights,
    good_column,
    good_weights,
    numbers,
    picked,
)
from hypothesis import assume
from hypothesis import strategies as st
from properties import Refused, answer, call, finite, named
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier

from skqfair import fairness_violation_observed, make_fairness_scorer, metrics

LABELS = ("integers", "booleans", "strings", "whole floats", "half", "strings of numpy")


def exact_accuracies(y_true, y_pred, groups, weights):
    """Accuracy of each group with weight, as a fraction."""
    weights = [1] * len(y_true) if weights is None else weights
    largest = max(weights)
    right, total = {}, {}
    for true, pred, group, weight in zip(y_true, y_pred, groups, weights, strict=True):
        weight = float(weight) / float(largest)
        weight = Fraction(weight if weight >= 1e-100 else 0)
        total[group] = total.get(group, 0) + weight
        right[group] = right.get(group, 0) + (weight if true == pred else 0)
    return {group: right[group] / total[group] for group in total if total[group] > 0}


def sample_case(draw, n_predictions=1, weighted=True):
    """Plain values and forms of labels, predictions, groups and weights that all functions take."""
    n = draw(st.sampled_from([1, 2, 3, 8]))
    pool = (draw(st.sampled_from(LABELS)),)
    labels = [good_column(draw, n, pool) for _ in range(1 + n_predictions)]
    groups = good_column(draw, n)
    weights = good_weights(draw, n) if weighted and draw(st.booleans()) else None
    for values, _ in labels[1:]:
        assume(set(values) & set(labels[0][0]))  # else they are in another coding
    return n, labels, groups, weights


def judged(function, *args, sample_weight=None, **kwargs):
    """A call that must have an answer, unless its weights leave out all labels that both have."""
    try:
        return call(function, *args, sample_weight=sample_weight, **kwargs)
    except Refused as error:
        assume("shares no label" not in str(error) or sample_weight is None)
        raise


def options(draw):
    """Wrong arguments by name, and None where none is to be wrong."""
    n = draw(st.sampled_from([0, 1, 2, 5]))
    return n, lambda: any_column(draw, n)


def odd(draw, function, columns, **more):
    """A call with anything at all in the places of columns; refused, or finite."""
    n, column = options(draw)
    keywords = {name: column() for name in columns}
    if "sample_weight" in more:
        more["sample_weight"] = any_weights(draw, n)
    return answer(function, **keywords, **more)


def fvo(draw):
    if draw(st.booleans()):
        found = odd(
            draw,
            fairness_violation_observed,
            ["y_true", "y_pred", "sensitive_features"],
            sample_weight=None,
        )
        assert found is None or 0 <= found <= 1
        return
    _, ((y, Y), (p, P)), (g, G), weights = sample_case(draw)
    found = judged(fairness_violation_observed, Y, P, sensitive_features=G, sample_weight=weights)
    exact = exact_accuracies(y, p, g, weights).values()
    assert abs(found - float(max(exact) - min(exact))) < 1e-12


def group_report(draw):
    keywords = {"confidence": draw(st.sampled_from([0.95, 0.5, 1 - 1e-9])), "random_state": 0}
    if draw(st.booleans()):
        metric = draw(
            st.sampled_from([(), None, "selection_rate", "log_loss", "f1_score", "no such", 3])
        )
        keywords["confidence"] = draw(st.sampled_from([0.95, *SCALARS]))
        columns = ["y_true", "y_pred", "sensitive_features"]
        found = odd(draw, metrics.group_report, columns, sample_weight=None, metrics=metric, **keywords)
        if found is not None:
            check_report(found)
        return
    n, ((y, Y), (p, P)), (g, G), weights = sample_case(draw)
    found = judged(metrics.group_report, Y, P, sensitive_features=G, sample_weight=weights, **keywords)
    check_report(found)
    exact = exact_accuracies(y, p, g, weights)
    assert len(found) == len(exact)
    assert math.isclose(
        found.attrs["fvo"], float(max(exact.values()) - min(exact.values())), abs_tol=1e-12
    )
    assert sorted(found["accuracy"]) == [
        float(value) if weights is None else pytest.approx(float(value), abs=1e-12)
        for value in sorted(exact.values())
    ]
    order = draw(st.permutations(range(n)))
    again = call(
        metrics.group_report,
        [y[i] for i in order],
        [p[i] for i in order],
        sensitive_features=[g[i] for i in order],
        sample_weight=None if weights is None else [weights[i] for i in order],
        **keywords,
    )
    assert again["count"].tolist() == found["count"].tolist()
    for name in ("accuracy", "accuracy_low", "accuracy_high"):
        np.testing.assert_allclose(again[name], found[name], atol=1e-9)


def check_report(report):
    columns = ["accuracy", "accuracy_low", "accuracy_high", "fvo", "fvo_low", "fvo_high", "fvo_chance"]
    values = report[columns].to_numpy()
    assert finite(values)
    assert ((values >= 0) & (values <= 1)).all()
    assert (report["accuracy_low"] <= report["accuracy"] + 1e-12).all()
    assert (report["accuracy_high"] >= report["accuracy"] - 1e-12).all()
    assert (report["fvo_low"] <= report["fvo"] + 1e-12).all()
    assert (report["fvo_high"] >= report["fvo"] - 1e-12).all()
    assert report["equal_accuracy_p"].between(0, 1, inclusive="right").all()


def change_report(draw):
    names = ["y_true", "y_pred_float", "y_pred_quantized", "sensitive_features"]
    if draw(st.booleans()):
        found = odd(draw, metrics.change_report, names, sample_weight=None)
        assert found is None or finite(found.to_numpy())
        return
    n, ((y, Y), (a, A), (b, B)), (g, G), weights = sample_case(draw, 2)
    found = judged(metrics.change_report, Y, A, B, sensitive_features=G, sample_weight=weights)
    assert finite(found.to_numpy())
    before, after = (exact_accuracies(y, p, g, weights) for p in (a, b))
    expected = sorted(float(after[group] - before[group]) for group in before)
    np.testing.assert_allclose(sorted(found["change"]), expected, atol=1e-12)
    assert (found["change_low"] <= found["change"] + 1e-12).all()
    assert (found["change_high"] >= found["change"] - 1e-12).all()
    assert found["count"].sum() == n or weights is not None
    back = call(metrics.change_report, Y, B, A, sensitive_features=G, sample_weight=weights)
    np.testing.assert_allclose(back["change"], -found["change"], atol=1e-12)
    np.testing.assert_allclose(back["fvo_change_low"], -found["fvo_change_high"], atol=1e-9)


def excess_accuracy_gap(draw):
    names = ["y_true", "y_pred_float", "y_pred_quantized", "sensitive_features"]
    if draw(st.booleans()):
        found = odd(draw, metrics.excess_accuracy_gap, names)
        assert found is None or 0 <= found <= 2
        return
    n, ((y, Y), (a, A), (b, B)), (g, G), _ = sample_case(draw, 2, weighted=False)
    found = call(metrics.excess_accuracy_gap, Y, A, B, sensitive_features=G)
    before, after = (exact_accuracies(y, p, g, None) for p in (a, b))
    whole = Fraction(sum(int(x == t) - int(z == t) for t, x, z in zip(y, a, b, strict=True)), n)
    expected = max(before[group] - after[group] - whole for group in before)
    assert abs(found - max(0, float(expected))) < 1e-12


def prediction_flip_rate(draw):
    n, column = options(draw)
    groups = draw(st.sampled_from([None, "given"]))
    if draw(st.booleans()):
        found = answer(
            metrics.prediction_flip_rate,
            column(),
            column(),
            sensitive_features=None if groups is None else column(),
        )
        assert found is None or ((np.asarray(found) >= 0).all() and (np.asarray(found) <= 1).all())
        return
    n = max(n, 1)
    pool = (draw(st.sampled_from(LABELS)),)
    (a, A), (b, B) = (good_column(draw, n, pool) for _ in range(2))
    flips = sum(x != z for x, z in zip(a, b, strict=True))
    if groups is None:
        assert call(metrics.prediction_flip_rate, A, B) == flips / n
        return
    g, G = good_column(draw, n)
    found = call(metrics.prediction_flip_rate, A, B, sensitive_features=G)
    assert sorted(found.tolist()) == sorted(
        sum(x != z for x, z, of in zip(a, b, g, strict=True) if of == group) / g.count(group)
        for group in set(g)
    )


def several(draw, function, **more):
    """Reports of several models."""
    names = draw(st.sampled_from([["a"], ["float", "int2"], [8, 2], [True, False], ["x", 3.5]]))
    if draw(st.booleans()):
        n, column = options(draw)
        predictions = {name: column() for name in names}
        if draw(st.integers(0, 5)) == 0:
            predictions = draw(st.sampled_from([None, {}, [], 3, "float"]))
        found = answer(
            function,
            column(),
            predictions,
            sensitive_features=column(),
            sample_weight=any_weights(draw, n),
            metrics=draw(st.sampled_from([None, (), ["selection_rate"], "balanced_accuracy_score"])),
            reference=draw(st.sampled_from([None, "a", "float", 8, 7])),
            random_state=0,
            names=named(function, "y_pred"),
        )
        return found, None
    _, ((y, Y), *predictions), (g, G), weights = sample_case(draw, len(names))
    given = {name: P for name, (_, P) in zip(names, predictions, strict=True)}
    keywords = {"sensitive_features": G, "sample_weight": weights, "random_state": 0, **more}
    found = judged(function, Y, given, names=named(function, "y_pred"), **keywords)
    return found, [exact_accuracies(y, p, g, weights) for p, _ in predictions]


def check_models(models, exact):
    assert finite(models[["accuracy", "fvo", "fvo_low", "fvo_high", "fvo_chance", "flip_rate"]])
    for row, accuracies in zip(models["fvo"], exact, strict=True):
        assert abs(row - float(max(accuracies.values()) - min(accuracies.values()))) < 1e-12


def model_report(draw):
    found, exact = several(draw, metrics.model_report)
    if exact is not None:
        check_models(found, exact)


def compare_models(draw):
    found, exact = several(draw, metrics.compare_models)
    if exact is not None:
        check_models(found.models, exact)
        assert finite(found.groups[["accuracy", "accuracy_low", "accuracy_high"]])
        assert found.changes.empty or finite(found.changes["change"])


def accuracy_frontier(draw):
    n_models, n_groups = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    total = numbers(draw, (n_groups,), [1.0, 2.0, 50.0, 1e9, 1e-3])
    share = numbers(draw, (n_models, n_groups), [0.0, 0.5, 1.0, 0.25])
    correct, groups = share * total, pd.Index([f"g{i}" for i in range(n_groups)])
    if draw(st.booleans()):
        pool = [*SCALARS, np.ones((2, 2)), [[1.0, 2.0]], [float("nan")] * 2, ["a", "b"]]
        wrong = draw(
            st.sampled_from(["strengths", "correct", "total", "groups", "effective", "confidence"])
        )
        arguments = {"strengths": range(n_models), "correct": correct, "total": total, "groups": groups}
        answer(metrics.accuracy_frontier, **{**arguments, wrong: draw(st.sampled_from(pool))})
        return
    try:
        found = call(metrics.accuracy_frontier, range(n_models), correct, total, groups=groups)
    except Refused:
        assert not n_models or not n_groups
        return
    np.testing.assert_allclose(found["fvo"], np.ptp(share, axis=1), atol=1e-12)
    assert finite(found.drop(columns="worst_group"))


def pooled_counts(draw):
    groups = draw(st.lists(st.sampled_from(["a", "b[", "]", "0"]), min_size=1, max_size=3, unique=True))
    counts = numbers(draw, (2, len(groups), 2), [0.0, 1.0, 3.0, 40.0])
    shares = numbers(draw, counts.shape, [0.0, 0.5, 1.0])
    right = np.floor(counts * shares)
    results = {}
    for fold in range(2):
        for i, group in enumerate(groups):
            results[f"split{fold}_test_n_samples[{group}]"] = counts[fold, i]
            results[f"split{fold}_test_n_correct[{group}]"] = right[fold, i]
    return results, counts.sum(0), right.sum(0)


def pooled_report(draw):
    results, counts, right = pooled_counts(draw)
    if draw(st.booleans()):
        results = draw(st.sampled_from([results, {}, {"params": []}, None, 3, [1], {1: 2}]))
        if isinstance(results, dict) and results:
            key = draw(st.sampled_from(sorted(results, key=str)))
            results = {
                **results,
                key: draw(st.sampled_from([[1.0], ["a", "b"], None, [float("nan")] * 2])),
            }
        answer(metrics.pooled_report, results, confidence=draw(st.sampled_from([0.95, *SCALARS])))
        return
    found = call(metrics.pooled_report, results)
    for row in range(2):
        accuracies = [r / n for r, n in zip(right[:, row], counts[:, row], strict=True) if n]
        if accuracies:
            assert abs(found["fvo"][row] - (max(accuracies) - min(accuracies))) < 1e-12
            assert abs(found["accuracy"][row] - right[:, row].sum() / counts[:, row].sum()) < 1e-12
        else:
            assert np.isnan(found["fvo"][row])


def has_counts(draw):
    results, _, _ = pooled_counts(draw)
    assert call(metrics.has_counts, results) is True
    other = draw(st.sampled_from([{}, {"params": []}, {"mean_test_fvo": [1]}, None, 3, [1], {1: 2}]))
    assert answer(metrics.has_counts, other) in (False, None)


def smallest_within(draw):
    limits = {
        name: draw(st.sampled_from([None, 0.0, 0.1, 1, *SCALARS])) for name in ("accuracy_drop", "fvo")
    }
    try:
        refit = call(metrics.smallest_within, **limits)
    except Refused:
        return
    n = draw(st.integers(1, 4))
    accuracy, gap = (numbers(draw, (n,), [0.0, 0.5, 0.9, 1.0, float("nan")]) for _ in range(2))
    size = numbers(draw, (n,), [10.0, 20.0, 30.0, float("nan")])
    results = {"mean_test_accuracy": accuracy, "mean_test_fvo": -gap, "mean_test_size": -size}
    names = {"scorer", "candidate", *limits}
    try:
        best = call(refit, results, names=names)
    except Refused:
        usable = np.isfinite(accuracy + size) & (np.isfinite(gap) | (limits["fvo"] is None))
        assert not usable.any()
        return
    assert isinstance(best, int)
    usable = np.isfinite(accuracy + size)
    within = usable.copy()
    if limits["fvo"] is not None:
        usable &= np.isfinite(gap)
        within = usable & (gap <= limits["fvo"])
    assert usable[best]
    if limits["accuracy_drop"] is not None:
        within &= accuracy[usable].max() - accuracy <= limits["accuracy_drop"] + 1e-12
    if within.any():
        assert within[best]
        assert size[best] == size[within].min()


class Fixed(ClassifierMixin, BaseEstimator):
    """An estimator that predicts what it is told."""

    classes_ = np.array([0, 1])

    def __init__(self, predictions):
        self.predictions = predictions

    def predict(self, X):
        return np.array(self.predictions)

    def fit(self, X, y):
        return self


def scorer_case(draw):
    n = draw(st.sampled_from([1, 2, 5]))
    y, p = (picked(draw, [0, 1], n) for _ in range(2))
    assume(set(y) & set(p))
    groups = draw(st.sampled_from(["strings", "integers", "booleans"]))
    g, _ = good_column(draw, n, (groups,))
    return n, y, p, g, pd.DataFrame({"sex": g, "x": range(n)}, index=range(5, 5 + n))


def make_scorer(draw):
    n, y, p, g, X = scorer_case(draw)
    if draw(st.booleans()):
        features = draw(
            st.sampled_from(["sex", "no", ["sex"], ["sex", "x"], [], 3, None, any_column(draw, n)])
        )
        X = draw(st.sampled_from([X, X.to_numpy(), X.iloc[:0], X.reset_index(drop=True), None]))
        names = {"X", "metric", "sensitive_features", "y_true", "y_pred", "y"}
        try:
            scorer = call(make_fairness_scorer, sensitive_features=features, names=names)
            found = call(scorer, Fixed(p), X, any_column(draw, n), names=names)
        except RuntimeError:
            assert features is None
            return
        except Refused:
            return
        assert -1 <= found <= 0
        return
    features = draw(st.sampled_from(["sex", X["sex"], X[["sex"]], X["sex"][::-1]]))
    scorer = call(make_fairness_scorer, sensitive_features=features)
    exact = exact_accuracies(y, p, g, None).values()
    found = call(scorer, Fixed(p), X, np.array(y), names={"X"})
    assert abs(found + float(max(exact) - min(exact))) < 1e-12


def counts_scorer(draw):
    n, y, p, g, X = scorer_case(draw)
    if draw(st.booleans()):
        groups = draw(
            st.sampled_from([g, [], None, "a", [1, 1], X["sex"], X[["sex"]], any_column(draw, n)])
        )
        names = {"X", "groups", "sensitive_features", "y_true", "y_pred", "scoring", "y"}
        try:
            scorer = call(
                metrics.fairness_counts_scorer, sensitive_features="sex", groups=groups, names=names
            )
            call(scorer, Fixed(p), X, np.array(y), names=names)
        except Refused:
            pass
        return
    scorer = call(metrics.fairness_counts_scorer, sensitive_features="sex", groups=sorted(set(g)))
    found = call(scorer, Fixed(p), X, np.array(y), names={"X"})
    assert sum(v for k, v in found.items() if k.startswith("n_samples")) == n
    assert sum(v for k, v in found.items() if k.startswith("n_correct")) == sum(map(int.__eq__, y, p))


def model_size_scorer(draw):
    size = draw(st.sampled_from([0, 1, 10**12, None]))
    estimator = Fixed([0])
    if size is None:
        other = draw(st.sampled_from([estimator, DummyClassifier(), None, 3, "text"]))
        with pytest.raises((AttributeError, Refused), match=r"model_size_|not fitted|estimator"):
            call(metrics.model_size_scorer, other)
        return
    estimator.model_size_ = size
    assert call(metrics.model_size_scorer, estimator) == -size


TARGETS = {
    "skqfair.fairness_violation_observed": fvo,
    "skqfair.make_fairness_scorer": make_scorer,
    "skqfair.metrics.accuracy_frontier": accuracy_frontier,
    "skqfair.metrics.change_report": change_report,
    "skqfair.metrics.compare_models": compare_models,
    "skqfair.metrics.excess_accuracy_gap": excess_accuracy_gap,
    "skqfair.metrics.fairness_counts_scorer": counts_scorer,
    "skqfair.metrics.group_report": group_report,
    "skqfair.metrics.has_counts": has_counts,
    "skqfair.metrics.model_report": model_report,
    "skqfair.metrics.model_size_scorer": model_size_scorer,
    "skqfair.metrics.pooled_report": pooled_report,
    "skqfair.metrics.prediction_flip_rate": prediction_flip_rate,
    "skqfair.metrics.smallest_within": smallest_within,
}
