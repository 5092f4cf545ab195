"""One bit of a file changes: an error, or results equal in every bit; never another result."""

import warnings

import numpy as np
import pandas as pd
import pytest
import skops.io
from nets import small, weights_of
from sklearn.base import clone

from skqfair import CompressionAudit, FairQATClassifier, QuantizedClassifier

FLIPS = [20, pytest.param(500, marks=pytest.mark.slow)]
OWN = ["skqfair.QuantizedClassifier"]


@pytest.fixture(scope="module")
def fitted(problem):
    X, y, _ = problem
    return QuantizedClassifier(small(), weight_bits=4, activation_bits=8, random_state=0).fit(X, y)


def flipped(content, n, seed=0):
    """Yield copies with one bit flipped, anywhere."""
    rng = np.random.default_rng(seed)
    places = np.linspace(0, len(content) - 1, n).astype(int) + rng.integers(
        0, max(1, len(content) // n), n
    )
    for place in np.minimum(places, len(content) - 1):
        changed = bytearray(content)
        changed[place] ^= 1 << rng.integers(8)
        yield bytes(changed)


def unnoticed(content, n, read, expected):
    """Return how many flips were refused, and how many were read with the same results."""
    refused = same = 0
    for changed in flipped(content, n):
        try:
            with warnings.catch_warnings(action="ignore"):
                found = read(changed)
        except Exception:  # of zip, JSON, protobuf and onnxruntime, all on reading
            refused += 1
            continue
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)
        same += 1
    assert refused + same == n
    return refused


@pytest.mark.parametrize("n", FLIPS)
def test_skops_files(problem, fitted, n):
    X, _, _ = problem

    def read(content):
        clf = skops.io.loads(content, trusted=OWN)
        sizes = [clf.model_size_, clf.compression_ratio_, *clf.layer_bits_.values()]
        return clf.predict(X), clf.predict_proba(X), clf.classes_, weights_of(clf), sizes

    content = skops.io.dumps(fitted)
    assert unnoticed(content, n, read, read(content)) > n / 2


@pytest.mark.parametrize("n", FLIPS)
def test_onnx_files(problem, fitted, tmp_path, n):
    export = pytest.importorskip("skqfair.export")
    X, _, _ = problem

    def read(content):
        clf = export.OnnxClassifier(content)
        return clf.predict(X), clf.predict_proba(X), clf.classes_

    content = export.to_onnx(fitted, tmp_path / "model.onnx").read_bytes()
    assert unnoticed(content, n, read, read(content)) > n / 2


@pytest.mark.parametrize("n", FLIPS)
def test_audits(problem, n):
    rng = np.random.default_rng(0)
    y, groups = rng.integers(0, 2, 60), rng.choice(["a", "b"], 60)
    predictions = {"float": y, "int2": np.where(rng.random(60) < 0.2, 1 - y, y)}
    audit = CompressionAudit.from_predictions(y, predictions, sensitive_features=groups)

    def read(content):
        found = CompressionAudit.from_json(content.decode())
        tables = [found.models, found.groups, found.changes, found.detectable, found.exemplars]
        return *(table.astype(str) for table in tables), found.verdicts, [str(found.context)]

    content = audit.to_json().encode()
    assert unnoticed(content, n, read, read(content)) > n / 2
    pd.testing.assert_frame_equal(CompressionAudit.from_json(audit.to_json()).models, audit.models)


@pytest.mark.parametrize("n", FLIPS)
def test_entries_of_memory(problem, tmp_path, n):
    """A changed one is trained anew: the result is that of an undisturbed fit."""
    X, y, _ = problem
    net = small(max_epochs=1)
    clf = FairQATClassifier(net, finetune_epochs=0, memory=str(tmp_path), random_state=0)
    expected = clone(clf).fit(X, y).predict_proba(X)
    (entry,) = tmp_path.rglob("output.pkl")
    content = entry.read_bytes()
    for changed in flipped(content, n):
        entry.write_bytes(changed)
        with pytest.warns(UserWarning, match="is damaged; it is trained anew and replaced"):
            found = clone(clf).fit(X, y).predict_proba(X)
        np.testing.assert_array_equal(found, expected)
