"""Whose samples calibrate the rounding: accuracy, FVO and worst group by ``calibration_groups``, paired.

The class is the group of digits, all of them or with a quarter of the eights and nines in training; five
seeds of split and training, and 797 digits used for neither training nor calibration. The intervals are
t intervals of the mean over the seeds. ``python tests/benchmarks/bench_calibration_groups.py UTKFACE
NETWORKS SIZE BITS ...`` does the same for faces, by SIZE samples at some widths; see ``bench_peers``.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from bench_rounding import convnet, mlp
from harness import Row
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split

from skqfair import QuantizedClassifier
from skqfair.datasets import load_utkface
from skqfair.metrics import group_report
from skqfair.networks import ConvNet, TorchClassifier

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
    for bits in widths:
        rows = []
        for rounding in ROUNDINGS:
            found = {
                groups: np.array([measured(*case, bits, rounding, groups, size) for case in cases])
                for groups in GROUPS
            }
            before = np.array([measured(*case, None, "nearest", "balanced", size) for case in cases])
            rows.append(row(f"{rounding}, proportional, less float", found["proportional"] - before))
            rows += [row(f"{rounding}, {a} less {b}", found[a] - found[b]) for a, b in PAIRS]
        yield f"{name}, {bits} bits: accuracy; FVO; worst group, by calibration_groups", rows


def row(name, differences):
    """Return the mean of paired differences with its interval."""
    mean, spread = differences.mean(0), differences.std(0, ddof=1)
    half = stats.t.ppf(0.975, len(differences) - 1) * spread / np.sqrt(len(differences))
    return Row(name, "; ".join(f"{m:+.3f} ± {h:.3f}" for m, h in zip(mean, half, strict=True)), "")


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


def faces(folder, networks):
    """Yield the networks of examples/faces, and the samples for calibration and test."""
    data = load_utkface(folder, image_size=48, n_jobs=-1)
    X = data.data.astype(np.float32) / 255
    classes, y = np.unique(data.target, return_inverse=True)
    groups = data.sensitive_features["ethnicity"].to_numpy(str)
    for seed, (state, train, test) in torch.load(networks, weights_only=False).items():
        module = ConvNet(widths=(16, 32, 64), in_channels=3, n_classes=len(classes))
        module.load_state_dict(state)
        yield (
            seed,
            TorchClassifier(module),
            *((X[rows], y[rows], groups[rows]) for rows in (train, test)),
        )


def main():
    """Print the tables of faces."""
    folder, networks, size, *widths = sys.argv[1:]
    name = "Faces, ethnicity as group, ConvNet of 78 thousand weights"
    cases = list(faces(folder, networks))
    for title, rows in tables_of(name, cases, map(int, widths), int(size)):
        print(f"\n{title}")
        for r in rows:
            print(f"{r.what:<48}{r.ratio}", flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
