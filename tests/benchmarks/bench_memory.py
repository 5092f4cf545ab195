"""A grid of 5 widths x 3 folds with and without ``memory``."""

import tempfile
import time
from statistics import median

import numpy as np
from harness import Row
from sklearn.model_selection import GridSearchCV

from skqfair import QuantizedClassifier
from skqfair.networks import make_classifier

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20_000, 100)).astype(np.float32)
Y = (X[:, :5].sum(1) > 0).astype(np.int64)


def seconds(memory):
    """Time of one search."""
    clf = QuantizedClassifier(make_classifier(max_epochs=10), memory=memory, random_state=0)
    search = GridSearchCV(clf, {"weight_bits": [2, 3, 4, 6, 8]}, cv=3, error_score="raise")
    start = time.perf_counter()
    search.fit(X, Y)
    return time.perf_counter() - start


def tables():
    """Yield a title and rows."""
    plain, cold, warm = [], [], []
    for _ in range(3):
        plain.append(seconds(None))
        with tempfile.TemporaryDirectory() as folder:
            cold.append(seconds(folder))
            warm.append(seconds(folder))
    yield (
        "A grid of 5 widths x 3 folds, 20,000 x 100, 10 epochs: `memory` against none",
        [
            Row(
                "cold (4 float trainings instead of 16)",
                f"{median(cold) / median(plain):.2f}",
                "<= 0.35",
            ),
            Row("warm (no training)", f"{median(warm) / median(plain):.3f}", "<= 0.08"),
        ],
    )
