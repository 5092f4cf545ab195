"""One small network of every kind that can be quantized, with an input that it takes."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

IMAGE = torch.randn(6, 2, 8, 8, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
SERIES = torch.randn(6, 7, 4, generator=torch.Generator().manual_seed(2))
TOKENS = torch.randint(0, 11, (6, 7), generator=torch.Generator().manual_seed(3))


class Recurrent(nn.Module):
    def __init__(self, kind, **kwargs):
        super().__init__()
        self.rnn = kind(4, 6, batch_first=True, **kwargs)
        width = kwargs.get("proj_size") or 6
        self.out = nn.Linear(width * (2 if kwargs.get("bidirectional") else 1), 3)

    def forward(self, x):
        return self.out(self.rnn(x)[0][:, -1])


class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.GRUCell(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        state = None
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
        return self.out(state)


class Attention(nn.Module):
    def __init__(self, **kwargs):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True, **kwargs)
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.attention(x, x, x, need_weights=False)[0].mean(1))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, dropout=0.1)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.encoder(x).mean(1))


class Tokens(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.embedding, self.out = kind(11, 5), nn.Linear(5, 3)

    def forward(self, x):
        hidden = self.embedding(x)
        return self.out(hidden if hidden.ndim == 2 else hidden.mean(1))


class Shared(nn.Module):
    """One layer called three times with functional ReLUs, and a tied output."""

    def __init__(self):
        super().__init__()
        self.layer, self.tied = nn.Linear(5, 5), nn.Linear(5, 5, bias=False)
        self.tied.weight = self.layer.weight

    def forward(self, x):
        for _ in range(3):
            x = F.relu(self.layer(x))
        return self.tied(x)[:, :3]


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix, self.out = nn.Bilinear(5, 5, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(F.gelu(self.mix(x, x)))


def convolutional(dimension, transposed=False):
    kind = getattr(nn, f"Conv{'Transpose' if transposed else ''}{dimension}d")
    norm = getattr(nn, f"BatchNorm{dimension}d")
    return nn.Sequential(
        kind(2, 4, 3), norm(4), nn.ReLU(), kind(4, 6, 2, groups=2), nn.Flatten(), nn.LazyLinear(3)
    )


def normed(normalise):
    return nn.Sequential(normalise(nn.Linear(5, 6)), nn.ReLU(), nn.Linear(6, 3))


ZOO = {
    "linear": (lambda: nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)), ROWS),
    "bilinear": (TwoInputs, ROWS),
    "conv1d": (lambda: convolutional(1), IMAGE[:, :, 0]),
    "conv2d": (lambda: convolutional(2), IMAGE),
    "conv3d": (lambda: convolutional(3), IMAGE[:, :, None].expand(-1, -1, 6, -1, -1)),
    "convtranspose1d": (lambda: convolutional(1, True), IMAGE[:, :, 0]),
    "convtranspose2d": (lambda: convolutional(2, True), IMAGE),
    "convtranspose3d": (lambda: convolutional(3, True), IMAGE[:, :, None, :4, :4]),
    "embedding": (lambda: Tokens(nn.Embedding), TOKENS),
    "embeddingbag": (lambda: Tokens(nn.EmbeddingBag), TOKENS),
    "rnn": (lambda: Recurrent(nn.RNN), SERIES),
    "gru": (lambda: Recurrent(nn.GRU, num_layers=2), SERIES),
    "lstm": (lambda: Recurrent(nn.LSTM, bidirectional=True, proj_size=2), SERIES),
    "cell": (Cell, SERIES),
    "attention": (Attention, SERIES),
    "attention_separate": (lambda: Attention(kdim=4, vdim=4, add_bias_kv=True), SERIES),
    "encoder": (Encoder, SERIES),
    "shared": (Shared, ROWS),
    "weight_norm": (lambda: normed(parametrizations.weight_norm), ROWS),
    "spectral_norm": (lambda: normed(parametrizations.spectral_norm), ROWS),
}


def build(name, seed=0):
    """A network of the zoo in eval mode, and its input."""
    make, data = ZOO[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = make().eval()
        with torch.no_grad():
            module(data)  # sizes of lazy layers
    return module, data
