"""What the study measures, against other ways to compute it, and the rule behind the verdicts."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from paper import _pieces
from paper._claims import CLAIMS, Claim
from paper._measure import CurvatureSamples, measure
from paper._results import Results
from paper._stages import QUANTIZERS, run_stage
from paper._tasks import Task, load_split, make_net
from paper._verdicts import compare, judge, verdict
from scipy import stats
from sklearn.frozen import FrozenEstimator

from skqfair import QuantizationDiagnostics, QuantizedClassifier
from skqfair.diagnostics import group_gradient_norms, group_hessian_eigenvalues


@pytest.fixture(scope="module")
def trained():
    """A task, its split, and its float net."""
    torch.set_num_threads(1)
    task = Task("digits", max_samples=400, epochs=3, finetune_epochs=1)
    split = load_split(task, 0)
    net = make_net(task)
    clf = QuantizedClassifier(net, weight_bits=None, random_state=0).fit(split.X_train, split.y_train)
    return task, split, clf


def test_measures_agree_with_the_diagnostics(trained):
    _, split, clf = trained
    halves = {f"groups_{part}": getattr(split, f"y_{part}") // 5 for part in ("train", "test")}
    split, frozen = replace(split, **halves), FrozenEstimator(clf.estimator_)
    diagnostics = QuantizationDiagnostics(
        frozen, weight_bits=3, max_samples=64, random_state=0, **QUANTIZERS["plain"]
    ).fit(split.X_test, split.y_test, sensitive_features=split.groups_test)
    own = QuantizedClassifier(frozen, weight_bits=3, random_state=0, **QUANTIZERS["plain"])
    model, rows = measure(own.fit(split.X_train, split.y_train), split, method="plain")
    report = diagnostics.group_report_.loc[3]
    rows = pd.DataFrame(rows).set_index("group")
    assert list(rows.index) == ["0", "1"]
    for column in ("accuracy", "loss", "logit_variance", "boundary_closeness"):
        np.testing.assert_allclose(rows[column], report[column], rtol=1e-9)
        whole = np.average(report[column], weights=report["count"])
        np.testing.assert_allclose(model[column], whole, rtol=1e-9)
    layers = diagnostics.layer_report_.loc[3]
    sparsity = np.average(layers["sparsity"], weights=layers["n_weights"])
    np.testing.assert_allclose(model["sparsity"], sparsity)
    assert model["fvo"] == pytest.approx(report["accuracy"].max() - report["accuracy"].min())
    assert rows["n_train"].tolist() == np.bincount(split.groups_train).tolist()


def test_two_classes_are_measured_by_their_two_logits(trained):
    _, split, _ = trained
    two = replace(split, y_train=split.y_train % 2, y_test=split.y_test % 2)
    net = make_net(Task("digits", epochs=1))
    clf = QuantizedClassifier(net, weight_bits=None, random_state=0).fit(two.X_train, two.y_train)
    model, _ = measure(clf, two)
    p = clf.predict_proba(two.X_test)
    rows = np.arange(len(p))
    np.testing.assert_allclose(model["loss"], -np.log(p[rows, two.y_test]).mean(), rtol=1e-6)
    np.testing.assert_allclose(model["boundary_closeness"], 1 - np.square(p).sum(1).mean(), rtol=1e-6)
    logits = np.log(p)
    np.testing.assert_allclose(model["logit_variance"], logits.var(axis=1).mean(), rtol=1e-6)


def test_curvature_is_measured_on_the_samples_that_it_says(trained):
    _, split, clf = trained
    samples = CurvatureSamples(split, 12, seed=0)
    counts = pd.Series(split.groups_test).value_counts()
    table = pd.DataFrame(samples.measure(clf.module_)).set_index(["sizes", "group"])
    matched = min(12, counts.min())
    assert set(table.loc["matched", ["n_gradient", "n_hessian"]].to_numpy().ravel()) == {matched}
    assert table.loc["plain", "n_gradient"].to_dict() == counts.to_dict()
    assert table.loc["plain", "n_hessian"].to_dict() == counts.clip(upper=12).to_dict()
    expected = group_gradient_norms(clf.module_, split.X_test, split.y_test, split.groups_test)
    np.testing.assert_allclose(table.loc["plain", "gradient_norm"], expected, rtol=1e-5)
    for sizes, n in (("matched", np.full(10, matched)), ("plain", counts.sort_index().clip(upper=12))):
        rows = np.concatenate([drawn[:k] for drawn, k in zip(samples.drawn, n, strict=True)])
        data = split.X_test[rows], split.y_test[rows], split.groups_test[rows]
        values = group_hessian_eigenvalues(clf.module_, *data)[:, 0]
        np.testing.assert_allclose(table.loc[sizes, "hessian_max_eigenvalue"], values, rtol=0.02)
    some = pd.DataFrame(samples.measure(clf.module_, only_matched=True)).set_index(["sizes", "group"])
    missing = some.loc["plain", "hessian_max_eigenvalue"].isna()
    assert missing.to_dict() == (counts.clip(upper=12) > matched).to_dict()
    assert (some.loc["plain", "n_hessian"] == 0).equals(missing)
    assert some.loc["matched"].notna().all(axis=None)


def test_the_interventions_set_the_quantizer_s_zeros_and_round_the_rest(trained, tmp_path):
    task, split, _ = trained
    options = (task, 0, split, [3, 2], 2, str(tmp_path))
    models = pd.DataFrame(run_stage("zeros", *options)["models"]).set_index(["method", "weights"])
    plain = pd.DataFrame(run_stage("quantized", *options)["models"])
    plain = plain[(plain["method"] == "plain") & (plain["activations"] == 32)].set_index("weights")
    for b in (3, 2):
        assert models.loc[("zeros", b), "sparsity"] == plain.loc[b, "sparsity"]
        assert models.loc[("zeros at random", b), "sparsity"] == plain.loc[b, "sparsity"]
        assert models.loc[("rounding", b), "sparsity"] == 0
        assert models.loc[("zeros", b), "loss"] != models.loc[("zeros at random", b), "loss"]


# ------------------------------------------------------------------ verdicts


@pytest.mark.parametrize(
    ("holds", "opposite", "expected"),
    [
        ([1, 1, 1], [0, 0, 0], "holds"),
        ([1, 1, 0], [0, 0, 0], "holds in part"),
        ([1, 0, 0, 0], [0, 0, 0, 0], "holds in part"),
        ([1, 0, 0, 0, 0], [0, 0, 0, 0, 0], "not seen"),  # fewer than a quarter
        ([1, 0, 0], [0, 1, 0], "not seen"),  # as many against it
        ([0, 0, 0], [0, 0, 0], "not seen"),
        ([0, 0, 0], [1, 1, 1], "not seen"),
    ],
)
def test_verdicts(holds, opposite, expected):
    holds, opposite = np.array(holds, bool), np.array(opposite, bool)
    assert verdict(holds, opposite, np.ones(len(holds), bool)) == expected
    assert verdict(holds, opposite, np.zeros(len(holds), bool)) == "no verdict"


def test_intervals_are_those_of_scipy():
    values = np.random.default_rng(0).normal(0.3, 1, 5)
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = compare([*values, np.nan])
    assert found["seeds"] == 5
    np.testing.assert_allclose([found["low"], found["high"]], [interval.low, interval.high])
    assert np.isnan(compare([1.0])["low"])
    assert compare([np.nan, np.nan])["seeds"] == 0


def test_claims_are_judged_by_their_comparisons(study):
    up, down, both = [0.9, 1.0, 1.1], [-0.9, -1.0, -1.1], [-1.0, 0.1, 1.0]

    def claim(key, *arrays):
        return Claim(key, "", "", "", lambda r, task: [(str(i), a) for i, a in enumerate(arrays)])

    claims = [claim("yes", up, up), claim("partly", up, both), claim("no", both, both)]
    claims.append(claim("against", down, up))
    tables, _ = _pieces.read_tables(study)
    verdicts, comparisons = judge(tables, claims)
    assert verdicts["verdict"].to_list() == ["holds", "holds in part", "not seen", "not seen"]
    assert verdicts["hold"].to_list() == [2, 1, 0, 1]
    assert verdicts["opposite"].to_list() == [0, 0, 0, 1]
    assert comparisons["claim"].to_list() == ["yes"] * 2 + ["partly"] * 2 + ["no"] * 2 + ["against"] * 2


def test_rank_correlations_are_those_of_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 4, (6, 3)), rng.normal(size=(6, 3))
    expected = [stats.spearmanr(a, b).statistic for a, b in zip(x.T, y.T, strict=True)]
    np.testing.assert_allclose(Results.correlation(x, y), expected)
    np.testing.assert_allclose(Results.correlation(x[:, 0], y[:, :1]), expected[:1])
    assert np.isnan(Results.correlation(x[:, 0], np.zeros((6, 1)))).all()


def test_comparisons_point_in_the_direction_of_the_claim(study):
    """A network whose gap, loss, zeros and curvature grow with fewer bits, most for the small."""
    tables, _ = _pieces.read_tables(study)
    tables = {name: table.copy() for name, table in tables.items()}
    tables["curvature"]["activations"] = 32
    for name, table in tables.items():
        lost = (table["weights"] == 8) * 1.0 + (table["weights"] == 2) * 2.0
        lost += 0.5 * (table["activations"] == 8) + 1.0 * (table["activations"] == 2)
        lost += (table["weights"] < 32) * (table["activations"] < 32) * 0.3
        weak = 1.0 if name == "models" else 1 / table["n_train"]
        jitter = 1e-6 * (1 + table["seed"])
        if name == "models":
            table["fvo"], table["fvo_chance"] = 0.1 + 0.2 * lost + jitter, 0.2
            pruned, repaired = (
                table["method"].str.startswith("pruned"),
                table["method"].str.contains("weights"),
            )
            table.loc[pruned | repaired, "fvo"] = 0.05
            table["sparsity"] = 0.1 * lost + jitter
            table["accuracy"] = 0.9 - 0.1 * lost - 0.2 * pruned
        if name == "curvature":
            table["gradient_norm"] = (1 + lost) * (1 + weak)
            table["hessian_max_eigenvalue"] = (1 + lost) * (1 + weak)
            continue
        table["loss"] = 0.2 + lost * (1 + weak) + jitter
        table["logit_variance"] = 5 - lost
        table["boundary_closeness"] = 0.1 + 0.1 * lost + jitter
        if name == "groups":
            table["accuracy"] = 0.9 - 0.1 * lost * (1 + weak)
    verdicts = judge(tables, CLAIMS)[0].set_index("claim")["verdict"]
    unmoved = {"cause", "variance by zeros", "moderate", "batchnorm", "minimax", "bound"}
    unmoved |= {"against pruning, accuracy"}
    assert set(verdicts.drop(index=list(unmoved))) == {"holds"}, verdicts
