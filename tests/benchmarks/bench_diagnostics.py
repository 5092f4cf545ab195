"""What the forward diagnostics cost beside the forward passes, and what the size of a group does."""

import numpy as np
import torch
from harness import Row, interleaved
from sklearn.frozen import FrozenEstimator
from sklearn.preprocessing import StandardScaler

from skqfair import QuantizedClassifier
from skqfair._groups import encode_groups
from skqfair.datasets import load_adult
from skqfair.diagnostics import group_gradient_norms, group_hessian_eigenvalues
from skqfair.diagnostics._forward import forward_pass, sample_losses
from skqfair.diagnostics._layers import layer_modules
from skqfair.diagnostics._reports import forward_columns
from skqfair.diagnostics._versions import Version
from skqfair.networks import ConvNet, make_classifier


def versions_of(net, X, y):
    """The float version and the one at 4 bits."""
    frozen = FrozenEstimator(net.fit(X, y))
    whole, low = (
        QuantizedClassifier(frozen, weight_bits=bits, random_state=0).fit(X, y) for bits in (None, 4)
    )
    return [Version("float", whole, {}, None), Version(4, low, low.quantized_weights_, "float")]


def diagnose(versions, X, y, groups, layers):
    logits, *_ = forward_pass(versions, X, groups, layers=layers)
    losses = {name: sample_losses(values, y) for name, values in logits.items()}
    return forward_columns(logits, losses, y, groups)


def plain(modules, X, size):
    with torch.no_grad():
        return [[module(batch) for batch in X.split(size)] for module in modules]


def size_effect():
    """Yield rows: gradient norm and largest eigenvalue of samples of one group, over those of 4,000."""
    adult = load_adult()
    X = StandardScaler().fit_transform(adult.data.select_dtypes("number")).astype(np.float32)
    y = (adult.target == ">50K").to_numpy().astype(np.int64)
    torch.manual_seed(0)
    net = make_classifier(module__hidden_sizes=(64, 32), max_epochs=8).fit(X[8000:], y[8000:])
    white = np.flatnonzero(adult.sensitive_features["race"][:8000] == "White")[:4000]
    rng, measures = np.random.default_rng(0), (group_gradient_norms, group_hessian_eigenvalues)

    def of(rows):
        some = X[rows], y[rows], np.zeros(len(rows))
        return np.array([float(np.ravel(f(net.module_, *some))[0]) for f in measures])

    whole = of(white)
    for n in (64, 256, 1024):
        draws = [of(rng.choice(white, n, replace=False)) / whole for _ in range(40)]
        norm, top = np.mean(draws, axis=0)
        yield Row(f"{n} of 4,000: gradient norm x {norm:.1f}", f"eigenvalue {top - 1:+.1%}", "")


def tables():
    """Yield titles and rows."""
    yield "One group of Adult, subsampled: means of 40 draws", list(size_effect())
    yield from costs()


def costs():
    """Yield a title and rows."""
    rng, rows = np.random.default_rng(0), []
    nets = {
        "MLP 100-256-256-10, n = 20,000": (
            make_classifier(module__hidden_sizes=(256, 256), max_epochs=1),
            rng.normal(size=(20_000, 100)).astype(np.float32),
        ),
        "ConvNet, 512 images of 32 x 32": (
            make_classifier(ConvNet, max_epochs=1),
            rng.normal(size=(512, 3, 32, 32)).astype(np.float32),
        ),
    }
    for name, (net, X) in nets.items():
        y, groups = rng.integers(0, 10, len(X)), encode_groups(rng.integers(0, 5, len(X)), len(X))
        versions = versions_of(net, X, y)
        layers = layer_modules(versions[0].network.module)
        modules = [version.classifier.module_ for version in versions]
        size, tensor = versions[0].network.batch_size(len(X)), torch.as_tensor(X)
        times = interleaved(
            {
                "report": lambda v=versions, X=X, y=y, g=groups, at=layers: diagnose(v, X, y, g, at),
                "forward": lambda m=modules, X=tensor, s=size: plain(m, X, s),
            },
            rounds=9,
        )
        rows.append(
            Row(f"{name}: report / two forwards", f"{times.ratio('report', 'forward'):.2f}", "<= 1.5")
        )
    yield "Diagnostics without gradients: float and one width", rows
