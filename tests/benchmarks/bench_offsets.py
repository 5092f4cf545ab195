"""What distillation adds to a step of fine-tuning, and how long offsets of the classes take."""

import copy

import numpy as np
import torch
from harness import Row, interleaved
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.frozen import FrozenEstimator
from torch import nn

from skqfair import FairOffsetClassifier
from skqfair.networks import MLP, ConvNet, Distillation, make_classifier
from skqfair.quantization import FakeQuantization, QuantizationScheme


def tables():
    """Yield a title and rows."""
    torch.manual_seed(0)
    small, large = MLP(100, 10), ConvNet(3, 10, widths=(16, 32, 64))
    rows = [
        step("MLP 128-64, batches of 128", small, torch.randn(128, 100), 40),
        step("ConvNet 16-32-64, batches of 64 at 32 x 32", large, torch.randn(64, 3, 32, 32), 2),
    ]
    yield "Fine-tuning step with distillation, teacher's outputs known", rows
    yield "Class offsets, 100,000 samples, 10 classes", list(offsets())


def step(name, module, X, n_steps, rounds=11):
    """Steps under fake quantization at 4 bits, of the labels alone and with soft labels."""
    y = torch.arange(len(X)) % 10
    soft = Distillation(0.9, 2.0, None, torch.randn(len(X), 10).log_softmax(1))
    batch = {"X": X, "teacher": soft.targets}

    def steps(distil):
        fake = FakeQuantization(
            copy.deepcopy(module).train(), QuantizationScheme(4, calibration="minmax")
        )
        optimizer = torch.optim.Adam(fake.module.parameters(), lr=1e-3)

        def run():
            for _ in range(n_steps):
                optimizer.zero_grad()
                with fake.applied(training=True):
                    outputs = fake.module(X)
                    losses = nn.functional.cross_entropy(outputs, y, reduction="none")
                    if distil:
                        losses = soft.mixed(losses, outputs, batch, 1)
                    losses.mean().backward()
                optimizer.step()

        return run

    times = interleaved({"plain": steps(False), "soft": steps(True)}, rounds)
    return Row(f"{name}: with / without", f"{times.ratio('soft', 'plain'):.2f}", "<= 1.15")


class Given(ClassifierMixin, BaseEstimator):
    """Its X are probabilities."""

    def fit(self, X, y):
        """Take the classes."""
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        """Return X."""
        return X


def offsets(n=100_000, n_classes=10):
    """The fit of offsets, against predictions for as many samples by a small network."""
    rng = np.random.default_rng(0)
    y = rng.integers(n_classes, size=n)
    logits = rng.normal(size=(n, n_classes))
    logits[np.arange(n), y] += np.linspace(1, 2.5, n_classes)[y]
    p = torch.as_tensor(logits).softmax(1).numpy()
    clf = FairOffsetClassifier(FrozenEstimator(Given().fit(p, y)), random_state=0)
    net = make_classifier(max_epochs=1).fit(rng.normal(size=(1000, 100)).astype(np.float32), y[:1000])
    X = rng.normal(size=(n, 100)).astype(np.float32)
    times = interleaved({"offsets": lambda: clf.fit(p, y), "predictions": lambda: net.predict(X)}, 5)
    ratio = times.ratio("offsets", "predictions")
    yield Row("fit / predictions of an MLP 128-64 of 100 features", f"{ratio:.1f}", "")
    yield Row("fit", f"{times.median('offsets') * 1e3:.0f} ms", "<= 2,000 ms")
