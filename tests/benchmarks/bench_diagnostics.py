"""What the diagnostics of the forward pass cost beside the forward passes themselves."""

import numpy as np
import torch
from harness import Row, interleaved
from sklearn.frozen import FrozenEstimator

from skqfair import QuantizedClassifier
from skqfair._validation import encode_groups
from skqfair.diagnostics._forward import forward_pass
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
    return [forward_columns(values, y, groups, logits["float"]) for values in logits.values()]


def plain(modules, X, size):
    with torch.no_grad():
        return [[module(batch) for batch in X.split(size)] for module in modules]


def tables():
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
