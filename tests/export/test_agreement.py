"""Trained networks, exported: the groups keep their predictions and their gap."""

import numpy as np
import pandas as pd
import pytest
from exports import seeded
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_digits
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import nn

from skqfair import QuantizedClassifier
from skqfair.datasets import load_adult
from skqfair.export import OnnxClassifier, parity_report, to_onnx
from skqfair.networks import ConvNet, make_classifier


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.LSTM(3, 12, batch_first=True), nn.Linear(12, 3)

    def forward(self, x):
        return self.out(self.rnn(x)[0][:, -1])


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
        self.embed, self.out = nn.Linear(3, 8), nn.Linear(8, 3)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, x):
        return self.out(self.encoder(self.embed(x)).mean(1))


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(3, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 8, 3), nn.ReLU()
        )
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        return self.out(self.body(x.transpose(1, 2)).mean(2))


def adult():
    """Income, with sex and race as groups."""
    X, y = load_adult(return_X_y=True)
    rows = np.random.default_rng(0).choice(len(X), 6000, replace=False)
    X, y = X.iloc[rows], y.iloc[rows].to_numpy()
    numbers = X.select_dtypes("number").columns
    words = [name for name in X.columns if name not in numbers]
    encode = OneHotEncoder(sparse_output=False, handle_unknown="ignore")
    scaled = make_column_transformer((StandardScaler(), numbers), (encode, words))
    values = scaled.fit_transform(X)
    return values.astype(np.float32), y, X["sex"].to_numpy()


def series():
    """Series of three classes; the smaller group is noisier."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, 3000)
    groups = np.where(rng.random(3000) < 0.25, "rare", "common")
    noise = np.where(groups == "rare", 1.6, 0.8)[:, None, None]
    time = np.arange(8) / 8
    patterns = np.stack([np.outer(np.cos(2 * np.pi * (k + 1) * time), [1, -1, k]) for k in range(3)])
    X = patterns[y] + noise * rng.standard_normal((3000, *patterns.shape[1:]))
    return X.astype(np.float32), y, groups


def images():
    """Handwritten digits; the smaller group are those with little ink."""
    X, y = load_digits(return_X_y=True)
    rows = np.random.default_rng(0).permutation(len(X))
    ink = X[rows].mean(axis=1)
    groups = np.where(ink < np.quantile(ink, 0.3), "thin", "bold")
    return (X[rows].reshape(-1, 1, 8, 8) / 8 - 1).astype(np.float32), y[rows], groups


def small_convnet():
    return ConvNet(1, 10, widths=(16, 32), blocks_per_stage=1)


def resnet18():
    return ConvNet(1, 10, widths=(64, 128, 256, 512), blocks_per_stage=2)


KINDS = {
    "mlp": (None, adult),
    "convnet": (small_convnet, images),
    "conv1d": (Convolutional, series),
    "lstm": (Recurrent, series),
    "encoder": (Encoder, series),
    "resnet18": (resnet18, images),
}


def cases():
    for name in KINDS:
        for bits in ((8, 8), (4, 8), (2, 8), (8, None)):
            for example in (False, True):
                residual = name in ("convnet", "resnet18")
                if example and not (residual and bits[1]):
                    continue
                slow = name == "resnet18" or bits != (8, 8) or (residual and not example)
                yield pytest.param(name, bits, example, marks=[pytest.mark.slow] if slow else [])


@pytest.fixture(scope="module")
def trained():
    """Data and trained float modules by name."""
    found = {}

    def of(name):
        if name not in found:
            make, data = KINDS[name]
            X, y, groups = data()
            epochs = {"mlp": 3, "convnet": 10, "resnet18": 6}.get(name, 4)
            rate = {"convnet": 0.002, "resnet18": 0.002}.get(name, 0.003)
            options = {"max_epochs": epochs, "lr": rate, "batch_size": 64}
            options |= {} if make is None else {"module": seeded(make)}
            rows = len(X) // (2 if data is images else 3) // 64 * 64  # BatchNorm takes no rest of 2
            net = QuantizedClassifier(make_classifier(**options), weight_bits=None, random_state=0)
            net.fit(X[:rows], y[:rows])
            held_out = X[rows:], y[rows:], groups[rows:]
            found[name] = net.module_, X[:rows], y[:rows], held_out, net.score(*held_out[:2])
        return found[name]

    return of


@pytest.mark.parametrize(("name", "bits", "example"), list(cases()))
def test_groups_keep_predictions_and_gap(name, bits, example, trained, tmp_path):
    module, X, y, held_out, accuracy = trained(name)
    classifier = QuantizedClassifier(
        make_classifier(module, max_epochs=0),
        weight_bits=bits[0],
        activation_bits=bits[1],
        random_state=0,
    ).fit(X, y)
    path = to_onnx(classifier, tmp_path / "model.onnx", X_example=X[:300] if example else None)
    deployed = OnnxClassifier(path)
    *samples, groups = held_out
    options = {"sensitive_features": groups, "on_failure": "ignore"}
    report = parity_report(classifier, deployed, *samples, **options)
    majority = pd.Series(held_out[1]).value_counts(normalize=True).iloc[0]
    assert accuracy > (0.95 if name in ("convnet", "resnet18") else majority + 0.02)  # it has learned
    # few bits without fine-tuning may leave little of it: then nothing is far from a boundary
    wrecked = example and classifier.score(*held_out[:2]) < accuracy - 0.05
    allowed = np.ceil(report["count"] * (0.1 if wrecked else 0.005))
    assert (report["n_different"] <= allowed).all(), report
    assert abs(report.attrs["fvo"] - report.attrs["fvo_onnx"]) <= (0.05 if wrecked else 0.005)
    if bits[1] is None:
        size = max(1.0, np.abs(classifier.decision_function(held_out[0])).max())
        assert (report["max_difference"] <= 2e-5 * size).all()
