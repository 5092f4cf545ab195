"""The label of one row, against the quantized module alone."""

import numpy as np
import torch
from harness import Row, interleaved
from skorch import NeuralNetClassifier
from torch import nn

from skqfair import QuantizedClassifier
from skqfair.networks import MLP, ConvNet, make_classifier

RNG = np.random.default_rng(0)
NETS = {
    "MLP 14-64-64-2": ((14,), MLP(14, 2, hidden_sizes=(64, 64)), 300),
    "MLP 100-256-256-2": ((100,), MLP(100, 2, hidden_sizes=(256, 256)), 300),
    "MLP 784-1000-1000-2": ((784,), MLP(784, 2, hidden_sizes=(1000, 1000)), 50),
    "ConvNet, 48 x 48": ((3, 48, 48), ConvNet(3, 2), 20),
}


def often(function, times):
    """A function that calls another so often."""

    def repeated():
        for _ in range(times):
            function()

    return repeated


def tables():
    """Yield a title and rows for networks from tiny to large."""
    rows = []
    for name, (shape, module, times) in NETS.items():
        X = RNG.normal(size=(64, *shape)).astype(np.float32)
        y = np.arange(64) % 2
        clf = QuantizedClassifier(make_classifier(module, max_epochs=1), random_state=0).fit(X, y)
        options = {"max_epochs": 1, "train_split": None, "verbose": 0}
        plain = NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss, **options).fit(X, y)
        row = X[:1]
        tensor = torch.as_tensor(row)
        calls = {
            "alone": torch.no_grad()(lambda m=clf.module_, t=tensor: m(t)),
            "ours": lambda c=clf, r=row: c.predict(r),
            "skorch": lambda n=plain, r=row: n.predict(r),
        }
        found = interleaved({key: often(call, times) for key, call in calls.items()}, 15)
        rows.append(
            Row(
                f"{name}: `predict` of one row / the module alone",
                f"{found.ratio('ours', 'alone'):.1f}",
                "<= 5",
                f"plain skorch {found.ratio('skorch', 'alone'):.1f}",
            )
        )
    yield "One row", rows
