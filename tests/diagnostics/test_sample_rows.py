"""Figures of layers by group, whatever a module makes of the axis of the samples."""

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from torch import nn

from skqfair import QuantizationDiagnostics
from skqfair.diagnostics._sample_rows import SampleRows
from skqfair.exceptions import UnclearSamplesWarning
from skqfair.networks import make_classifier
from skqfair.quantization import QuantizationScheme, convert

FRAMES = 4


class Folded(nn.Module):
    """Frames or windows as rows of a batch: those of a sample together, or time first."""

    def __init__(self, order="together"):
        super().__init__()
        self.order = order
        self.layer, self.head = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, X):
        n = len(X)
        if self.order == "together":
            return self.head(torch.relu(self.layer(X.flatten(0, 1))).view(n, FRAMES, 8).mean(1))
        if self.order == "time first":
            rows = X.transpose(0, 1).flatten(0, 1)
            return self.head(torch.relu(self.layer(rows)).view(FRAMES, n, 8).mean(0))
        if self.order == "second axis":
            return self.head(torch.relu(self.layer(X.transpose(0, 1))).mean(0))
        return self.head(torch.relu(self.layer(X)).mean(1))


class Mixing(nn.Module):
    """Samples attend to each other."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, X):
        hidden = self.layer(X.mean(1))
        return self.head(torch.softmax(hidden @ hidden.T, 1) @ hidden)


class Routed(nn.Module):
    """An expert sees some of the samples."""

    def __init__(self):
        super().__init__()
        self.layer, self.expert, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, X):
        hidden = torch.relu(self.layer(X.mean(1)))
        chosen = hidden[:, 0] > hidden[:, 1]
        hidden = hidden.index_add(0, chosen.nonzero()[:, 0], self.expert(hidden[chosen]))
        return self.head(hidden)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, FRAMES, 6)).astype(np.float32)
    groups = np.repeat(["a", "b"], 75)
    X[75:] *= 3  # another group has another range
    return X, (X.mean(1)[:, 0] > 0).astype(int), groups


def report(module, data, **options):
    X, y, groups = data
    torch.manual_seed(0)
    net = make_classifier(module, max_epochs=2, batch_size=32).fit(X, y)
    diagnostics = QuantizationDiagnostics(
        FrozenEstimator(net), weight_bits=3, n_eigenvalues=0, random_state=0, **options
    ).fit(X, y, sensitive_features=groups)
    return net, diagnostics.attribution_.xs(3, level="bits")


@pytest.mark.parametrize("order", ["together", "time first", "second axis", "plain"])
def test_frames_in_any_order(order, data):
    X, _, groups = data
    net, table = report(Folded(order), data)
    scheme = QuantizationScheme(3)
    clean, rounded = net.module_.layer, convert(net.module_, scheme).module.layer
    for group in "ab":
        rows = torch.as_tensor(X[groups == group])
        with torch.no_grad():
            signal = clean(rows)
            noise = rounded(rows) - signal
        expected = 10 * np.log10(float(signal.square().sum() / noise.square().sum()))
        found = table.loc[("layer.weight", group), "activation_sqnr_db"]
        assert found == pytest.approx(expected, rel=1e-5)
    table = report(Folded(order), data, activation_bits=3)[1]
    plain = report(Folded("plain"), data, activation_bits=3)[1]
    columns = ["activation_sqnr_db", "clipping_rate"]
    np.testing.assert_allclose(table[columns], plain[columns], rtol=1e-4, atol=1e-6)


def test_samples_that_see_each_other_are_nan_with_a_warning(data):
    with pytest.warns(UnclearSamplesWarning, match="the outputs of head cannot be told apart"):
        _, table = report(Mixing(), data)
    assert table.loc["layer.weight", "activation_sqnr_db"].notna().all()
    assert table.loc["head.weight", "activation_sqnr_db"].isna().all()


def test_an_expert_that_sees_some_samples(data):
    with pytest.warns(UnclearSamplesWarning, match="the outputs of expert cannot"):
        _, table = report(Routed(), data)
    assert table.loc["expert.weight", "activation_sqnr_db"].isna().all()
    assert table.loc[["layer.weight", "head.weight"], "activation_sqnr_db"].notna().all()


@pytest.mark.parametrize("n_samples", [1, 5, 32])
@pytest.mark.parametrize(("each", "together"), [(1, True), (3, True), (3, False)])
def test_split(n_samples, each, together):
    values = torch.arange(n_samples * each * 2 * 2.0).reshape(n_samples * each, 2, 2)
    rows = SampleRows(each, together).split(values, n_samples)
    owner = np.arange(n_samples * each) // each if together else np.arange(n_samples * each) % n_samples
    for sample in range(n_samples):
        np.testing.assert_array_equal(rows[sample], values[owner == sample].flatten())
    assert SampleRows(each, together).split(values[:-1], n_samples) is None or n_samples * each == 1
