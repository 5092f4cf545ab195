"""The calibration sample: activation ranges and BatchNorm statistics."""

import numpy as np
import pytest
import torch
from nets import small, weights_of
from reference import numpy_clip
from sklearn.base import clone

from skqfair import QuantizedClassifier
from skqfair.networks import make_classifier


def test_batchnorm_is_moved_by_plain_samples(problem):
    """By the mean error of the rounded layer, whatever the groups."""
    X, y, groups = problem
    X = X + 5 * (groups == "c")[:, None]  # the smallest group lies elsewhere
    net = make_classifier(module__hidden_sizes=(8,), module__batch_norm=True, max_epochs=3)
    clf = QuantizedClassifier(
        net, weight_bits=2, recalibrate_batchnorm=True, calibration_size=10_000, random_state=0
    )
    plain = clone(clf).set_params(recalibrate_batchnorm=False).fit(X, y, sensitive_features=groups)
    moved = clone(clf).fit(X, y)
    with torch.no_grad():
        inputs = torch.as_tensor(X.astype(np.float32))
        before, after = (m.hidden0(inputs).double() for m in (plain.estimator_.module_, plain.module_))
    expected = plain.module_.norm0.running_mean + (after - before).mean(0)
    torch.testing.assert_close(moved.module_.norm0.running_mean, expected.float(), rtol=1e-4, atol=1e-5)
    expected = plain.module_.norm0.running_var * (after.var(0) / before.var(0))
    torch.testing.assert_close(moved.module_.norm0.running_var, expected.float(), rtol=1e-4, atol=1e-5)
    same = clone(clf).fit(X, y, sensitive_features=groups)
    np.testing.assert_array_equal(moved.predict_proba(X), same.predict_proba(X))
    np.testing.assert_array_equal(weights_of(plain), weights_of(moved))  # the float net is the same


def test_calibration_sample_is_seeded_and_bounded(problem):
    X, y, _groups = problem
    X = X.copy()
    X[7] = 1000
    inside = QuantizedClassifier(small(), activation_bits=8, calibration="minmax", random_state=0)
    scale = {}
    for size in (10, 400, 10_000):
        clf = clone(inside).set_params(calibration_size=size).fit(X, y)
        (hook,) = clf.module_.hidden0._forward_pre_hooks.values()
        scale[size] = float(hook.scale)
    assert scale[400] == scale[10_000] == pytest.approx(1000 / 127)
    assert scale[10] < 0.1


def test_padding_does_not_enter_statistics(problem):
    """130 rows at batch 128: the second batch is two rows, whatever prediction pads it to."""
    X, y, _ = problem
    net = make_classifier(
        module__hidden_sizes=(8,), module__batch_norm=True, max_epochs=2, batch_size=128
    )
    clf = QuantizedClassifier(
        net,
        weight_bits=None,
        activation_bits=4,
        calibration="mse",
        recalibrate_batchnorm=True,
        random_state=0,
    ).fit(X[:130], y[:130])
    first = clf.estimator_.module_.hidden0
    data = torch.as_tensor(X[:130])
    (hook,) = clf.module_.hidden0._forward_pre_hooks.values()
    assert float(hook.scale) == pytest.approx(float(numpy_clip(X[:130], "mse", 7)) / 7, rel=1e-5)
    with torch.no_grad():
        plain, hidden = first(data), first(hook.quantize(data))
    norm, moved = clf.estimator_.module_.norm0, clf.module_.norm0
    mean, variance = norm.running_mean + hidden.mean(0) - plain.mean(0), norm.running_var
    torch.testing.assert_close(moved.running_mean, mean, atol=1e-5, rtol=1e-4)
    variance = variance * hidden.var(0) / plain.var(0)
    torch.testing.assert_close(moved.running_var, variance, atol=1e-5, rtol=1e-4)
