"""Rounding rules of QuantizedClassifier."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator

from skqfair import FairQATClassifier, QuantizedClassifier
from skqfair.networks import ConvNet, make_classifier
from skqfair.quantization import allocate_bits, compensate_rounding, float_moments


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X.reshape(-1, 1, 8, 8).astype(np.float32) / 16, y


@pytest.fixture(scope="module")
def net(digits):
    X, y = digits
    torch.manual_seed(0)
    net = make_classifier(ConvNet, module__widths=(8, 16), max_epochs=15, lr=0.02)
    net.set_params(module__in_channels=1, module__n_classes=10)
    return net.fit(X[:1000], y[:1000])


def fitted(net, digits, **options):
    X, y = digits
    clf = QuantizedClassifier(FrozenEstimator(net), weight_bits=3, random_state=0, **options)
    return clf.fit(X[:1000], y[:1000], sensitive_features=y[:1000] % 2)


@pytest.mark.parametrize("rounding", ["gptq", "least_squares"])
def test_fewer_predictions_change(net, digits, rounding):
    X, _ = digits
    nearest, better = fitted(net, digits), fitted(net, digits, rounding=rounding)
    before = nearest.float_classifier_.predict(X[1000:])
    changed = [np.mean(clf.predict(X[1000:]) != before) for clf in (nearest, better)]
    assert changed[1] < changed[0], changed
    assert better.model_size_ == nearest.model_size_
    for name, weight in better.quantized_weights_.items():
        assert torch.equal(dict(better.module_.named_parameters())[name], weight.dequantize())


@pytest.mark.parametrize("rounding", ["gptq", "least_squares"])
def test_is_repeatable_and_known_to_clone(net, digits, rounding):
    X, _ = digits
    clf = fitted(net, digits, rounding=rounding, bias_correction=True, recalibrate_batchnorm=True)
    again = clone(clf).fit(X[:1000], digits[1][:1000], sensitive_features=digits[1][:1000] % 2)
    assert np.array_equal(again.decision_function(X), clf.decision_function(X))


@pytest.mark.parametrize("rounding", ["gptq", "least_squares"])
def test_inputs_of_the_float_network_serve_all_widths(net, digits, rounding, tmp_path, monkeypatch):
    X, y = (values[:300] for values in digits)
    calls = []

    def counted(*args):
        calls.append(1)
        return float_moments(*args)

    monkeypatch.setattr("skqfair.classifiers._rounding.float_moments", counted)
    options = {"rounding": rounding, "bias_correction": True, "rounding_inputs": "float"}
    for memory in (tmp_path, None):
        found = [
            QuantizedClassifier(
                FrozenEstimator(net), weight_bits=bits, memory=memory, random_state=0, **options
            ).fit(X, y)
            for bits in (3, 2)
        ]
        if memory is not None:
            kept = [clf.decision_function(X) for clf in found]
    assert len(calls) == 1 + 2  # one for all widths with memory
    for clf, logits in zip(found, kept, strict=True):
        assert np.array_equal(clf.decision_function(X), logits)
    first = next(iter(found[0].quantized_weights_))  # whose inputs are the same in both networks
    usual = clone(found[0]).set_params(rounding_inputs="quantized").fit(X, y)
    assert torch.equal(found[0].quantized_weights_[first].codes, usual.quantized_weights_[first].codes)
    assert any(
        not torch.equal(weight.codes, usual.quantized_weights_[name].codes)
        for name, weight in found[0].quantized_weights_.items()
    )


@pytest.mark.parametrize("groups", ["balanced", "proportional"])
def test_whose_samples_calibrate(net, digits, groups, monkeypatch):
    X, y = digits
    rare = np.where(np.arange(1000) < 50, "few", "many")
    seen = []

    def spy(quantized, original, run, **options):
        seen.append(run.args[0])
        return compensate_rounding(quantized, original, run, **options)

    monkeypatch.setattr("skqfair.classifiers._rounding.compensate_rounding", spy)
    clf = QuantizedClassifier(
        FrozenEstimator(net),
        rounding="gptq",
        calibration_groups=groups,
        calibration_size=400,
        random_state=0,
    ).fit(X[:1000], y[:1000], sensitive_features=rare)
    (samples,) = seen
    few = {row.tobytes() for row in X[:50]}
    of_few = np.mean([row.tobytes() in few for row in samples])
    assert len(samples) == 400
    assert clf.calibration_groups == groups
    assert of_few > 0.4 if groups == "balanced" else of_few < 0.2


@pytest.mark.parametrize("rounding", ["gptq", "least_squares"])
def test_fine_tuning_starts_from_the_codes(net, digits, rounding):
    X, y = digits
    options = {"weight_bits": 2, "random_state": 0, "rounding": rounding}
    start = QuantizedClassifier(FrozenEstimator(net), **options)
    tuned = FairQATClassifier(FrozenEstimator(net), finetune_epochs=0, **options)
    for clf in (start, tuned):
        clf.fit(X[:1000], y[:1000], sensitive_features=y[:1000] % 2)
    for name, weight in start.quantized_weights_.items():
        assert torch.equal(tuned.quantized_weights_[name].codes, weight.codes)
    np.testing.assert_allclose(tuned.predict_proba(X), start.predict_proba(X), atol=1e-5)


def test_sensitivities_are_those_of_the_rule(net, digits):
    sensitivity = {}

    def spy(table, sizes, **options):
        sensitivity[len(sensitivity)] = table
        return allocate_bits(table, sizes, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("skqfair.classifiers._layer_bits.allocate_bits", spy)
        for rounding in ("nearest", "least_squares"):
            clf = fitted(net, digits, layer_bits="auto", bit_budget=3, rounding=rounding)
    assert len(clf.quantized_weights_) == len(sensitivity[1])
    assert sensitivity[1][:, 0].sum() < sensitivity[0][:, 0].sum() / 2  # at two bits
