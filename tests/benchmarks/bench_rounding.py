"""What rounding to nearest costs the classes of digits, what better rounding leaves of it, and its time.

The class is the group. Five seeds of split and training; accuracy and FVO are those of 797 digits held
out, minus the float network's; the intervals are t intervals of the mean over the seeds.
"""

from functools import partial
from itertools import product
from unittest.mock import patch

import numpy as np
import torch
from adaround import adaround
from harness import Row, interleaved, with_intervals
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split

from skqfair import FairQATClassifier, QuantizedClassifier, fairness_violation_observed
from skqfair.networks import ConvNet, make_classifier

RULES = {
    "nearest": {},
    "nearest, biases corrected": {"bias_correction": True},
    "GPTQ": {"rounding": "gptq"},
    "GPTQ, biases corrected": {"rounding": "gptq", "bias_correction": True},
    "least squares": {"rounding": "least_squares"},
    "least squares, biases corrected": {"rounding": "least_squares", "bias_correction": True},
    "GPTQ, float inputs": {"rounding": "gptq", "rounding_inputs": "float"},
    "least squares, float inputs": {"rounding": "least_squares", "rounding_inputs": "float"},
    "AdaRound": {"rounding": "adaround"},
}
MOVED = {
    "nearest, BatchNorm moved": {"recalibrate_batchnorm": True},
    "GPTQ, BatchNorm moved": {"rounding": "gptq", "recalibrate_batchnorm": True},
    "least squares, BatchNorm moved": {"rounding": "least_squares", "recalibrate_batchnorm": True},
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
    title = "Digits, ConvNet 8-16, 2 bits: fine-tuning from float weights and from codes, as above"
    yield (
        title,
        [tuned(*case, frozen, X_net, y) for case in product(("nearest", "least_squares"), (1, 5))],
    )
    yield "Time of a fit at 3 bits, ConvNet 8-16, 1,000 samples", times_of(frozen[0], X_net, y)


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
    return added(rule, partial(fitted, weight_bits=bits, **options), frozen, X, y)


def tuned(rounding, epochs, frozen, X, y):
    """Return what fine-tuning from a start leaves, over the seeds."""

    def fit(net, X, y, random_state):
        clf = FairQATClassifier(
            net, weight_bits=2, rounding=rounding, finetune_epochs=epochs, random_state=random_state
        )
        return clf.fit(X, y)

    start = "float weights" if rounding == "nearest" else "least-squares codes"
    return added(f"{epochs} epoch(s) from {start}", fit, frozen, X, y)


def added(name, fit, frozen, X, y):
    """Return the row of what a fit adds to the float network, over the seeds."""
    added = []
    for net, train, test, seed in frozen:
        clf = fit(net, X[train], y[train], random_state=seed)
        before, after = clf.float_classifier_.predict(X[test]), clf.predict(X[test])
        gaps = [
            fairness_violation_observed(y[test], p, sensitive_features=y[test]) for p in (before, after)
        ]
        accuracy = np.mean(after == y[test]) - np.mean(before == y[test])
        added.append((accuracy, gaps[1] - gaps[0], np.mean(after != before)))
    return Row(name, with_intervals(added), "")


def fitted(net, X, y, *, rounding="nearest", **options):
    """Return a fitted classifier; AdaRound stands in the place of our descent."""
    own = rounding != "adaround"
    clf = QuantizedClassifier(net, rounding=rounding if own else "least_squares", **options)
    if own:
        return clf.fit(X, y)
    with patch("skqfair.quantization._rounding.round_to_outputs", adaround):
        return clf.fit(X, y)


def times_of(frozen, X, y):
    """Return the ratios of the times of fits."""
    net, train, _, seed = frozen
    kinds = ("nearest", "gptq", "least_squares", "adaround")
    times = interleaved(
        {
            kind: partial(
                fitted, net, X[train], y[train], weight_bits=3, rounding=kind, random_state=seed
            )
            for kind in kinds
        },
        5,
    )
    pairs = [("gptq", "nearest"), ("least_squares", "nearest"), ("adaround", "least_squares")]
    return [Row(f"{a} / {b}", f"{times.ratio(a, b):.1f}", "") for a, b in pairs]
