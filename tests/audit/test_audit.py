"""The audit against its parts, and what it says and refuses."""

import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.tree import DecisionTreeClassifier

import skqfair.audit
from skqfair import CompressionAudit, QuantizedClassifier
from skqfair.exceptions import AuditFailure
from skqfair.metrics import change_report, compare_models, group_report
from skqfair.networks import make_classifier

RNG = np.random.default_rng(0)
N = 900
GROUPS = pd.Series(RNG.choice(["a", "b", "c"], N, p=[0.6, 0.3, 0.1]), name="sex")
Y = pd.Series(RNG.choice(["no", "yes"], N))


def wrong(share, seed, group=None):
    """Labels of which a share is wrong, in one group or in all."""
    flip = np.random.default_rng(seed).random(N) < share
    flip &= True if group is None else (group == GROUPS).to_numpy()
    return np.where(flip, np.where(Y == "yes", "no", "yes"), Y)


MODELS = {"float": wrong(0.05, 1), "int8": wrong(0.05, 1), "int2": wrong(0.4, 2, "c")}


@pytest.fixture(scope="module")
def audit():
    return CompressionAudit.from_predictions(Y, MODELS, sensitive_features=GROUPS)


def test_tables_are_those_of_the_reports(audit):
    tables = compare_models(Y, MODELS, sensitive_features=GROUPS, reference="float")
    for name in tables._fields:
        pd.testing.assert_frame_equal(getattr(audit, name), getattr(tables, name))
    report = group_report(Y, MODELS["int2"], sensitive_features=GROUPS, random_state=0)
    found = audit.groups.loc["int2"]
    pd.testing.assert_frame_equal(found[list(report)], report)
    changes = change_report(Y, MODELS["float"], MODELS["int2"], sensitive_features=GROUPS)
    pd.testing.assert_frame_equal(audit.changes.loc["int2"][list(changes)], changes)
    assert {"selection_rate", "true_positive_rate", "false_positive_rate"} <= set(audit.models)


def test_verdicts_say_who_lost(audit):
    said = "\n".join(audit.verdicts)
    row = audit.changes.loc[("int2", "c")]
    assert (
        f"int2 against float: accuracy {100 * audit.models.loc['int2', 'accuracy_change']:+.1f} points"
        in said
    )
    assert f"; accuracy lost: c {100 * row['change']:+.1f} points" in said
    assert f"{row['lost']:g} lost and {row['gained']:g} gained of {row['count']:g}" in said
    assert "; an accuracy gap between groups is established" in said
    assert "int2 against float: compression widened the gap" in said
    assert "; an accuracy gap between groups is not established" in said
    assert "; no change is established in any group: a loss would have to be" in said
    assert "over 2 compressed models the chance that one is wrong adds up to at most 10%" in said
    assert audit.verdicts[-1].startswith("That no gap was found does not mean that a model is fair")


def test_verdicts_of_one_group_and_of_groups_of_one():
    y = Y[:40]
    one = CompressionAudit.from_predictions(
        y, {"float": y, "int8": y}, sensitive_features=np.full(40, "all"), metrics=()
    )
    assert "one group only" in one.verdicts[0]
    groups = np.array(["single"] + ["rest"] * 39)
    audit = CompressionAudit.from_predictions(
        y, {"float": y, "int8": MODELS["int2"][:40]}, sensitive_features=groups, metrics=()
    )
    assert any("groups of one sample nothing can be said: single" in said for said in audit.verdicts)


def test_the_gate_by_hand(audit):
    right = {name: np.mean(labels == Y) for name, labels in MODELS.items()}
    flips = np.mean(MODELS["float"] != MODELS["int2"])
    with pytest.raises(AuditFailure) as failed:
        audit.require(max_fvo=0.2, max_accuracy_drop=0.01, max_flip_rate=0.01, max_excess_gap=1)
    rows = {row["limit"]: row for row in failed.value.failures}
    assert {row["model"] for row in failed.value.failures} == {"int2"}
    assert rows["max_flip_rate"]["figure"] == pytest.approx(flips)
    assert "max_excess_gap" not in rows
    assert rows["max_fvo"]["figure"] == audit.models.loc["int2", "fvo"]
    assert "int2: max_fvo=0.2 is exceeded; it is 0." in str(failed.value)
    table = audit.require(max_accuracy_drop=0.5, max_fvo=1)
    assert table["kept"].all()
    drop = table[(table["model"] == "int2") & (table["limit"] == "max_accuracy_drop")].iloc[0]
    assert drop["figure"] == pytest.approx(right["float"] - right["int2"])
    assert drop["low"] < drop["figure"] < drop["high"]


def test_the_gate_on_upper_ends(audit):
    row = audit.models.loc["int8"]
    between = (row["fvo"] + row["fvo_high"]) / 2
    two = CompressionAudit.from_predictions(
        Y, {k: MODELS[k] for k in ("float", "int8")}, sensitive_features=GROUPS
    )
    two.require(max_fvo=between)
    with pytest.raises(AuditFailure, match="its interval ends"):
        two.require(max_fvo=between, on="upper")


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({}, "at least one limit"),
        ({"max_fvo": -1}, "max_fvo must be a share"),
        ({"max_fvo": "low"}, "max_fvo must be a share, a number in .0, 1., got .low."),
        ({"max_fvo": 20}, "0.05 stands for 5 points"),
        ({"max_fvo": np.nan}, "max_fvo must be a share"),
        ({"max_fvo": 0.1, "on": "lower"}, "on must be"),
    ],
)
def test_limits_that_are_none(audit, limits, message):
    with pytest.raises(ValueError, match=message):
        audit.require(**limits)


def test_a_reference_alone():
    audit = CompressionAudit.from_predictions(Y, {"float": MODELS["float"]}, sensitive_features=GROUPS)
    with pytest.raises(ValueError, match="max_flip_rate compares with the reference, and there is no"):
        audit.require(max_fvo=1, max_flip_rate=1)
    kept = audit.require(max_fvo=1)
    assert kept[["model", "figure"]].to_numpy().tolist() == [["float", audit.models.loc["float", "fvo"]]]
    with pytest.raises(AuditFailure):
        audit.require(max_fvo=0)
    assert audit.changes.empty
    page = audit.to_html()
    assert "Whom does it serve worse?" in page
    assert "flip rate" not in page
    assert "max_fvo=0 is exceeded" in page


def test_other_metrics_that_changed_are_said():
    y, groups = np.repeat(["no", "yes"], 300), np.tile(["a", "b"], 300)
    small = np.where((y == "yes") & (groups == "a") & (np.arange(600) % 4 == 0), "no", y)
    audit = CompressionAudit.from_predictions(y, {"float": y, "small": small}, sensitive_features=groups)
    row = audit.changes.loc[("small", "a")]
    figure = "{:+.3f} ({:+.3f} to {:+.3f})".format(
        *(row[f"true_positive_rate_change{end}"] for end in ("", "_low", "_high"))
    )
    said = next(s for s in audit.verdicts if "other metrics that changed" in s)
    assert f"true positive rate of a {figure}" in said
    assert " of b " not in said
    assert "Rates count the label 'yes'; pos_label says another." in audit.verdicts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": "fp32"}, r"reference 'fp32' is none of \['float'"),
        ({"predictions": {}}, "predictions is empty"),
        ({"predictions": [1, 2]}, "predictions is a list"),
        ({"predictions": {"float": Y, "int8": Y[:-1]}}, "y_pred of 'int8' must have one entry"),
        ({"predictions": {"float": Y, "int8": Y[::-1]}}, "'int8' has the index .* in another order"),
        ({"predictions": {"float": Y, "int8": Y + "!"}}, "'int8' shares no label with y_true"),
        ({"predictions": {"float": Y, "int8": np.full((N, 2), 0.6)}}, "rows sum to 1.2"),
        ({"pos_label": "maybe"}, "pos_label='maybe' is no label"),
        ({"confidence": 95}, "confidence must be"),
        ({"classes": ["no", "maybe"]}, r"lacks .*\['yes'\]"),
        ({"classes": ["no", "yes", "no"]}, "names a label twice"),
        ({"predictions": {"float": Y, "int8": None}}, "'int8' must have one entry .* got None"),
        ({"predictions": {"float": Y, None: Y}}, r"models need names, .* got \['float', None\]"),
        ({"predictions": {"float": Y, "int8": Y.where(Y.index > 1)}}, "'int8' has 2 missing labels"),
        ({"sensitive_features": GROUPS.where(GROUPS != "c")}, "values of 'sex' are missing"),
        ({"sample_weight": np.zeros(N)}, "0 for every sample"),
        ({"sizes": {"int4": 3}}, r"sizes names \['int4'\]"),
    ],
)
def test_bad_input(change, message):
    arguments = {"y_true": Y, "predictions": MODELS, "sensitive_features": GROUPS, **change}
    with pytest.raises(ValueError, match=message):
        CompressionAudit.from_predictions(**arguments)


def test_the_seed_and_the_data_are_said(audit):
    again = CompressionAudit.from_predictions(Y, MODELS, sensitive_features=GROUPS)
    other = CompressionAudit.from_predictions(
        Y, {**MODELS, "int8": wrong(0.05, 9)}, sensitive_features=GROUPS, random_state=3
    )
    assert audit.context["data_sha256"] == again.context["data_sha256"]
    assert audit.context["data_sha256"] != other.context["data_sha256"]
    assert "random_state=3" in other.context["call"]
    pd.testing.assert_frame_equal(audit.models, again.models)


class TunedThreshold(DummyClassifier):
    """Predicts "yes" wherever its probability is above 0.2."""

    def predict(self, X):
        return np.where(self.predict_proba(X)[:, 1] > 0.2, "yes", "no")


def features():
    return np.column_stack([(Y == "yes") + RNG.normal(size=N), RNG.normal(size=N)])


def test_models_of_any_kind():
    X = features()
    linear = LogisticRegression().fit(X, Y)
    models = {
        "float": linear,
        "labels": linear.predict,
        "probabilities": linear.predict_proba,
        "array": linear.predict(X),
    }
    audit = CompressionAudit.from_models(models, X, Y, sensitive_features=GROUPS)
    assert (audit.models["flip_rate"] == 0).all()
    assert audit.models.loc["float", "accuracy"] == linear.score(X, Y)
    assert "size" not in audit.models
    two = {"float": linear, "probabilities": linear.predict_proba}
    losses = CompressionAudit.from_models(two, X, Y, sensitive_features=GROUPS).models["log_loss"]
    assert losses["float"] == losses["probabilities"]


def test_labels_win_over_probabilities():
    X = features()
    tuned = TunedThreshold().fit(X, Y)
    audit = CompressionAudit.from_models(
        {"float": LogisticRegression().fit(X, Y), "tuned": tuned}, X, Y, sensitive_features=GROUPS
    )
    assert audit.models.loc["tuned", "accuracy"] == np.mean(Y == "yes")
    assert audit.models.loc["tuned", "selection_rate"] == 1


def test_classes_that_the_data_lack():
    """Probabilities of a label that no held-out sample has keep their column."""
    X, y = features(), Y.where(GROUPS != "c", "maybe")
    model = LogisticRegression().fit(X, y)
    held = np.flatnonzero(y != "maybe")
    audit = CompressionAudit.from_models(
        {"float": model, "int8": model.predict_proba},
        X[held],
        y.iloc[held],
        sensitive_features=GROUPS.iloc[held],
        metrics=["log_loss"],
    )
    columns = np.where(y.iloc[held] == "no", 1, 2)
    losses = -np.log(model.predict_proba(X[held])[np.arange(len(held)), columns])
    assert audit.models["log_loss"].tolist() == pytest.approx([losses.mean()] * 2)


def test_sizes_come_from_the_models():
    X = features()
    linear = LogisticRegression().fit(X, Y)
    small = LogisticRegression().fit(X, Y)
    small.model_size_ = 120
    audit = CompressionAudit.from_models(
        {"float": linear, "small": small}, X, Y, sensitive_features=GROUPS, metrics=()
    )
    assert audit.models.loc["small", "size"] == 120
    assert "120" in audit.to_html()


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"float": LogisticRegression()}, r"models\['float'\] is not fitted"),
        ({"float": 3}, r"models\['float'\] must be a fitted classifier, .*TorchClassifier"),
        ({"int8": 3}, "reference 'float' is none of"),
    ],
)
def test_models_that_are_none(models, message):
    with pytest.raises(ValueError, match=message):
        CompressionAudit.from_models(models, features(), Y, sensitive_features=GROUPS)


def test_every_candidate_of_a_search():
    X = features()
    grid = {"max_depth": [1, 3], "min_samples_leaf": [2]}
    search = GridSearchCV(DecisionTreeClassifier(random_state=0), grid).fit(X, Y)
    options = {"X_train": X, "y_train": Y, "sensitive_features": GROUPS}
    name = "max_depth=3, min_samples_leaf=2"
    audit = CompressionAudit.from_search(search, X, Y, reference=name, metrics=(), **options)
    assert list(audit.models.index) == ["max_depth=1, min_samples_leaf=2", name]
    own = DecisionTreeClassifier(random_state=0, max_depth=1, min_samples_leaf=2).fit(X, Y)
    assert audit.models["accuracy"].iloc[0] == own.score(X, Y)
    audit = CompressionAudit.from_search(search, X, Y, reference=own, metrics=(), **options)
    assert audit.reference == "reference"
    assert audit.models.loc["max_depth=1, min_samples_leaf=2", "flip_rate"] == 0
    with pytest.raises(ValueError, match="0 candidates have weight_bits=None; name the reference"):
        CompressionAudit.from_search(search, X, Y, **options)
    with pytest.raises(ValueError, match="is no candidate"):
        CompressionAudit.from_search(search, X, Y, reference="depth", **options)
    with pytest.raises(ValueError, match="no cv_results_"):
        CompressionAudit.from_search(GridSearchCV(own, grid), X, Y, **options)


def test_public_names():
    assert skqfair.audit.CompressionAudit is CompressionAudit


def test_a_search_over_bit_widths():
    """The float candidate is the reference, and sizes are known."""
    X, y = features().astype("float32"), (Y == "yes").astype(int)
    net = make_classifier(module__hidden_sizes=(4,), max_epochs=1)
    search = GridSearchCV(
        QuantizedClassifier(net, random_state=0), {"weight_bits": [None, 2]}, cv=2, error_score="raise"
    ).fit(X, y)
    audit = CompressionAudit.from_search(
        search, X, y, X_train=X, y_train=y, sensitive_features=GROUPS, metrics=()
    )
    assert audit.reference == "weight_bits=None"
    assert audit.models["size"].is_monotonic_decreasing
    own = QuantizedClassifier(net, random_state=0, weight_bits=2).fit(X, y)
    assert audit.models.loc["weight_bits=2", "accuracy"] == own.score(X, y)


def test_rows_of_models_are_aligned_and_columns_have_names():
    X = pd.DataFrame(features(), columns=["a", "b"]).assign(sex=(GROUPS == "a").astype(int))
    models = {"float": LogisticRegression().fit(X, Y), "int8": LogisticRegression(C=1e-4).fit(X, Y)}
    by_name = CompressionAudit.from_models(models, X, Y, sensitive_features="sex")
    by_values = CompressionAudit.from_models(models, X, Y, sensitive_features=X["sex"])
    pd.testing.assert_frame_equal(by_name.groups, by_values.groups)
    with pytest.raises(ValueError, match="y has the index of X in another order"):
        CompressionAudit.from_models(models, X, Y[::-1], sensitive_features="sex")
    with pytest.raises(ValueError, match="sensitive_features has the index of X in another order"):
        CompressionAudit.from_models(models, X, Y, sensitive_features=GROUPS[::-1])
    with pytest.raises(ValueError, match="X has no column"):
        CompressionAudit.from_models(models, X, Y, sensitive_features="race")


@pytest.mark.parametrize("name", ["count", "model", "group", "accuracy", "metric", "sample"])
def test_groups_of_any_name(name):
    audit = CompressionAudit.from_predictions(
        Y, MODELS, sensitive_features=GROUPS.rename(name), metrics=()
    )
    assert name in audit.to_html()
    assert name in audit.to_markdown()
    back = CompressionAudit.from_json(audit.to_json())
    pd.testing.assert_frame_equal(back.groups, audit.groups)


def test_samples_and_frames_of_other_libraries():
    keys = pd.MultiIndex.from_arrays([np.arange(N) // 10, np.arange(N) % 10])
    y = Y.set_axis(keys)
    audit = CompressionAudit.from_predictions(
        y, {name: pd.Series(v, keys) for name, v in MODELS.items()}, sensitive_features=GROUPS.to_numpy()
    )
    assert isinstance(audit.exemplars.index[0], tuple)
    assert audit.to_html()
    back = CompressionAudit.from_json(audit.to_json())
    pd.testing.assert_frame_equal(back.exemplars, audit.exemplars)
    frame = pl.DataFrame({"y": Y.to_list(), **{k: v.tolist() for k, v in MODELS.items()}})
    other = CompressionAudit.from_predictions(
        frame["y"], {name: frame[name] for name in MODELS}, sensitive_features=GROUPS.to_numpy()
    )
    pd.testing.assert_frame_equal(audit.models, other.models)
    pd.testing.assert_frame_equal(audit.changes, other.changes)


@pytest.mark.parametrize(
    "how",
    [
        lambda y: (y == "yes").astype(int),
        lambda y: (y == "yes").to_numpy(),
        lambda y: y.astype("category"),
        lambda y: y.to_numpy().astype("S3"),
        lambda y: pl.Series(y.to_list()),
        lambda y: pd.array(y == "yes", dtype="boolean"),
    ],
)
def test_labels_of_any_type_are_the_same_audit(audit, how):
    models = {name: how(pd.Series(labels)) for name, labels in MODELS.items()}
    other = CompressionAudit.from_predictions(how(Y), models, sensitive_features=GROUPS)
    pd.testing.assert_frame_equal(other.models, audit.models)
    pd.testing.assert_frame_equal(other.changes, audit.changes)


@pytest.mark.parametrize(
    "groups",
    [
        GROUPS.astype("category"),
        pl.Series("sex", GROUPS.to_list(), dtype=pl.Categorical),
        pl.DataFrame({"sex": GROUPS.to_list()}),
        pd.cut(pd.Series(np.arange(N), name="age"), 3),
        pd.Series(pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(N) % 3, "D"), name="day"),
        np.arange(N) % 2 == 0,
    ],
    ids=["categorical", "polars", "polars frame", "intervals", "days", "bool"],
)
def test_groups_of_any_type(groups):
    made = CompressionAudit.from_predictions(Y, MODELS, sensitive_features=groups, metrics=())
    back = CompressionAudit.from_json(made.to_json())
    found = back.groups["accuracy"].to_numpy()
    np.testing.assert_array_equal(found, made.groups["accuracy"])
    assert back.verdicts == made.verdicts
    assert made.to_html()


def test_a_failure_can_be_pickled(audit):
    with pytest.raises(AuditFailure) as failed:
        audit.require(max_flip_rate=0)
    back = pickle.loads(pickle.dumps(failed.value))
    assert back.failures == failed.value.failures
    assert str(back) == str(failed.value)


def test_audits_of_all_sorts_hold_their_figures_and_come_back():
    """Few samples, one class, weights, labels of any type: figures lie in their intervals."""
    rng = np.random.default_rng(0)
    kinds = [np.arange(3) + 3, np.array([False, True, True]), np.array(list("abc")), np.arange(3) * 1.0]
    for trial in range(24):
        n, n_groups, n_classes = rng.choice([2, 3, 5, 30]), rng.choice([1, 2, 8]), trial % 3 + 1
        labels = kinds[trial % 4][:n_classes]
        y = labels[rng.integers(0, n_classes, n)]
        models = {}
        for name in ("float", "int8"):
            models[name] = np.where(rng.random(n) < 0.3, rng.permutation(y), y)
            models[name][0] = y[0]
        weights = rng.random(n) if trial % 2 else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedMetricWarning)
            audit = CompressionAudit.from_predictions(
                y, models, sensitive_features=rng.integers(0, n_groups, n), sample_weight=weights
            )
        row = audit.models.loc["int8"]
        for name in ("accuracy", "fvo", "flip_rate", "excess_accuracy_gap", "fvo_change"):
            assert row[f"{name}_low"] - 1e-9 <= row[name] <= row[f"{name}_high"] + 1e-9
        back = CompressionAudit.from_json(audit.to_json())
        for table in ("models", "groups", "changes", "detectable", "exemplars"):
            pd.testing.assert_frame_equal(getattr(back, table), getattr(audit, table))
        assert audit.to_html()
        assert audit.to_markdown()


def test_sentences_name_the_hardest_hit_of_many_groups():
    y, groups = np.zeros(4000, int), np.arange(4000) % 8
    y[:8] = 1
    worse = np.where(np.random.default_rng(0).random(4000) < 0.1 + groups / 20, 1 - y, y)
    audit = CompressionAudit.from_predictions(
        y, {"float": y, "int2": worse}, sensitive_features=groups, metrics=()
    )
    said = next(said for said in audit.verdicts if "accuracy lost" in said)
    hardest = audit.changes.loc["int2", "change"].nsmallest(5).index
    assert all(f" {group} -" in said for group in hardest)
    assert said.endswith("; and 3 more of 8 groups, in the table.")


def test_labels_of_several_types_and_the_label_that_rates_count():
    groups = ["a"] * 20 + ["b"] * 20
    mixed = np.array([1, "x"] * 20, dtype=object)
    changed = np.where(np.arange(40) == 3, 1, mixed)
    predictions = {"float": mixed, "int8": changed}
    audit = CompressionAudit.from_predictions(mixed, predictions, sensitive_features=groups)
    assert audit.models.loc["int8", "flip_rate"] == 1 / 40
    y = np.array(["no", "yes"] * 20)
    audit = CompressionAudit.from_predictions(
        y, {"float": y, "int8": y[::-1]}, sensitive_features=groups
    )
    assert "pos_label='yes'" in audit.context["call"]
