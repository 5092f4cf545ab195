"""What rounding to nearest costs the classes of digits, what better rounding leaves of it, and its time.

The class is the group. Five seeds of split and training; accuracy and FVO are those of 797 digits held
out, minus the float network's; the intervals are t intervals of the mean over the seeds.
"""

import numpy as np
import torch
from harness import Row, interleaved
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split

from skqfair import QuantizedClassifier, fairness_violation_observed
from skqfair.networks import ConvNet, make_classifier

RULES = {
    "nearest": {},
    "nearest, biases corrected": {"bias_correction": True},
    "GPTQ": {"rounding": "gptq"},
    "GPTQ, biases corrected": {"rounding": "gptq", "bias_correction": True},
}
MOVED = {
    "nearest, BatchNorm moved": {"recalibrate_batchnorm": True},
    "GPTQ, BatchNorm moved": {"rounding": "gptq", "recalibrate_batchnorm": True},
}


def tables():
    """Yield a title and rows."""
    X, y = load_digits(return_X_y=True)
    X = X.astype(np.float32) / 16
    for name, net, X_net, rules in (
        ("MLP 64-64", mlp, X, RULES),
        ("ConvNet 8-16", convnet, X.reshape(-1, 1, 8, 8), RULES | MOVED),
    ):
        frozen = [trained(net, X_net, y, seed) for seed in range(5)]
        for bits in (3, 2):
            title = (
                f"Digits, {name}, {bits} bits: what rounding adds (accuracy; FVO; predictions changed)"
            )
            yield title, [row(rule, options, bits, frozen, X_net, y) for rule, options in rules.items()]
    yield "Time of a fit at 3 bits, ConvNet 8-16, 1,000 samples", [time_of(frozen[0], X_net, y)]


def mlp():
    """Return the multilayer perceptron, not trained."""
    return make_classifier(module__hidden_sizes=(64, 64), max_epochs=30)


def convnet():
    """Return the convolutional network, not trained."""
    net = make_classifier(ConvNet, module__widths=(8, 16), max_epochs=20, lr=0.02)
    return net.set_params(module__in_channels=1, module__n_classes=10)


def trained(net, X, y, seed):
    """Return a frozen network with the rows that it was trained on, and those left."""
    train, test = train_test_split(np.arange(len(y)), train_size=1000, stratify=y, random_state=seed)
    torch.manual_seed(seed)
    return FrozenEstimator(net().set_params(verbose=0).fit(X[train], y[train])), train, test, seed


def row(rule, options, bits, frozen, X, y):
    """Return what a rule adds, over the seeds."""
    added = []
    for net, train, test, seed in frozen:
        clf = QuantizedClassifier(net, weight_bits=bits, random_state=seed, **options)
        clf.fit(X[train], y[train])
        before, after = clf.float_classifier_.predict(X[test]), clf.predict(X[test])
        gaps = [
            fairness_violation_observed(y[test], p, sensitive_features=y[test]) for p in (before, after)
        ]
        accuracy = np.mean(after == y[test]) - np.mean(before == y[test])
        added.append((accuracy, gaps[1] - gaps[0], np.mean(after != before)))
    mean, spread = np.mean(added, 0), np.std(added, 0, ddof=1)
    half = stats.t.ppf(0.975, len(added) - 1) * spread / np.sqrt(len(added))
    figures = [f"{m:+.3f} ± {h:.3f}" for m, h in zip(mean, half, strict=True)]
    return Row(rule, "; ".join(figures), "")


def time_of(frozen, X, y):
    """Return the ratio of fits with error feedback and to nearest."""
    net, train, _, seed = frozen

    def fit(rounding):
        clf = QuantizedClassifier(net, weight_bits=3, rounding=rounding, random_state=seed)
        return lambda: clf.fit(X[train], y[train])

    times = interleaved({"gptq": fit("gptq"), "nearest": fit("nearest")}, 5)
    return Row("GPTQ / nearest", f"{times.ratio('gptq', 'nearest'):.1f}", "")
