"""Does cross-layer equalization (Nagel et al., 2019) help before rounding? By width, scale and rule.

    python tests/benchmarks/study_equalization.py

The MLPs of bench_peers: each hidden unit is scaled so that what comes in and what goes out have the same
largest weight, which leaves the float network's outputs as they are. Prints Markdown: paired changes of
accuracy and FVO by equalizing, with 95 % t intervals over the seeds.
"""

import copy
import warnings
from itertools import pairwise, product

import numpy as np
import pandas as pd
import torch
from bench_peers import adult, digits, gaps
from harness import with_intervals
from sklearn.frozen import FrozenEstimator

from skqfair import QuantizedClassifier

SETTINGS = {
    "granularity": ("per_tensor", "per_channel"),
    "weight_bits": (4, 3, 2),
    "rounding": ("nearest", "least_squares"),
}


@torch.no_grad()
def equalize(module, n_passes=20):
    """Scale the hidden units of Linear layers with ReLU between them, in place."""
    layers = [child for child in module.modules() if isinstance(child, torch.nn.Linear)]
    for _ in range(n_passes):
        for first, second in pairwise(layers):
            ranges = first.weight.abs().amax(1), second.weight.abs().amax(0)
            scale = torch.where(ranges[0] * ranges[1] > 0, (ranges[0] / ranges[1]).sqrt(), 1.0)
            first.weight.div_(scale[:, None])
            first.bias.div_(scale)
            second.weight.mul_(scale)


def study(cases):
    """Yield a row for each seed and setting."""
    for net, samples, labels, X, y, groups in cases:
        equalized = copy.deepcopy(net)
        equalize(equalized.module_)
        assert np.allclose(equalized.forward(X), net.forward(X), atol=1e-3)
        before = net.forward(X).numpy().argmax(1)
        for values in product(*SETTINGS.values()):
            options = dict(zip(SETTINGS, values, strict=True))
            plain, other = (
                gaps(predicted(of, samples, labels, X, options), before, y, groups)
                for of in (net, equalized)
            )
            yield options | {"accuracy": other[0] - plain[0], "FVO": other[1] - plain[1]}


def predicted(net, samples, labels, X, options):
    """Return the predictions after rounding."""
    return (
        QuantizedClassifier(
            FrozenEstimator(net),
            **options,
            bias_correction=options["rounding"] != "nearest",
            calibration_size=len(samples),
            random_state=0,
        )
        .fit(samples, labels)
        .predict(X)
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for name, cases in (("digits", digits(flat=True)), ("Adult by race", adult())):
        table = pd.DataFrame(study(cases)).groupby(list(SETTINGS), sort=False).agg(with_intervals)
        print(f"\n{name}\n\n{table.reset_index().to_markdown(index=False)}", flush=True)
