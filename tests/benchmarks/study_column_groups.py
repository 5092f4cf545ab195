"""What scales of groups of columns bring on digits, at 4, 3 and 2 bits, and the bytes that they cost.

The class is the group. Five seeds of split and training; accuracy and FVO are those of 797 digits held
out, minus the float network's, with t intervals of the mean over the seeds; "paired" are the differences
from one scale per channel at the same bits.
"""

import numpy as np
from bench_rounding import mlp, trained
from scipy import stats
from sklearn.datasets import load_digits

from skqfair import QuantizedClassifier, fairness_violation_observed

GRANULARITIES = ("per_channel", ("per_group", 32), ("per_group", 16))


def main():
    """Print a table for each rounding."""
    X, y = load_digits(return_X_y=True)
    X = X.astype(np.float32) / 16
    nets = [trained(mlp, X, y, seed) for seed in range(5)]
    for rounding in ("nearest", "least_squares"):
        print(f"\nMLP 64-64, {rounding}\n\n| bits | granularity | accuracy | FVO | bytes | paired |")
        print("|---|---|---|---|---|---|")
        for bits in (4, 3, 2):
            channels = None
            for granularity in GRANULARITIES:
                options = {"weight_bits": bits, "granularity": granularity, "rounding": rounding}
                added, size = changes(nets, X, y, options)
                channels = added if channels is None else channels
                figures = [f"{with_interval(added[:, i])}" for i in (0, 1)]
                pairs = "; ".join(with_interval((added - channels)[:, i]) for i in (0, 1))
                print(f"| {bits} | {granularity} | {' | '.join(figures)} | {size:,} | {pairs} |")


def changes(nets, X, y, options):
    """Return what quantization adds to accuracy and FVO of each net, and the bytes."""
    added = []
    for net, train, test, seed in nets:
        clf = QuantizedClassifier(net, random_state=seed, **options).fit(X[train], y[train])
        found = []
        for predicted in (clf.float_classifier_.predict(X[test]), clf.predict(X[test])):
            gap = fairness_violation_observed(y[test], predicted, sensitive_features=y[test])
            found.append((np.mean(predicted == y[test]), gap))
        added.append(np.subtract(found[1], found[0]))
    return np.array(added), clf.model_size_


def with_interval(values):
    """Return the mean with its 95 % t interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):+.3f} ± {half:.3f}"


if __name__ == "__main__":
    main()
