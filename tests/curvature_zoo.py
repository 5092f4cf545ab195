"""Small networks of many kinds, and dense derivatives to compare with."""

import warnings

import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from skqfair.networks import ConvNet

N = 24


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.twice, self.out = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.out(torch.relu(self.twice(torch.relu(self.twice(x)))))


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 6, padding_idx=0)
        self.norm = nn.LayerNorm(6)
        self.conv = nn.Conv1d(6, 6, 3, padding="same", groups=2)
        self.out = nn.Linear(6, 3)

    def forward(self, x):
        hidden = self.conv(self.norm(self.embed(x)).transpose(1, 2)).transpose(1, 2)
        return self.out(hidden).mean(1)


class Recurrent(nn.Module):
    def __init__(self, batch_first=True, kind=nn.LSTM):
        super().__init__()
        self.rnn = kind(6, 5, batch_first=batch_first)
        self.out, self.batch_first = nn.Linear(5, 3), batch_first

    def forward(self, x):
        if self.batch_first:
            return self.out(self.rnn(x)[0][:, -1])
        return self.out(self.rnn(x.transpose(0, 1))[0][-1])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(6, 2, 12, dropout=0.3, batch_first=True)
        self.out = nn.Linear(6, 3)

    def forward(self, x):
        return self.out(self.layer(x).mean(1))


class TimeMajor(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.out(torch.tanh(self.hidden(x.transpose(0, 1))).mean(0))


class Direct(nn.Module):
    """Uses a weight without a layer, and functional ReLU in place."""

    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.Linear(6, 6), nn.Linear(6, 3)
        self.factor = nn.Parameter(torch.rand(6))

    def forward(self, x):
        return self.out(torch.relu_(self.hidden(x) * self.factor))


def mlp(activation=nn.ReLU, end=nn.Identity):
    return nn.Sequential(
        nn.Linear(6, 8),
        nn.BatchNorm1d(8),
        activation(),
        nn.Linear(8, 7, bias=False),
        activation(),
        nn.Dropout(0.5),
        nn.Linear(7, 3),
        end(),
    )


def conv(activation=nn.ReLU):
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2),
        activation(),
        nn.GroupNorm(2, 4),
        nn.ConvTranspose2d(4, 3, 2, groups=1),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(12, 3),
    )


def features(*shape):
    return lambda: torch.randn(N, *shape)


KINDS = {  # name: module, samples, whether the Hessian's trace needs no probes
    "mlp": (mlp, features(6), True),
    "mlp in place": (lambda: mlp(lambda: nn.ReLU(inplace=True)), features(6), True),
    "mlp gelu": (lambda: mlp(nn.GELU), features(6), False),
    "softmax at the end": (lambda: mlp(end=lambda: nn.LogSoftmax(1)), features(6), True),
    "shared": (Shared, features(6), False),
    "words": (Words, lambda: torch.randint(0, 10, (N, 7)), False),
    "lstm": (Recurrent, features(4, 6), False),
    "lstm time major": (lambda: Recurrent(False), features(4, 6), False),
    "gru": (lambda: Recurrent(kind=nn.GRU), features(4, 6), False),
    "attention": (Attention, features(4, 6), False),
    "time major": (TimeMajor, features(4, 6), False),
    "time major, as many steps as samples": (TimeMajor, features(N, 6), False),
    "direct weight": (Direct, features(6), False),
    "conv": (conv, features(2, 7, 7), False),
    "convnet": (lambda: ConvNet(3, 3, widths=(2, 4)), features(3, 8, 8), True),
    "sequence": (
        lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Flatten(), nn.Linear(20, 3)),
        features(4, 6),
        True,
    ),
}


def make(name, dtype=torch.float32, seed=0):
    """Return module, X, y (classes) and groups (unequal)."""
    torch.manual_seed(seed)
    module = KINDS[name][0]().to(dtype)
    X = KINDS[name][1]()
    X = X.to(dtype) if X.is_floating_point() else X
    with torch.no_grad():  # statistics of BatchNorm that are not trivial
        for _ in range(3):
            module(X)
    groups = np.array(["b"] * 5 + ["c"] * 12 + ["a"] * (N - 17))
    return module, X, torch.randint(3, (N,)), groups


def dense_hessian(module, X, y):
    """The Hessian of the mean cross-entropy by all weights, as one matrix.

    By forward over reverse; by finite differences where that is not symmetric, hence wrong (attention).
    """
    module.eval()
    names = [name for name, p in module.named_parameters() if p.requires_grad]
    shapes = [dict(module.named_parameters())[name].shape for name in names]
    flat = torch.cat([dict(module.named_parameters())[name].detach().reshape(-1) for name in names])

    def loss(flat):
        parts = flat.split([shape.numel() for shape in shapes])
        weights = {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        return nn.functional.cross_entropy(functional_call(module, weights, (X,)), y)

    before = torch.backends.mkldnn.set_flags(_enabled=False)
    try:
        with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)  # torch's own
            found = torch.func.hessian(loss)(flat)
            if not torch.allclose(found, found.T, atol=1e-9):
                gradient, steps = torch.func.grad(loss), 1e-5 * torch.eye(len(flat), dtype=flat.dtype)
                both = [(gradient(flat + step) - gradient(flat - step)) / 2e-5 for step in steps]
                found = torch.stack(both)
            return found
    finally:
        torch.backends.mkldnn.set_flags(_enabled=before[0])


def single_gradients(module, X, y):
    """The gradient of each sample's loss, one plain backward after the other, shape (n, n_weights)."""
    module.eval()
    rows = []
    for i in range(len(X)):
        loss = nn.functional.cross_entropy(module(X[i : i + 1]), y[i : i + 1])
        weights = [p for p in module.parameters() if p.requires_grad]
        grads = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        rows.append(torch.cat([g.reshape(-1) for g in grads]))
    return torch.stack(rows)
