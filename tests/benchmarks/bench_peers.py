"""Post-training quantization here and by other packages: who keeps accuracy, and the gap between groups.

The same float networks, calibration samples and held out samples for all, five seeds of split and
training. Packages that are not installed are left out. ``python tests/benchmarks/bench_peers.py FOLDER
NETWORKS`` does the same for faces: UTKFace, and trained networks as ``problems.faces`` says.
"""

import sys
import time

import numpy as np
import torch
from harness import Row, show, with_intervals
from peers import installed, quietly
from problems import faces
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from skqfair import fairness_violation_observed
from skqfair.datasets import load_adult
from skqfair.networks import ConvNet, make_classifier

SEEDS = range(5)
WIDTHS = [(8, None), (4, None), (3, None), (2, None), (8, 8), (4, 8)]


def tables():
    """Yield a title and rows."""
    for name, cases in (
        ("Digits, the class as group, ConvNet of 5 thousand weights", digits),
        ("Digits, the class as group, MLP 64-64", lambda: digits(flat=True)),
        ("Adult, race as group, MLP 64-64", adult),
    ):
        yield from tables_of(name, list(cases()))


def tables_of(name, cases):
    """Yield a table for each pair of widths."""
    for weight_bits, activation_bits in WIDTHS:
        inputs = f", inputs of layers {activation_bits}" if activation_bits else ""
        title = f"{name}: weights of {weight_bits} bits{inputs}"
        found = {
            rule: measured(call, cases, weight_bits, activation_bits)
            for rule, call in installed().items()
        }
        seconds = np.array(found["skqfair, nearest"])[:, 4]
        yield (
            title,
            [row(rule, np.array(figures), seconds) for rule, figures in found.items() if figures],
        )


def measured(rule, cases, weight_bits, activation_bits):
    """Return what :func:`gaps` returns, seconds and bytes, for each seed."""
    figures = []
    for net, samples, labels, X, y, groups in cases:
        start = time.process_time()
        try:
            logits, size = quietly(rule, net, samples, labels, weight_bits, activation_bits)
        except NotImplementedError:
            return None
        seconds = time.process_time() - start
        before, after = (of.argmax(1) for of in (net.forward(X).numpy(), logits(X)))
        figures.append([*gaps(after, before, y, groups), seconds, size])
    return figures


def gaps(after, before, y, groups):
    """Return the changes of accuracy, FVO and the worst group's accuracy, and of predictions."""
    change = []
    for figure in (accuracy, fvo, worst):
        change.append(figure(y, after, groups) - figure(y, before, groups))
    return [*change, np.mean(after != before)]


def accuracy(y, predicted, groups):
    """Return the share of right predictions."""
    return np.mean(predicted == y)


def fvo(y, predicted, groups):
    """Return the largest accuracy gap between two groups."""
    return fairness_violation_observed(y, predicted, sensitive_features=groups)


def worst(y, predicted, groups):
    """Return the least accuracy of a group."""
    return min(np.mean((predicted == y)[groups == group]) for group in np.unique(groups))


def row(rule, figures, seconds):
    """Return what a rule adds to the float networks, with intervals over seeds."""
    mean, ratio = figures.mean(0), np.median(figures[:, 4] / seconds)
    return Row(
        rule,
        f"{with_intervals(figures[:, :3])}; {mean[3]:.3f}",
        "accuracy; FVO; worst group; changed",
        f"{ratio:.1f}; {mean[5]:.0f}",
    )


def digits(*, flat=False):
    """Yield a trained network and the samples, for each seed."""
    X, y = load_digits(return_X_y=True)
    X = X.astype(np.float32) / 16
    X = X if flat else X.reshape(-1, 1, 8, 8)
    for seed in SEEDS:
        train, test = train_test_split(np.arange(len(y)), train_size=1000, stratify=y, random_state=seed)
        net = make_classifier(module__hidden_sizes=(64, 64), max_epochs=30)
        if not flat:
            net = make_classifier(ConvNet, module__widths=(8, 16), max_epochs=20, lr=0.02)
            net.set_params(module__in_channels=1, module__n_classes=10)
        yield trained(net, seed, X[train], y[train]), X[train], y[train], X[test], y[test], y[test]


def adult():
    """Yield a trained network and the samples, for each seed."""
    data = load_adult()
    X, y = data.data.select_dtypes("number"), (data.target == ">50K").to_numpy(int)
    race = data.sensitive_features["race"].to_numpy(str)
    for seed in SEEDS:
        train, test = train_test_split(np.arange(len(y)), test_size=0.5, stratify=y, random_state=seed)
        scaler = StandardScaler().fit(X.iloc[train])
        ready = scaler.transform(X).astype(np.float32)
        net = make_classifier(module__hidden_sizes=(64, 64), max_epochs=8, lr=0.002)
        net = trained(net, seed, ready[train], y[train])
        yield net, ready[train[:1024]], y[train[:1024]], ready[test], y[test], race[test]


def of_faces(folder, networks):
    """Yield a network of examples/faces and the samples, for each seed."""
    for seed, net, X, y, groups, train, test in faces(folder, networks):
        drawn = np.random.default_rng(seed).choice(train, 1024, replace=False)
        yield net, X[drawn], y[drawn], X[test], y[test], groups[test]


def trained(net, seed, X, y):
    """Return the network after its training."""
    torch.manual_seed(seed)
    return net.set_params(verbose=0).fit(X, y)


if __name__ == "__main__":
    cases = list(of_faces(*sys.argv[1:]))
    show(tables_of("Faces, ethnicity as group, ConvNet of 78 thousand weights", cases))
