"""Whose samples calibrate the rounding: accuracy, FVO and worst group by ``calibration_groups``, paired.

The class is the group of digits, all of them or with a quarter of the eights and nines in training; five
seeds of split and training, and 797 digits used for neither training nor calibration. The intervals are
t intervals of the mean over the seeds. ``python tests/benchmarks/bench_calibration_groups.py UTKFACE
NETWORKS SIZE BITS ...`` does the same for faces, by SIZE samples at some widths; see ``problems``.
"""

import sys

import numpy as np
import torch
from bench_rounding import convnet, mlp
from harness import Row, show, with_intervals
from problems import faces
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split

from skqfair import QuantizedClassifier
from skqfair.metrics import group_report

GROUPS = ("proportional", "balanced", "minimax")
PAIRS = (("balanced", "proportional"), ("minimax", "proportional"), ("minimax", "balanced"))
ROUNDINGS = ("gptq", "least_squares")


def tables():
    """Yield a title and rows."""
    for name, net, rare in (
        ("MLP 64-64", mlp, False),
        ("MLP 64-64, two classes thinned to a quarter in training", mlp, True),
        ("ConvNet 8-16", convnet, False),
        ("ConvNet 8-16, two classes thinned to a quarter in training", convnet, True),
    ):
        yield from tables_of(f"Digits, {name}", [digits(net, rare, seed) for seed in range(5)])


def tables_of(name, cases, widths=(4, 3, 2), size=1024):
    """Yield a table for each width: accuracy, FVO and worst group."""
    before = np.array([measured(*case, None, "nearest", "balanced", size) for case in cases])
    for bits in widths:
        rows = []
        for rounding in ROUNDINGS:
            found = {
                groups: np.array([measured(*case, bits, rounding, groups, size) for case in cases])
                for groups in GROUPS
            }
            rows.append(row(f"{rounding}, proportional, less float", found["proportional"] - before))
            rows += [row(f"{rounding}, {a} less {b}", found[a] - found[b]) for a, b in PAIRS]
        yield f"{name}, {bits} bits: accuracy; FVO; worst group, by calibration_groups", rows


def row(name, differences):
    """Return the mean of paired differences with its interval."""
    return Row(name, with_intervals(differences), "")


def measured(seed, net, train, test, bits, rounding, groups, size):
    """Return accuracy, FVO and the accuracy of the worst group on data held out."""
    clf = QuantizedClassifier(
        net,
        weight_bits=bits,
        rounding=rounding,
        calibration_groups=groups,
        calibration_size=size,
        random_state=seed,
    )
    X, y, features = train
    clf.fit(X, y, sensitive_features=features)
    X, y, features = test
    predicted = clf.predict(X)
    report = group_report(y, predicted, sensitive_features=features)
    return np.mean(predicted == y), report.attrs["fvo"], report["accuracy"].min()


def digits(net, rare, seed):
    """Return a trained network, and the samples for calibration and test."""
    X, y = load_digits(return_X_y=True)
    X = X.astype(np.float32) / 16
    X = X.reshape(-1, 1, 8, 8) if net is convnet else X
    train, test = train_test_split(np.arange(len(y)), train_size=1000, stratify=y, random_state=seed)
    if rare:
        kept = np.random.default_rng(seed).random(len(train)) < 0.25
        train = train[kept | (y[train] < 8)]
    torch.manual_seed(seed)
    trained = net().set_params(verbose=0).fit(X[train], y[train])
    return seed, FrozenEstimator(trained), *((X[rows], y[rows], y[rows]) for rows in (train, test))


def of_faces(folder, networks):
    """Yield the networks of examples/faces, and the samples for calibration and test."""
    for seed, net, X, y, groups, *parts in faces(folder, networks):
        yield seed, FrozenEstimator(net), *((X[rows], y[rows], groups[rows]) for rows in parts)


def main():
    """Print the tables of faces."""
    folder, networks, size, *widths = sys.argv[1:]
    cases = list(of_faces(folder, networks))
    name = "Faces, ethnicity as group, ConvNet of 78 thousand weights"
    show(tables_of(name, cases, map(int, widths), int(size)))


if __name__ == "__main__":
    main()
