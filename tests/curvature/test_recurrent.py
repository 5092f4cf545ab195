"""Per-sample norms of recurrent networks: all samples at once, against one gradient after the other."""

import numpy as np
import pytest
import torch
from curvature_zoo import single_gradients
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from skqfair.curvature import Problem, evaluating, per_sample_gradient_norms
from skqfair.curvature._per_sample import _by_vmap

LAYERS = {
    "lstm": lambda: nn.LSTM(3, 5, batch_first=True),
    "gru": lambda: nn.GRU(3, 5, batch_first=True),
    "rnn": lambda: nn.RNN(3, 5, nonlinearity="relu", batch_first=True),
    "two layers, both ways": lambda: nn.LSTM(3, 5, num_layers=2, bidirectional=True, batch_first=True),
    "projected": lambda: nn.LSTM(3, 5, proj_size=2, batch_first=True),
    "without bias": lambda: nn.GRU(3, 5, bias=False, batch_first=True),
    "time first": lambda: nn.LSTM(3, 5),
}


class Last(nn.Module):
    """The last output of a recurrent layer, to classes."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.head = layer, nn.LazyLinear(3)

    def forward(self, X):
        if not self.layer.batch_first:
            return self.head(self.layer(X.transpose(0, 1))[0][-1])
        return self.head(self.layer(X)[0][:, -1])


class OneByOne(Last):
    """Samples without a dimension for them."""

    def forward(self, X):
        return torch.cat([self.head(self.layer(x)[0][-1:]) for x in X])


class OwnStates(Last):
    """With a state to begin with that is learned."""

    def __init__(self, layer):
        super().__init__(layer)
        self.state = nn.Parameter(torch.randn(1, 1, 5))

    def forward(self, X):
        return self.head(self.layer(X, self.state.expand(1, len(X), 5))[0][:, -1])


class Packed(Last):
    """Sequences of one length, packed."""

    def forward(self, X):
        lengths = torch.full((len(X),), X.shape[1])
        packed = self.layer(pack_padded_sequence(X, lengths, batch_first=True))[0]
        return self.head(pad_packed_sequence(packed, batch_first=True)[0][:, -1])


class Learned(nn.GRU):
    """Begins with a state of its own where none is passed."""

    def __init__(self):
        super().__init__(3, 5, batch_first=True)
        self.state = nn.Parameter(torch.ones(5))

    def forward(self, x, hx=None):
        state = self.state.expand(1, len(x), 5).contiguous()
        return super().forward(x, state if hx is None else hx)


class OneArgument(nn.LSTM):
    """Takes no states."""

    def forward(self, x):
        return super().forward(x)


MODULES = {
    **{name: lambda make=make: Last(make()) for name, make in LAYERS.items()},
    "one by one": lambda: OneByOne(LAYERS["lstm"]()),
    "own states": lambda: OwnStates(LAYERS["gru"]()),
    "packed": lambda: Packed(LAYERS["lstm"]()),
    "learned states": lambda: Last(Learned()),
    "one argument": lambda: Last(OneArgument(3, 5, batch_first=True)),
}


@pytest.fixture
def data():
    """Sequences and labels."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(9, 6, 3, generator=generator, dtype=torch.float64)
    return X, torch.randint(3, (9,), generator=generator)


@pytest.fixture(params=MODULES)
def module(request, data):
    """A network with a recurrent layer, its weights in float64."""
    torch.manual_seed(0)
    module = MODULES[request.param]().double()
    module(data[0])
    return module


def test_norms_of_recurrent_networks(module, data):
    np.testing.assert_allclose(
        per_sample_gradient_norms(module, *data), single_gradients(module, *data).norm(dim=1), rtol=1e-9
    )
    assert not any(m._forward_pre_hooks for m in module.modules())
    weights = {id(p) for p in module.layer.parameters()}
    assert all(id(p) in weights for p in module.layer._flat_weights)


@pytest.mark.parametrize("name", [*LAYERS, "one by one"])
def test_all_samples_are_taken_at_once(name, data):
    """One after the other takes ten times as long."""
    torch.manual_seed(0)
    module = MODULES[name]().double()
    module(data[0])
    problem = Problem(module, *data)
    with evaluating(module):
        found = _by_vmap(problem, np.arange(9))
    np.testing.assert_allclose(np.sqrt(found), single_gradients(module, *data).norm(dim=1), rtol=1e-9)
