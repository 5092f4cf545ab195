"""A pruned network is diagnosed as it is, beside its float net."""

import numpy as np
import pytest
import torch
from diagnostics_reference import forward_columns
from nets import CODES, small
from sklearn.frozen import FrozenEstimator

from skqfair import PrunedClassifier, QuantizationDiagnostics
from skqfair.displays import GroupDiagnosticsDisplay, LayerSensitivityDisplay


@pytest.mark.filterwarnings("ignore::skqfair.exceptions.SmallGroupWarning")
@pytest.mark.parametrize("options", [{}, {"scope": "layer", "finetune_epochs": 2}])
def test_pruned_networks(problem, options):
    X, y, groups = problem
    clf = PrunedClassifier(small(), amount=0.6, random_state=0, **options).fit(X, y)
    diagnostics = QuantizationDiagnostics(FrozenEstimator(clf), random_state=0)
    diagnostics.fit(X, y, sensitive_features=groups)
    report, layers = diagnostics.group_report_, diagnostics.layer_report_
    assert report.index.unique("bits").to_list() == ["float", "pruned"]

    with torch.no_grad():
        modules = {"float": clf.estimator_.module_.eval(), "pruned": clf.module_}
        logits = {name: module(torch.as_tensor(X)).numpy() for name, module in modules.items()}
    codes = np.array([CODES[label] for label in y])
    for name in modules:
        expected = forward_columns(logits[name], logits["float"], codes, groups)
        for column in ("accuracy", "loss", "flip_rate", "excess_loss"):
            np.testing.assert_allclose(report.loc[name, column], expected[column], atol=1e-6)
    np.testing.assert_allclose(
        report.loc["pruned", "excess_loss_weights"], report.loc["pruned", "excess_loss"], atol=1e-9
    )

    assert layers.index.to_list() == [("pruned", name) for name in clf.layer_amounts_]
    before = dict(modules["float"].named_parameters())
    for name, value in clf.module_.named_parameters():
        if name in clf.layer_amounts_:
            row, old = layers.loc[("pruned", name)], before[name].detach().double().numpy()
            error = old - value.detach().double().numpy()
            assert row["n_weights"] == old.size
            assert row["sparsity"] == clf.layer_amounts_[name]
            assert row["saturation"] == 0
            assert row["sqnr_db"] == pytest.approx(10 * np.log10((old**2).sum() / (error**2).sum()))

    names = diagnostics.get_feature_names_out()
    assert names[-1] == "flip_pruned"
    flips = diagnostics.transform(X)[:, -1]
    np.testing.assert_array_equal(flips, logits["float"].argmax(1) != logits["pruned"].argmax(1))
    for display in (GroupDiagnosticsDisplay, LayerSensitivityDisplay):
        display.from_diagnostics(diagnostics)


@pytest.mark.filterwarnings("ignore::skqfair.exceptions.SmallGroupWarning")
def test_expansions_explain_a_light_pruning(problem):
    X, y, groups = problem
    clf = PrunedClassifier(small(), amount=0.15, random_state=0).fit(X, y)
    diagnostics = QuantizationDiagnostics(FrozenEstimator(clf), random_state=0)
    report = diagnostics.fit(X, y, sensitive_features=groups).group_report_.loc["pruned"]
    found, expected = report["excess_loss_second_order"], report["excess_loss"]
    assert (expected.abs() > 1e-4).any()
    np.testing.assert_allclose(found, expected, atol=0.1 * expected.abs().max())
