"""Through which step of the paper's cascade does better rounding take the disparity away?

    python tests/benchmarks/study_rounding_cascade.py

The networks, splits and seeds of bench_peers. Every step is measured on samples held out, for the float
network, for rounding to nearest and for least squares (biases corrected, or BatchNorm moved where there
is one). Prints Markdown: means over the groups, then the hardest hit group, with 95 % t intervals over
the seeds.
"""

import warnings

import numpy as np
import pandas as pd
import torch
from bench_peers import adult, digits, fvo
from harness import mean_and_half
from sklearn.frozen import FrozenEstimator
from torch.nn.functional import cross_entropy

from skqfair import QuantizedClassifier
from skqfair.diagnostics import group_gradient_norms, group_hessian_trace
from skqfair.quantization import has_batchnorm

EACH = 50  # samples of each group for gradients and curvature
STEPS = {
    "zeros": "share of weights that are zero",
    "weights": "signal to noise of the weights, dB",
    "logits": "signal to noise of the logits, dB",
    "variance": "variance of the logits, of the float network's",
    "closeness": "closeness to the decision boundary, 1 - margin, less the float network's",
    "loss": "loss, less the float network's",
    "gradient": "gradient norm of the groups, of the float network's",
    "trace": "Hessian trace of the groups, of the float network's",
}


def study(cases):
    """Yield a row for each seed, width and rule."""
    for net, samples, labels, X, y, groups in cases:
        norms = has_batchnorm(net.module_)
        before = steps(net.module_, X, y, groups)
        for bits in (4, 3, 2):
            for rounding in ("nearest", "least_squares"):
                better = rounding != "nearest"
                clf = QuantizedClassifier(
                    FrozenEstimator(net),
                    weight_bits=bits,
                    rounding=rounding,
                    bias_correction=better and not norms,
                    recalibrate_batchnorm=better and norms,
                    calibration_size=len(samples),
                    random_state=0,
                ).fit(samples, labels)
                yield {"bits": bits, "rounding": rounding} | against(before, clf, net, X, y, groups)


def steps(module, X, y, groups):
    """Return logits, their position, loss and gradients by group."""
    with torch.no_grad():
        logits = module.eval()(torch.as_tensor(X)).double()
    probabilities = logits.softmax(1)
    top = probabilities.topk(2, dim=1).values
    names, codes = np.unique(groups, return_inverse=True)

    some = np.concatenate([np.flatnonzero(codes == code)[:EACH] for code in range(len(names))])

    def by_group(values):
        return np.array([np.mean(np.asarray(values)[codes == code]) for code in range(len(names))])

    return {
        "logits": logits,
        "predicted": logits.argmax(1).numpy(),
        "variance": by_group(logits.var(1, correction=0)),
        "closeness": by_group(1 - (top[:, 0] - top[:, 1])),
        "loss": by_group(cross_entropy(logits, torch.as_tensor(y), reduction="none")),
        "gradient": group_gradient_norms(module, X[some], y[some], groups[some]),
        "trace": group_hessian_trace(module, X[some], y[some], groups[some]),
    }


def against(before, clf, net, X, y, groups):
    """Return every step of a quantized network beside the float one: mean and worst over groups."""
    after = steps(clf.module_, X, y, groups)
    floats = dict(net.module_.named_parameters())
    codes = [w.codes for w in clf.quantized_weights_.values()]
    errors = [
        ((w.dequantize() - floats[name]).square().sum(), floats[name].square().sum())
        for name, w in clf.quantized_weights_.items()
    ]
    noise, signal = (float(sum(part).detach()) for part in zip(*errors, strict=True))
    lost = (after["logits"] - before["logits"]).square().sum()
    row = {
        "zeros": sum(int((c == 0).sum()) for c in codes) / sum(c.numel() for c in codes),
        "weights": 10 * np.log10(signal / noise),
        "logits": 10 * float(torch.log10(before["logits"].square().sum() / lost)),
    }
    hit = np.argmax(after["loss"] - before["loss"])
    for name in ("variance", "gradient", "trace"):
        ratio = after[name] / before[name]
        row |= {name: np.median(ratio), f"{name}, worst": ratio[hit]}
    for name in ("closeness", "loss"):
        change = after[name] - before[name]
        row |= {name: change.mean(), f"{name}, worst": change[hit]}
    gaps = [fvo(y, of["predicted"], groups) for of in (before, after)]
    return row | {"FVO": gaps[1] - gaps[0]}


def said(values):
    """Return mean and interval over seeds."""
    mean, half = mean_and_half(values)
    return f"{mean:.3g} ± {half:.2g}"


def main():
    """Print a table for each kind of network."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for name, cases in (
        ("Digits, ConvNet 8-16", digits),
        ("Digits, MLP 64-64", lambda: digits(flat=True)),
        ("Adult by race, MLP 64-64", adult),
    ):
        found = pd.DataFrame(study(cases()))
        table = found.groupby(["bits", "rounding"], sort=False).agg(said).T
        table.columns = [f"{bits} bits, {rounding}" for bits, rounding in table.columns]
        print(f"\n{name}\n\n{table.to_markdown()}\n", flush=True)


if __name__ == "__main__":
    print("\n".join(f"{name}: {what}" for name, what in STEPS.items()))
    main()
