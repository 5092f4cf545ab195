"""Norms of per-sample gradients against one gradient of all, and against BackPACK."""

import copy
import warnings

import numpy as np
import torch
from harness import Row, interleaved
from problems import gradient_pass, trained
from torch import nn

from skqfair.curvature import per_sample_gradient_norms
from skqfair.networks import ConvNet


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


def activations_alone(module, X, y):
    """A forward and the gradients of activations, which any closed form of norms needs."""
    first = next(p for p in module.parameters() if p.ndim == 1)  # little work, at the first layer
    kept = [p for p in module.parameters() if p is not first]
    for p in kept:
        p.requires_grad_(False)
    torch.autograd.grad(nn.functional.cross_entropy(module(X), y), first)
    for p in kept:
        p.requires_grad_(True)


def per_sample(rounds=15):
    """Rows on per-sample norms, the check of the closed form included."""
    from backpack import backpack, extend
    from backpack.extensions import BatchL2Grad

    torch.manual_seed(0)
    images, labels = torch.randn(128, 3, 32, 32), torch.randint(5, (128,))
    module, X, y, _ = trained()
    cases = {
        "MLP, 2,000 samples": (module, X, y, 1.0),
        "plain CNN, 128 images": (plain_cnn(), images, labels, None),
        "ConvNet, 128 images": (ConvNet(3, 5), images, labels, 2.0),
        "ConvNet 64-128-256, 32 images": (
            ConvNet(3, 5, widths=(64, 128, 256)), images[:32], labels[:32], 2.0
        ),
    }  # fmt: skip
    for name, (module, X, y, aim) in cases.items():
        module.eval()
        layers = nn.Sequential(*copy.deepcopy(module).children()).eval()
        extended = extend(layers, use_converter=not isinstance(module, nn.Sequential))
        loss = extend(nn.CrossEntropyLoss(reduction="sum"))

        def backpacked(extended=extended, loss=loss, X=X, y=y):
            with backpack(BatchL2Grad()):
                loss(extended(X), y).backward()
            return sum(p.batch_l2 for p in extended.parameters()).sqrt()

        ways = {
            "ours": lambda m=module, X=X, y=y: per_sample_gradient_norms(m, X, y),
            "gradient": lambda m=module, X=X, y=y: gradient_pass(m, X, y),
            "BackPACK": backpacked,
            "floor": lambda m=module, X=X, y=y: activations_alone(m, X, y),
        }
        np.testing.assert_allclose(backpacked(), ways["ours"](), rtol=1e-3)
        times = interleaved(ways, rounds)
        if aim:
            ratio = f"{times.ratio('ours', 'gradient'):.2f}"
            yield Row(f"per-sample norms / gradient, {name}", ratio, f"<= {aim}")
        ratio, most = (f"{times.ratio('BackPACK', way):.1f}" for way in ("ours", "floor"))
        text = f"per-sample norms, {name}: time of BackPACK / ours"
        yield Row(text, ratio, ">= 2", f"{most} if norms and checks took no time")


def tables():
    """Yield a title and rows."""
    warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
    yield "Norms of per-sample gradients", list(per_sample())
