"""What derivatives of groups cost against n, groups and weights: time and memory."""

import itertools
import json
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from harness import Row, interleaved
from problems import SHARES, gradient_pass, trained

from skqfair.curvature import (
    group_gradient_norms,
    group_hessian_eigenvalues,
    group_hessian_trace,
    per_sample_gradient_norms,
)
from skqfair.networks import MLP, ConvNet


def costs():
    """Times against n, groups and weights, in gradient passes over the same samples."""
    sizes = {"10k weights": (64, 32), "95k weights": (256, 256), "1M weights": (1024, 860)}
    cases = [(n, 5, "95k weights") for n in (2000, 10_000, 50_000)]
    cases += [(2000, g, "95k weights") for g in (2, 10)]
    cases += [(2000, 5, name) for name in ("10k weights", "1M weights")]
    for n, n_groups, size in cases:
        module, X, y, groups = trained(hidden=sizes[size], n=n, n_groups=n_groups, epochs=3)
        ways = {
            "gradient": lambda m=module, X=X, y=y: gradient_pass(m, X, y),
            "norms": lambda a=(module, X, y, groups): group_gradient_norms(*a),
            "eigenvalues": lambda a=(module, X, y, groups): group_hessian_eigenvalues(*a),
            "trace": lambda a=(module, X, y, groups): group_hessian_trace(*a),
            "per sample": lambda a=(module, X, y): per_sample_gradient_norms(*a),
        }
        times = interleaved(ways, 3 if n <= 2000 else 2)
        each = ", ".join(f"{way} {times.ratio(way, 'gradient'):.1f}" for way in list(ways)[1:])
        text = f"n = {n:,}, {n_groups} groups, {size}"
        yield Row(text, each, "", f"gradient {1000 * times.median('gradient'):.0f} ms")


def memory():
    """Peak memory of a fresh process for eigenvalues, traces and per-sample norms."""
    from skqfair.curvature._group_losses import MEMORY_BUDGET

    for kind in ("mlp", "convnet"):
        for n, batch_size in itertools.product((2000, 50_000), (None, 256)):
            script = [sys.executable, __file__, kind, str(n), str(batch_size or "")]
            printed = subprocess.run(script, check=True, capture_output=True, text=True).stdout
            before, after, own, seconds = json.loads(printed)
            yield Row(
                f"peak memory, {kind}, n = {n:,}, batch_size={batch_size}: above that before the calls",
                f"{(after - before) / 2**20:.0f} MiB",
                "does not grow" if batch_size else f"<= {MEMORY_BUDGET / 2**20:.0f} MiB and a copy of X",
                f"X {own / 2**20:.0f} MiB; {seconds:.0f} s",
            )


def peak():
    """The most bytes that this process has had; what getrusage says begins with those of its parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def measure_memory(kind, n, batch_size=None):
    """Print peaks before and after, the bytes of X, and seconds, in a process of its own."""
    torch.manual_seed(0)
    groups = np.random.default_rng(0).choice(5, n, p=SHARES[5])
    if kind == "mlp":
        module, X = MLP(100, 3, hidden_sizes=(256, 256)), torch.randn(n, 100)
    else:
        module, X = ConvNet(1, 3, widths=(8, 16)), torch.randn(n, 1, 12, 12)
    y = torch.randint(3, (n,))
    few = slice(0, 64)
    group_hessian_eigenvalues(module, X[few], y[few], groups[few], max_iter=100)  # loads what is lazy
    before = peak()
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        group_hessian_eigenvalues(module, X, y, groups, max_iter=1, batch_size=batch_size)
    group_hessian_trace(module, X, y, groups, batch_size=batch_size)
    per_sample_gradient_norms(module, X, y, batch_size=batch_size)
    print(json.dumps([before, peak(), X.nbytes, time.perf_counter() - start]))


def tables():
    """Yield a title and rows."""
    yield "Curvature: cost against n, groups and weights, in gradient passes", list(costs())
    yield "Curvature: memory", list(memory())


if __name__ == "__main__":
    measure_memory(sys.argv[1], *map(int, filter(None, sys.argv[2:])))
