"""What scales of groups of columns bring on digits, at 4, 3 and 2 bits, and the bytes that they cost.

    python tests/benchmarks/study_column_groups.py

The class is the group. Five seeds of split and training; accuracy and FVO are those of 797 digits held
out, minus the float network's, with t intervals of the mean over the seeds; "paired" are the differences
from one scale per channel at the same bits. Last the weights of the same nets in float8 (e4m3) with one
scale per channel, beside integers, and the time of a call of an exported layer on one thread.
"""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from bench_rounding import mlp, trained
from harness import interleaved, with_intervals
from sklearn.datasets import load_digits

from skqfair import QuantizedClassifier, fairness_violation_observed
from skqfair.export import OnnxClassifier, to_onnx
from skqfair.networks import TorchClassifier
from skqfair.quantization import quantize

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
                accuracy, fvo = (with_intervals(column) for column in added.T)
                pairs = with_intervals(added - channels)
                print(f"| {bits} | {granularity} | {accuracy} | {fvo} | {size:,} | {pairs} |")
    print("\nSignal to error of the weights, mean over layers and nets, in dB")
    kinds = {"8 bits": integers(8), "6 bits": integers(6), "float8": float8}
    for name, rounded in kinds.items():
        weights = [p.detach() for net, *_ in nets for p in net.estimator.module_.parameters()]
        found = [decibels(weight, rounded(weight)) for weight in weights if weight.ndim == 2]
        print(f"{name}: {np.mean(found):.1f}")
    print("\nMilliseconds of a call, 1,024 x 1,024 weights of 4 bits in onnxruntime")
    for rows in (1, 256):
        print(f"{rows} rows: {', '.join(times_of_calls(rows))}")


def times_of_calls(rows):
    """Return the median time of a call with scales of channels and of groups."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(1024, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 3))
    X, calls = torch.randn(256, 1024).numpy(), {}
    for granularity in GRANULARITIES[:2]:
        clf = QuantizedClassifier(TorchClassifier(module.eval()), weight_bits=4, granularity=granularity)
        with tempfile.TemporaryDirectory() as folder:
            path = to_onnx(clf.fit(X, np.arange(256) % 3), Path(folder) / "layer.onnx")
            deployed = OnnxClassifier(path, batch_size=rows, n_threads=1).fit()
        calls[str(granularity)] = partial(deployed.decision_function, X[:rows])
    times = interleaved(calls, 15)
    return [f"{name} {1000 * times.median(name):.1f}" for name in calls]


def integers(bits):
    """Return what rounds a weight to integers, one scale for each channel."""

    def rounded(weight):
        codes, scale = quantize(weight, bits)
        return codes * scale

    return rounded


def float8(weight):
    """Round a weight to e4m3, whose largest number is 448; one scale for each channel."""
    scale = weight.abs().amax(1, keepdim=True) / 448
    return (weight / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale


def decibels(weight, rounded):
    """Return the energy of a weight over that of its error."""
    return float(10 * torch.log10(weight.square().sum() / (weight - rounded).square().sum()))


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


if __name__ == "__main__":
    main()
