"""Eigenvalues, traces and gradient norms of groups against PyHessian, curvlinops and BackPACK."""

import copy
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
from scipy.sparse.linalg import eigsh
from sklearn.datasets import make_classification
from torch import nn

from skqfair.curvature import (
    Hessian,
    Problem,
    evaluating,
    extreme_eigenvalues,
    group_gradient_norms,
    group_hessian_eigenvalues,
    group_hessian_trace,
    group_trace,
    per_sample_gradient_norms,
    trace_method,
)
from skqfair.networks import MLP, ConvNet
from skqfair.quantization import QuantizationScheme, convert

WIDTHS = (16, 8, 4, 3, 2)
SHARES = {
    2: (0.8, 0.2),
    5: (0.5, 0.25, 0.15, 0.07, 0.03),
    10: (0.3, 0.2, 0.15, 0.1, *[0.05] * 4, 0.03, 0.02),
}


def trained(classes=10, *, hidden=(256, 256), n=2000, n_groups=5, epochs=10, seed=0):
    """A trained MLP, its samples, and groups of unequal size."""
    X, y = make_classification(
        n, 100, n_informative=20, n_classes=classes, n_clusters_per_class=1, random_state=seed
    )
    X, y = torch.as_tensor(X, dtype=torch.float32), torch.as_tensor(y)
    torch.manual_seed(seed)
    module = MLP(100, classes, hidden_sizes=hidden).train()
    optimizer = torch.optim.Adam(module.parameters(), 1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(n).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(X[rows]), y[rows]).backward()
            optimizer.step()
    groups = np.random.default_rng(seed).choice(n_groups, n, p=SHARES[n_groups])
    return module.eval(), X, y, groups


def products(module, X, y, groups, start=None):
    """Hessian-vector products for the largest eigenvalue of each group, and the vectors."""
    problem, counts, vectors = Problem(module, X, y, groups), [], []
    with evaluating(module):
        for g, rows in enumerate(problem.members()):
            hessian = Hessian(problem, rows)
            pairs = extreme_eigenvalues(hessian, None if start is None else start[g])
            counts.append(hessian.n_products)
            vectors.append(pairs.vectors)
    return counts, vectors


def passes():
    """Rows on passes, cold and from one width to the next, over three trainings."""
    cold, warm = [], []
    for seed in range(3):
        module, *data = trained(seed=seed)
        counts, vectors = products(module, *data)
        cold.append(np.mean(counts))
        for bits in WIDTHS:
            quantized = convert(module, QuantizationScheme(bits)).module.requires_grad_(True)
            counts, vectors = products(quantized, *data, vectors)
            warm.append(np.mean(counts))
    yield Row("passes (products a group), cold", f"{np.mean(cold):.1f}", "<= 16")
    yield Row(
        f"passes, from width to width ({', '.join(map(str, WIDTHS))} bits)",
        f"{np.mean(warm):.1f}",
        "<= 12",
    )


def members(X, y, groups):
    """Samples of each group."""
    return [(X[groups == g], y[groups == g]) for g in np.unique(groups)]


def pyhessian(data, module, tol):
    """Largest eigenvalues by PyHessian, which starts at random."""
    from pyhessian import hessian

    torch.manual_seed(0)
    values = []
    for part in data:
        found = hessian(module, nn.CrossEntropyLoss(), data=part, cuda=False)
        values.append(found.eigenvalues(maxIter=1000, tol=tol)[0][0])
        module.zero_grad()
    return np.array(values)


def curvlinops(data, module):
    """Largest eigenvalues by curvlinops and scipy."""
    from curvlinops import HessianLinearOperator

    weights, values = list(module.parameters()), []
    for part in data:
        operator = HessianLinearOperator(module, nn.CrossEntropyLoss(), weights, [part])
        operator = operator.to_scipy(dtype=np.float32)
        v0 = np.random.default_rng(0).normal(size=operator.shape[0]).astype(np.float32)
        values.append(eigsh(operator, k=1, which="LA", tol=1e-3, v0=v0, return_eigenvectors=False)[0])
    return np.array(values)


def solvers(seed, epochs):
    """Times of other solvers / ours on one training, float, 4 and 2 bits, and the largest errors."""
    module, X, y, groups = trained(seed=seed, epochs=epochs)
    data = members(X, y, groups)
    schemes = [QuantizationScheme(bits) for bits in (4, 2)]
    nets = [module, *(convert(module, scheme).module.requires_grad_(True) for scheme in schemes)]
    doubles = [copy.deepcopy(net).double() for net in nets]
    exact = np.array([group_hessian_eigenvalues(m, X, y, groups, tol=1e-5)[:, 0] for m in doubles])
    cases = [copy.deepcopy(m) for m in nets]  # PyHessian leaves gradients with graphs

    def ours():
        values, vectors = [], None
        for net in nets:
            found, vectors = group_hessian_eigenvalues(
                net, X, y, groups, v0=vectors, return_eigenvectors=True
            )
            values.append(found[:, 0])
        return np.array(values)

    def compared(way):
        seconds, error = [], []
        for each in (way, ours):
            start = time.perf_counter()
            error.append(np.abs(each() / exact - 1).max())
            seconds.append(time.perf_counter() - start)
        return seconds[0] / seconds[1], *error

    ours()  # loads what is lazy
    ratio, error, own = compared(lambda: np.array([curvlinops(data, m) for m in cases]))
    ratios, errors = {"curvlinops": ratio}, {"curvlinops": error, "ours": own}
    for tol in 10.0 ** -np.arange(3, 9):  # tighter until PyHessian is as accurate
        ratio, error, _ = compared(lambda tol=tol: np.array([pyhessian(data, m, tol) for m in cases]))
        for name, most in (("loose", 1e-3), ("equal", own)):
            if error <= most and name not in ratios:
                ratios[name], errors[name] = ratio, error
        if error <= own:
            break
    for name in ("loose", "equal"):  # where it does not get there: what its last attempt took
        ratios.setdefault(name, ratio), errors.setdefault(name, error)
    return ratios, errors


def eigenvalues():
    """Rows on the time of the largest eigenvalues of all groups, for several trainings."""
    found = [solvers(seed, epochs) for seed in (0, 1) for epochs in (3, 10, 30)]
    own = max(errors["ours"] for _, errors in found)
    for name, text, aim in (
        ("loose", "PyHessian where its errors are at most 1e-3", ">= 6"),
        ("equal", "PyHessian where its errors are at most ours", ">= 6"),
        ("curvlinops", "curvlinops and eigsh at tol=1e-3", ">= 3"),
    ):
        ratios = [ratios[name] for ratios, _ in found]
        error = max(errors[name] for _, errors in found)
        yield Row(
            f"largest eigenvalues, float, 4 and 2 bits: time of {text} / ours",
            f"{np.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}, {len(ratios)} trainings)",
            aim,
            f"largest error {error:.0e}, ours {own:.0e}",
        )


def needed():
    """A row on the products after which the Krylov space of a random start has the value to 1e-3."""
    counts = []
    for seed in range(3):
        module, X, y, groups = trained(seed=seed)
        problem = Problem(module, X, y, groups)
        with evaluating(module):
            for rows in problem.members():
                hessian = Hessian(problem, rows)
                exact = extreme_eigenvalues(hessian, tol=1e-5).values[0]
                for m in range(1, 100):
                    found = extreme_eigenvalues(hessian, tol=1e-9, max_iter=m)
                    if abs(found.values[0] / exact - 1) <= 1e-3:
                        break
                counts.append(m)
    text = "products a group with which any Krylov method can have 1e-3 from a random start"
    yield Row(text, f"{np.mean(counts):.1f}", "")


def product_against_gradient(rounds=15):
    """The time of one product, its graph kept, in gradients of all weights."""
    module, X, y, _ = trained()
    problem = Problem(module, X, y)
    rows = np.arange(len(X))
    with evaluating(module):
        hessian = Hessian(problem, rows)
        vector = torch.randn(problem.n_weights)
        times = interleaved(
            {
                "product": lambda: [hessian(vector) for _ in range(5)],
                "gradient": lambda: [problem.gradient(rows) for _ in range(5)],
            },
            rounds,
        )
    yield Row("Hessian-vector product / gradient", f"{times.ratio('product', 'gradient'):.2f}", "<= 2.5")


def traces(rounds=5):
    """Exact traces against 30 probes of Hutchinson's estimator, with the same products as ours."""
    for classes, aim in ((2, 50), (10, 10)):
        module, X, y, groups = trained(classes)
        problem = Problem(module, X, y, groups)

        def exact(problem=problem):
            with evaluating(problem.module):
                return [group_trace(problem, rows, "exact") for rows in problem.members()]

        def hutchinson(problem=problem):
            with evaluating(problem.module):
                for rows in problem.members():
                    hessian = Hessian(problem, rows)
                    for _ in range(30):
                        probe = torch.randint(2, (problem.n_weights,)) * 2.0 - 1
                        torch.dot(probe, hessian(probe))

        with evaluating(module):
            assert trace_method(problem) == "exact"
        times = interleaved({"exact": exact, "probes": hutchinson}, rounds)
        ratio = times.ratio("probes", "exact")
        yield Row(f"traces, {classes} classes: time of 30 probes / exact", f"{ratio:.0f}", f">= {aim}")


def gradient_pass(module, X, y):
    """One backward for all weights."""
    weights = list(module.parameters())
    return torch.autograd.grad(nn.functional.cross_entropy(module(X), y), weights)


def plain_cnn():
    """A network of what BackPACK knows."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1024, 5),
    )


def per_sample(rounds=7):
    """Rows on per-sample norms, the check of the closed form included."""
    from backpack import backpack, extend
    from backpack.extensions import BatchL2Grad

    torch.manual_seed(0)
    images, labels = torch.randn(128, 3, 32, 32), torch.randint(5, (128,))
    module, X, y, _ = trained()
    cases = {
        "MLP, 2,000 samples": (module, X, y, 1.0, True),
        "plain CNN, 128 images": (plain_cnn(), images, labels, None, True),
        "ConvNet, 128 images": (ConvNet(3, 5), images, labels, 2.0, False),
        "ConvNet 64-128-256, 32 images": (
            ConvNet(3, 5, widths=(64, 128, 256)), images[:32], labels[:32], 2.0, False
        ),
    }  # fmt: skip
    for name, (module, X, y, aim, peer) in cases.items():
        module.eval()
        ways = {
            "ours": lambda m=module, X=X, y=y: per_sample_gradient_norms(m, X, y),
            "gradient": lambda m=module, X=X, y=y: gradient_pass(m, X, y),
        }
        if peer:
            layers = module if isinstance(module, nn.Sequential) else plain_layers(module)
            extended, loss = extend(copy.deepcopy(layers)), extend(nn.CrossEntropyLoss(reduction="sum"))

            def backpacked(extended=extended, loss=loss, X=X, y=y):
                with backpack(BatchL2Grad()):
                    loss(extended(X), y).backward()
                return sum(p.batch_l2 for p in extended.parameters()).sqrt()

            np.testing.assert_allclose(backpacked(), ways["ours"](), rtol=1e-3)
            ways["BackPACK"] = backpacked
        times = interleaved(ways, rounds)
        if aim:
            ratio = f"{times.ratio('ours', 'gradient'):.2f}"
            yield Row(f"per-sample norms / gradient, {name}", ratio, f"<= {aim}")
        if peer:
            ratio = f"{times.ratio('BackPACK', 'ours'):.1f}"
            yield Row(f"per-sample norms, {name}: time of BackPACK / ours", ratio, ">= 2")


def plain_layers(module):
    """The layers of an MLP in a row: BackPACK wants a Sequential of known layers."""
    layers = [m for m in module.modules() if not list(m.children())]
    return nn.Sequential(*(m for m in layers if isinstance(m, (nn.Linear, nn.ReLU)))).eval()


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
    from skqfair.curvature._problem import MEMORY_BUDGET

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
    warnings.filterwarnings("ignore", "`torch.jit.script", DeprecationWarning)
    warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
    yield (
        "Curvature of 5 unequal groups, MLP 100-256-256-10, 2,000 samples",
        [*passes(), *needed(), *eigenvalues(), *product_against_gradient(), *traces()],
    )
    yield "Norms of per-sample gradients", list(per_sample())
    yield "Curvature: cost against n, groups and weights, in gradient passes", list(costs())
    yield "Curvature: memory", list(memory())


if __name__ == "__main__":
    measure_memory(sys.argv[1], *map(int, filter(None, sys.argv[2:])))
