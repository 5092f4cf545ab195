"""The calibration sample: activation ranges and BatchNorm statistics."""

import numpy as np
import pytest
import torch
from nets import small, weights_of
from reference import numpy_clip
from sklearn.base import clone

from skqfair import QuantizedClassifier
from skqfair.networks import make_classifier


def test_batchnorm_is_reestimated_on_a_balanced_sample(problem):
    X, y, groups = problem
    X = X + 5 * (groups == "c")[:, None]  # the smallest group lies elsewhere
    net = make_classifier(module__hidden_sizes=(8,), module__batch_norm=True, max_epochs=3)
    clf = QuantizedClassifier(
        net, weight_bits=2, recalibrate_batchnorm=True, calibration_size=240, random_state=0
    )
    plain = clone(clf).set_params(recalibrate_batchnorm=False).fit(X, y, sensitive_features=groups)
    random = clone(clf).fit(X, y)
    balanced = clone(clf).fit(X, y, sensitive_features=groups)

    def first_mean(c):
        return c.module_.norm0.running_mean.numpy()

    # by hand: the mean of the quantized first layer over equally many of each group
    weight, bias = (
        p.detach().numpy() for p in (plain.module_.hidden0.weight, plain.module_.hidden0.bias)
    )
    by_group = [(X[groups == g] @ weight.T + bias).mean(0) for g in "abc"]
    spread = np.abs(np.array(by_group) - first_mean(random)).max()
    assert np.abs(first_mean(balanced) - np.mean(by_group, axis=0)).max() < 0.25 * spread
    assert not np.allclose(first_mean(random), first_mean(plain))
    np.testing.assert_array_equal(weights_of(plain), weights_of(balanced))  # the float net is the same


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
        hidden = first(hook.quantize(data))
    torch.testing.assert_close(clf.module_.norm0.running_mean, hidden.mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(clf.module_.norm0.running_var, hidden.var(0), atol=1e-5, rtol=1e-4)
