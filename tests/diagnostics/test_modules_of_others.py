"""Reports of modules that do unusual things: all figures, or NaN with the reason, and never a crash."""

import warnings

import numpy as np
import pytest
import torch
from diagnostics_reference import derivative_columns
from sklearn.frozen import FrozenEstimator
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

from skqfair import QuantizationDiagnostics, QuantizedClassifier
from skqfair.curvature._differentiable import differentiable_copy
from skqfair.exceptions import NoCurvatureWarning
from skqfair.networks import make_classifier

N = 160


class Synchronised(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.SyncBatchNorm(4)
        self.output = nn.Linear(4, 2)

    def forward(self, x):
        x = self.convolution(x)  # needs a group of processes to be trained
        return self.output(torch.tanh(x if self.training else self.norm(x)).mean((2, 3)))


class Words(nn.Module):
    def __init__(self, kind=nn.Embedding, **options):
        super().__init__()
        self.embed, self.output = kind(20, 8, **options), nn.Linear(8, 2)

    def forward(self, x):
        found = self.embed(x)
        return self.output(found.mean(1) if found.ndim == 3 else found)


class CompiledPart(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.compile(nn.Linear(6, 8), backend="aot_eager")
        self.output = nn.Linear(8, 2)

    def forward(self, x):
        return self.output(torch.tanh(self.first(x)))


class Sized(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.output = nn.ConvTranspose2d(3, 4, 3, stride=2), nn.Linear(4, 2)

    def forward(self, x):
        return self.output(torch.tanh(self.up(x, output_size=[18, 18])).mean((2, 3)))


class Pruned(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.output = nn.Linear(6, 8), nn.Linear(8, 2)
        prune.l1_unstructured(self.first, "weight", 0.5)

    def forward(self, x):
        return self.output(torch.tanh(self.first(x)))


class Hard(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.gate, self.output = nn.Linear(6, 8), nn.Hardsigmoid(), nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x)
        return self.output(F.hardswish(x) * self.gate(x))


class Unused(nn.Module):
    """A layer and an expert that the loss does not depend on, as BERT's pooler or a routed expert."""

    def __init__(self):
        super().__init__()
        self.first, self.output, self.pooler = nn.Linear(6, 8), nn.Linear(8, 2), nn.Linear(8, 3)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))

    def forward(self, x):
        x = torch.tanh(self.first(x))
        self.pooler(x)
        return self.output(torch.tanh(self.experts[1](x)))


class Padded(nn.Module):
    """Padded at the end only, where torch's fast path goes over to nested tensors."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
        self.embed, self.output = nn.Embedding(20, 8, padding_idx=0), nn.Linear(8, 2)
        self.encoder = nn.TransformerEncoder(layer, 1)

    def forward(self, x):
        mask = x == 0
        hidden = self.encoder(self.embed(x), src_key_padding_mask=mask)
        return self.output((hidden * ~mask[..., None]).sum(1) / (~mask).sum(1, keepdim=True))


class Norm(nn.Module):
    def __init__(self, norm=nn.utils.weight_norm):
        super().__init__()
        self.first, self.output = nn.Linear(6, 8), nn.Linear(8, 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            norm(self.first)

    def forward(self, x):
        return self.output(torch.tanh(self.first(x)))


def inputs(kind):
    rng = np.random.default_rng(0)
    if kind == "images":
        return rng.normal(size=(N, 3, 8, 8)).astype(np.float32)
    if kind == "words":
        return rng.integers(0, 20, (N, 5))
    return rng.normal(size=(N, 6)).astype(np.float32)


CASES = {
    "SyncBatchNorm": (Synchronised, "images"),
    "Embedding(sparse=True)": (lambda: Words(sparse=True), "words"),
    "EmbeddingBag": (lambda: Words(nn.EmbeddingBag), "words"),
    "EmbeddingBag(sparse=True, sum)": (lambda: Words(nn.EmbeddingBag, sparse=True, mode="sum"), "words"),
    "EmbeddingBag(padding)": (lambda: Words(nn.EmbeddingBag, padding_idx=0), "words"),
    "unused layers": (Unused, "rows"),
    "compiled part": (CompiledPart, "rows"),
    "output_size": (Sized, "images"),
    "prune": (Pruned, "rows"),
    "Hardsigmoid": (Hard, "rows"),
    "weight_norm": (Norm, "rows"),
    "spectral_norm": (lambda: Norm(nn.utils.spectral_norm), "rows"),
}


def report(module, X, **options):
    y, groups = np.arange(N) % 2, np.arange(N) // 2 % 2
    net = make_classifier(module, max_epochs=1, optimizer=torch.optim.SGD, lr=0.01).fit(X, y)
    diagnostics = QuantizationDiagnostics(FrozenEstimator(net), weight_bits=4, random_state=0, **options)
    diagnostics.fit(X, y, sensitive_features=groups)
    return diagnostics.group_report_, net, y, groups


@pytest.mark.parametrize("name", CASES)
def test_all_figures(name):
    make, kind = CASES[name]
    torch.manual_seed(0)
    X = inputs(kind)
    table, net, y, groups = report(make(), X, match_group_sizes=False)
    figures = [c for c in table if not c.endswith(("_low", "_high"))]
    assert table.loc[4, figures].notna().all(axis=None)
    if name in ("SyncBatchNorm", "output_size", "unused layers"):
        module = net.module_.eval()
        for group in (0, 1):
            rows = groups == group
            expected = derivative_columns(module, X[rows], torch.as_tensor(y[rows]))
            for column in ("gradient_norm", "hessian_max_eigenvalue"):
                assert table.loc[("float", group), column] == pytest.approx(expected[column], rel=1e-3)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("activation_bits", [None, 8])
def test_encoders_with_a_mask(activation_bits):
    torch.manual_seed(0)
    X = inputs("words") % 19 + 1
    X[::2, 3:] = 0
    table, net, *_ = report(Padded(), X, activation_bits=activation_bits, match_group_sizes=False)
    figures = [c for c in table if not c.endswith(("_low", "_high"))]
    assert table.loc[4, figures].notna().all(axis=None)
    clf = QuantizedClassifier(FrozenEstimator(net), weight_bits=None).fit(X, np.arange(N) % 2)
    np.testing.assert_allclose(clf.predict_proba(X), net.predict_proba(X), atol=1e-6)
    assert net.module_.encoder.use_nested_tensor  # the user's own is as it was
    for options in ({"rounding": "gptq"}, {"activation_bits": 8, "bias_correction": True}):
        clf = QuantizedClassifier(FrozenEstimator(net), weight_bits=8, random_state=0, **options)
        clf.fit(X, np.arange(N) % 2)
        np.testing.assert_allclose(clf.predict_proba(X), net.predict_proba(X), atol=0.05)


@pytest.mark.parametrize("padding", [None, 2])
@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_bags_are_written_out_exactly(mode, padding):
    torch.manual_seed(0)
    ids, offsets = torch.randint(0, 20, (7, 5)), torch.tensor([0, 0, 3, 10, 35])
    ids[3] = 2
    for last in (True, False):
        bag = nn.EmbeddingBag(20, 4, mode=mode, padding_idx=padding, include_last_offset=last)
        plain = differentiable_copy(bag)
        assert torch.equal(plain(ids), bag(ids))
        some = offsets if last else offsets[:-1]
        assert torch.equal(plain(ids.reshape(-1), some), bag(ids.reshape(-1), some))
        if mode == "sum":
            weights = torch.rand(7, 5)
            expected = bag(ids, per_sample_weights=weights)
            torch.testing.assert_close(plain(ids, per_sample_weights=weights), expected)


@pytest.mark.filterwarnings("ignore:Casting complex values")
def test_complex_weights_are_nan_with_the_reason():
    class Filter(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.output = nn.Linear(6, 8), nn.Linear(8, 2)
            self.filter = nn.Parameter(torch.randn(5, dtype=torch.cfloat))

        def forward(self, x):
            return self.output(torch.fft.irfft(torch.fft.rfft(self.first(x)) * self.filter, n=8))

    with pytest.warns(NoCurvatureWarning, match="What needs it is NaN"):
        table, *_ = report(Filter(), inputs("rows"))
    assert table[["accuracy", "loss", "excess_loss"]].notna().all(axis=None)
    assert table["hessian_max_eigenvalue"].isna().all()
