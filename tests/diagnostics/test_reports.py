"""Every figure of the reports against an independent computation."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from diagnostics_reference import derivative_columns, expansion, forward_columns, probabilities
from scipy.stats import t as student
from scipy.stats import ttest_1samp
from sklearn.frozen import FrozenEstimator
from torch import nn

from skqfair import FairQATClassifier, QuantizationDiagnostics, QuantizedClassifier
from skqfair.diagnostics._reports import _ORDER, group_report
from skqfair.networks import ConvNet, TorchClassifier, make_classifier
from skqfair.quantization import QuantizationScheme, convert

MEASURES = [
    "gradient_norm",
    "gradient_norm_debiased",
    "hessian_max_eigenvalue",
    "hessian_min_eigenvalue",
    "hessian_trace",
]
BITS = (8, 4, 2)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 6)).astype(np.float32)
    y = np.array(["low", "mid", "high"])[(X[:, 0] > 0).astype(int) + (X[:, 1] * X[:, 2] > 0.3)]
    groups = np.array(["a", "b", "c"])[np.searchsorted([0.6, 0.82], rng.random(600))]
    return X, y, groups


@pytest.fixture(scope="module")
def trained(data):
    """A net trained on positions, its X and groups."""
    X, y, groups = data
    codes = np.unique(y, return_inverse=True)[1]
    torch.manual_seed(0)
    net = make_classifier(module__hidden_sizes=(12, 8), max_epochs=10, lr=0.01).fit(X, codes)
    return net, X, codes, groups


@pytest.fixture(scope="module")
def fitted(trained):
    net, X, codes, groups = trained
    diagnostics = QuantizationDiagnostics(FrozenEstimator(net), n_eigenvalues=3, random_state=0)
    return diagnostics.fit(X, codes, sensitive_features=groups)


def quantized(net, bits):
    """The module at some bits, by the quantization core alone."""
    if bits == "float":
        return copy.deepcopy(net.module_).eval()
    return convert(net.module_, QuantizationScheme(bits)).module.eval()


def logits_of(module, X):
    with torch.no_grad():
        return module(torch.as_tensor(X)).double().numpy()


@pytest.mark.parametrize("bits", ["float", *BITS])
def test_columns_of_all_samples(trained, fitted, bits):
    net, X, y, groups = trained
    logits = logits_of(quantized(net, bits), X)
    expected = forward_columns(logits, logits_of(quantized(net, "float"), X), y, groups)
    report = fitted.group_report_.loc[bits]
    for name, values in expected.items():
        np.testing.assert_allclose(report[name], values, rtol=1e-5, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(report["excess_loss_weights"], report["excess_loss"], atol=1e-12)
    losses = [
        -np.log(probabilities(z)[np.arange(len(y)), y]) for z in (logits, logits_of(net.module_, X))
    ]
    for group in "abc":  # paired t-intervals, Bonferroni over three groups
        paired = (losses[0] - losses[1])[groups == group]
        if bits != "float":
            interval = ttest_1samp(paired, 0).confidence_interval(1 - 0.05 / 3)
            ends = report.loc[group, ["excess_loss_low", "excess_loss_high"]].astype(float)
            np.testing.assert_allclose(ends, interval, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bits", ["float", *BITS])
def test_columns_at_matched_sizes(trained, fitted, bits):
    net, X, y, groups = trained
    report, smallest = fitted.group_report_.loc[bits], (groups == "c").sum()
    assert (report["n_matched"] == smallest).all()
    rows = groups == "c"  # the smallest group is compared entire, in one draw
    expected = derivative_columns(quantized(net, bits), X[rows], torch.as_tensor(y[rows]))
    for name in MEASURES:
        assert report.loc["c", name] == pytest.approx(expected[name], rel=1e-3), name
        assert np.isnan(report.loc["c", [f"{name}_low", f"{name}_high"]].astype(float)).all()
        for group in "ab":
            low, mean, high = report.loc[group, [f"{name}_low", name, f"{name}_high"]]
            assert low <= mean <= high
            assert low < high
    top = fitted.hessian_eigenvalues_.loc[bits].loc["c"]
    assert top.index.to_list() == [1, 2, 3]
    assert top[1] == report.loc["c", "hessian_max_eigenvalue"]
    assert (np.diff(top) < 0).all()


def test_without_matching_every_group_is_taken_entire(trained):
    net, X, y, groups = trained
    diagnostics = QuantizationDiagnostics(
        FrozenEstimator(net), weight_bits=3, match_group_sizes=False, random_state=0
    ).fit(X, y, sensitive_features=groups)
    for bits in ("float", 3):
        for group in "abc":
            row, rows = diagnostics.group_report_.loc[(bits, group)], groups == group
            expected = derivative_columns(quantized(net, bits), X[rows], torch.as_tensor(y[rows]))
            assert row["n_matched"] == rows.sum()
            for name in MEASURES:
                assert row[name] == pytest.approx(expected[name], rel=1e-3), name


def test_the_expansion_of_the_excess_loss(trained, fitted):
    net, X, y, groups = trained
    for bits in BITS:
        for group in "abc":
            rows = groups == group
            first, second = expansion(
                quantized(net, "float"), quantized(net, bits), X[rows], torch.as_tensor(y[rows])
            )
            layers = fitted.attribution_.loc[bits].xs(group, level="group")
            for order, terms in (("first", first), ("second", second)):
                column = layers[f"excess_loss_{order}_order"]
                expected = [terms[layer] for layer in column.index]
                np.testing.assert_allclose(column, expected, atol=1e-5 * max(np.abs(expected)))
                total = fitted.group_report_.loc[(bits, group), f"excess_loss_{order}_order"]
                assert total == pytest.approx(column.sum(), abs=1e-12)
                assert total == pytest.approx(sum(terms.values()), rel=1e-4, abs=1e-7)


def test_the_expansion_is_close_where_the_change_is_small(fitted):
    report = fitted.group_report_.loc[8]
    error = (report["excess_loss_second_order"] - report["excess_loss_weights"]).abs()
    assert (error <= 0.25 * report["excess_loss_weights"].abs()).all()


def test_layers(trained, fitted):
    net, *_ = trained
    for bits in BITS:
        core = convert(net.module_, QuantizationScheme(bits))
        report = fitted.layer_report_.loc[bits]
        assert report.index.to_list() == list(core.weights)
        for name, weight in core.weights.items():
            w = dict(net.module_.named_parameters())[name].detach().double().numpy()
            codes, scale = weight.codes.numpy(), weight.scale.double().numpy()
            error = w - codes * scale
            row = report.loc[name]
            assert row["n_weights"] == w.size
            assert row["sparsity"] == pytest.approx((codes == 0).mean())
            assert row["sqnr_db"] == pytest.approx(
                10 * np.log10((w**2).sum() / (error**2).sum()), abs=1e-4
            )
            beyond = np.abs(w / scale) > 2 ** (bits - 1) - 1 + 0.5
            assert row["saturation"] == pytest.approx(beyond.mean())


def test_activations_by_layer_and_group(trained):
    net, X, y, groups = trained
    diagnostics = QuantizationDiagnostics(
        FrozenEstimator(net), weight_bits=4, activation_bits=3, calibration="percentile", random_state=0
    ).fit(X, y, sensitive_features=groups)
    classifier = QuantizedClassifier(
        FrozenEstimator(net), weight_bits=4, activation_bits=3, calibration="percentile", random_state=0
    )
    module = diagnostics._versions[1].classifier.module_
    inputs, outputs = {}, {}
    for key, net_module in (("float", net.module_), ("low", module)):
        for name, child in net_module.named_modules():
            if isinstance(child, torch.nn.Linear):
                child.register_forward_hook(
                    lambda m, args, out, at=(key, name): outputs.__setitem__(at, out.numpy())
                )
                child.register_forward_pre_hook(
                    lambda m, args, at=(key, name): inputs.__setitem__(at, args[0].numpy()),
                    prepend=True,
                )
        logits_of(net_module, X)
        for child in net_module.modules():
            child._forward_hooks.clear()
    net.module_._forward_pre_hooks.clear()
    for name in ("hidden0", "hidden1", "output"):
        child = module.get_submodule(name)
        quantizer = next(h for h in child._forward_pre_hooks.values() if hasattr(h, "scale"))
        clean, noisy = outputs["float", name].astype(float), outputs["low", name].astype(float)
        ratio = inputs["low", name] / float(quantizer.scale)
        beyond = np.abs(ratio) > 3.5 if quantizer.signed else (ratio > 7.5) | (ratio < 0)
        for group in "abc":
            rows = groups == group
            row = diagnostics.attribution_.loc[(4, f"{name}.weight", group)]
            signal, noise = (clean[rows] ** 2).sum(), ((clean - noisy)[rows] ** 2).sum()
            assert row["activation_sqnr_db"] == pytest.approx(10 * np.log10(signal / noise), abs=1e-3)
            assert row["clipping_rate"] == pytest.approx(beyond[rows].mean(), abs=1e-3)
    assert diagnostics.attribution_["clipping_rate"].max() > 0
    report = diagnostics.group_report_.loc[4]
    weights_only = convert(net.module_, QuantizationScheme(4, calibration="percentile")).module
    alone = forward_columns(logits_of(weights_only, X), logits_of(net.module_, X), y, groups)
    np.testing.assert_allclose(report["excess_loss_weights"], alone["excess_loss"], atol=1e-6)
    assert (report["excess_loss"] != report["excess_loss_weights"]).all()
    assert classifier.activation_bits == 3


def test_outputs_of_layers_are_those_before_an_activation_in_place(data):
    X, y, groups = data
    codes, tables = np.unique(y, return_inverse=True)[1], []
    for in_place in (True, False):
        torch.manual_seed(0)
        module = torch.nn.Sequential(
            torch.nn.Linear(6, 9), torch.nn.ReLU(inplace=in_place), torch.nn.Linear(9, 3)
        )
        net = make_classifier(module, max_epochs=2).fit(X, codes)
        diagnostics = QuantizationDiagnostics(FrozenEstimator(net), weight_bits=3, random_state=0)
        diagnostics.fit(X, codes, sensitive_features=groups)
        tables.append(diagnostics.attribution_["activation_sqnr_db"])
        clean, noisy = (
            dict(quantized(net, bits).named_children())["0"](torch.as_tensor(X)).detach()
            for bits in ("float", 3)
        )
        for group in "abc":
            rows = groups == group
            signal, noise = clean[rows].square().sum(), (clean - noisy)[rows].square().sum()
            expected = 10 * np.log10(float(signal / noise))
            assert tables[-1].loc[(3, "0.weight", group)] == pytest.approx(expected, abs=1e-3)
    pd.testing.assert_series_equal(*tables)


def test_a_classifier_is_diagnosed_at_its_bits(data):
    X, y, groups = data
    net = make_classifier(module__hidden_sizes=(8,), max_epochs=5, lr=0.02)
    classifier = QuantizedClassifier(net, weight_bits=3, random_state=0).fit(X, y)
    diagnostics = QuantizationDiagnostics(FrozenEstimator(classifier), random_state=0)
    diagnostics.fit(X, y, sensitive_features=groups)
    report = diagnostics.group_report_
    assert report.index.unique("bits").to_list() == ["float", 3]
    expected = [(classifier.predict(X) == y)[groups == g].mean() for g in "abc"]
    np.testing.assert_allclose(report.loc[3, "accuracy"], expected)
    assert diagnostics.classes_.tolist() == classifier.classes_.tolist()


def test_fine_tuned_networks_are_expanded_from_their_latent_weights(data):
    X, y, groups = data
    net = make_classifier(module__hidden_sizes=(8,), max_epochs=5, lr=0.02)
    classifier = FairQATClassifier(net, weight_bits=3, finetune_epochs=2, random_state=0).fit(X, y)
    diagnostics = QuantizationDiagnostics(FrozenEstimator(classifier), random_state=0)
    report = diagnostics.fit(X, y, sensitive_features=groups).group_report_
    assert report.index.unique("bits").to_list() == ["float", "latent", 3]
    assert report.loc["latent", ["excess_loss_first_order"]].isna().all(axis=None)
    rows, codes = groups == "a", np.searchsorted(classifier.classes_, y)
    latent, deployed = classifier.latent_module_, classifier.module_
    _, second = expansion(
        copy.deepcopy(latent), copy.deepcopy(deployed), X[rows], torch.as_tensor(codes[rows])
    )
    assert report.loc[(3, "a"), "excess_loss_second_order"] == pytest.approx(
        sum(second.values()), rel=1e-4
    )
    logits = [logits_of(m, X) for m in (classifier.estimator_.module_.eval(), latent, deployed)]
    over_float = forward_columns(logits[2], logits[0], codes, groups)["excess_loss"]
    over_latent = forward_columns(logits[2], logits[1], codes, groups)["excess_loss"]
    np.testing.assert_allclose(report.loc[3, "excess_loss"], over_float, atol=1e-6)
    np.testing.assert_allclose(report.loc[3, "excess_loss_weights"], over_latent, atol=1e-6)


def test_images(data):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(160, 3, 8, 8)).astype(np.float32)
    y, groups = rng.integers(0, 3, 160), rng.choice(["u", "v"], 160)
    net = make_classifier(ConvNet, module__widths=(2, 3), max_epochs=1, lr=0.01)
    diagnostics = QuantizationDiagnostics(net, weight_bits=[3], random_state=0)
    diagnostics.fit(X, y, sensitive_features=groups)
    smallest = min("uv", key=lambda g: (groups == g).sum())
    module = diagnostics._versions[0].differentiable()
    rows = groups == smallest
    expected = derivative_columns(module, X[rows], torch.as_tensor(y[rows]))
    row = diagnostics.group_report_.loc[("float", smallest)]
    for name in MEASURES:
        assert row[name] == pytest.approx(expected[name], rel=2e-3), name
    assert isinstance(diagnostics.attribution_, pd.DataFrame)
    assert np.isfinite(diagnostics.attribution_["activation_sqnr_db"]).all()


def test_draws_whose_debiased_square_is_below_zero_count():
    draws = np.full((5, len(MEASURES)), 2.0)
    draws[:, 1] = [-1.0, -0.2, 0.3, -0.4, 0.1]
    columns = dict.fromkeys(_ORDER, np.array([np.nan])) | {"count": np.array([1000])}
    columns |= {"excess_loss_low": np.array([0.0]), "excess_loss_high": np.array([0.0])}
    for name in (*MEASURES, "n_matched"):
        del columns[name]
    row = group_report({"float": columns}, {"float": [draws]}, pd.Index(["a"]), np.array([50])).iloc[0]
    squares = draws[:, 1]
    half = student.ppf(0.975, 4) * squares.std(ddof=1) * np.sqrt((1.05 + 0.95 / 5) / 0.95)
    assert row["gradient_norm_debiased"] == row["gradient_norm_debiased_low"] == 0  # the mean is -0.24
    high = np.sqrt(squares.mean() + half)
    assert row["gradient_norm_debiased_high"] == pytest.approx(high)
    assert high > 0.5


def test_frozen_weights_are_rounded_too(data):
    """What a layer does to the loss does not depend on whether its training goes on."""
    X, y, groups = data
    codes, tables = np.unique(y, return_inverse=True)[1], []
    for frozen in (False, True):
        torch.manual_seed(0)
        net = make_classifier(module__hidden_sizes=(8, 8), max_epochs=3).fit(X, codes)
        net.module_.hidden0.requires_grad_(not frozen)
        diagnostics = QuantizationDiagnostics(
            FrozenEstimator(net), weight_bits=(4, 2), n_eigenvalues=0, random_state=0
        ).fit(X, codes, sensitive_features=groups)
        tables.append(diagnostics.attribution_)
        sums = diagnostics.group_report_.loc[[4, 2], "excess_loss_second_order"]
        totals = tables[-1]["excess_loss_second_order"].groupby(level=["bits", "group"]).sum()
        np.testing.assert_allclose(sums, totals.loc[[4, 2]], atol=1e-12)
        assert net.module_.hidden0.weight.requires_grad != frozen
    assert (tables[1].xs("hidden0.weight", level="layer")["excess_loss_first_order"] != 0).all()
    pd.testing.assert_frame_equal(*tables, rtol=1e-5)


def test_a_generator_draws_one_calibration_sample_for_all_widths(data):
    X, y, groups = data
    codes = np.unique(y, return_inverse=True)[1]
    net = make_classifier(module__hidden_sizes=(8,), max_epochs=2).fit(X, codes)
    diagnostics = QuantizationDiagnostics(
        FrozenEstimator(net),
        activation_bits=4,
        n_eigenvalues=0,
        random_state=np.random.RandomState(0),
    ).fit(X, codes, sensitive_features=groups)
    assert len({version.classifier.random_state for version in diagnostics._versions}) == 1


def test_excess_of_the_weights_is_not_that_of_moved_statistics(data):
    """BatchNorm re-estimated after the quantization is no change of weights."""
    X, y, groups = data
    codes = np.unique(y, return_inverse=True)[1]
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(6, 9), torch.nn.BatchNorm1d(9), torch.nn.ReLU(), torch.nn.Linear(9, 3)
    )
    net = make_classifier(module, max_epochs=3).fit(X, codes)
    reports = []
    for moved in (False, True):
        clf = QuantizedClassifier(
            FrozenEstimator(net), weight_bits=3, recalibrate_batchnorm=moved, random_state=0
        ).fit(X, codes, sensitive_features=groups)
        diagnostics = QuantizationDiagnostics(FrozenEstimator(clf), n_eigenvalues=0, random_state=0)
        reports.append(diagnostics.fit(X, codes, sensitive_features=groups).group_report_.loc[3])
    plain, recalibrated = reports
    np.testing.assert_allclose(
        recalibrated["excess_loss_weights"], plain["excess_loss_weights"], atol=1e-7
    )
    np.testing.assert_allclose(plain["excess_loss"], plain["excess_loss_weights"], atol=1e-7)
    assert (recalibrated["excess_loss"] - plain["excess_loss"]).abs().max() > 1e-4


def test_a_channel_of_one_weight_is_exact():
    """Its code times its scale is the weight, but for the rounding of float32."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    X, y = torch.randn(140, 1, 2, 2).numpy(), np.arange(140) % 2
    model = TorchClassifier(net, classes=[0, 1])
    found = QuantizationDiagnostics(model, weight_bits=[3], n_eigenvalues=0).fit(
        X, y, sensitive_features=y
    )
    ratio = found.layer_report_["sqnr_db"].loc[3]
    assert ratio["0.weight"] == np.inf
    assert 5 < ratio["3.weight"] < 30
    assert (found.attribution_["activation_sqnr_db"].loc[3].loc["0.weight"] == np.inf).all()
