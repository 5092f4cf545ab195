"""Many threads on one module: what each gets is what one alone gets, and the module is as it was."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from joblib import parallel_config
from sklearn.frozen import FrozenEstimator
from torch import nn

from skqfair import QuantizationDiagnostics
from skqfair.diagnostics import (
    group_gradient_norms,
    group_hessian_eigenvalues,
    group_hessian_trace,
    per_sample_gradient_norms,
)
from skqfair.networks import MLP, ConvNet, make_classifier


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)
        self.out = nn.Linear(12, 3)

    def forward(self, x):
        return self.out(self.attention(x.view(-1, 3, 4)).flatten(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.out(self.rnn(x.view(-1, 3, 4))[0][:, -1])


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.out = nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x):
        return self.out(self.layer(torch.tanh(self.layer(x))))


class Uncopied(MLP):
    """Cannot be copied."""

    def __deepcopy__(self, memo):
        raise TypeError("no copy")


MODULES = {
    "mlp": lambda: MLP(12, 3, hidden_sizes=(8,), batch_norm=True),
    "convnet": lambda: nn.Sequential(nn.Unflatten(1, (3, 2, 2)), ConvNet(3, 3, widths=(8,))),
    "attention": Attention,
    "lstm": Recurrent,
    "shared": Shared,
    "uncopied": lambda: Uncopied(12, 3, hidden_sizes=(8,)),
}
FUNCTIONS = {
    "norms": lambda m, X, y, g: group_gradient_norms(m, X, y, g),
    "samples": lambda m, X, y, g: per_sample_gradient_norms(m, X, y),
    "eigenvalues": lambda m, X, y, g: group_hessian_eigenvalues(m, X, y, g, max_iter=100),
    "trace": lambda m, X, y, g: group_hessian_trace(m, X, y, g),
}


def state(module):
    grads = [None if p.grad is None else p.grad.clone() for p in module.parameters()]
    flags = [m.training for m in module.modules()], [p.requires_grad for p in module.parameters()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules()]
    tensors = [t.clone() for t in [*module.parameters(), *module.buffers()]]
    return grads, flags, hooks, tensors, [sorted(vars(m)) for m in module.modules()]


@pytest.mark.parametrize("name", MODULES)
def test_all_functions_on_one_module(name):
    torch.manual_seed(0)
    module = MODULES[name]()
    X, y = torch.randn(40, 12), torch.randint(3, (40,))
    next(module.parameters()).grad = torch.ones_like(next(module.parameters()))
    groups, before = np.arange(40) % 2, state(module)
    fast = torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled
    alone = {key: function(module, X, y, groups) for key, function in FUNCTIONS.items()}
    with ThreadPoolExecutor(4) as threads:
        tasks = [
            (key, threads.submit(function, module, X, y, groups))
            for _ in range(3)
            for key, function in FUNCTIONS.items()
        ]
        for key, task in tasks:
            np.testing.assert_array_equal(task.result(), alone[key])
    assert (torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled) == fast
    for one, two in zip(state(module), before, strict=True):
        assert str(one) == str(two)


def test_a_call_that_raises_leaves_the_module_and_torch_as_they_were():
    module = MODULES["attention"]()
    X, y, before = torch.full((8, 12), torch.nan), torch.zeros(8, dtype=int), state(module)
    fast = torch.backends.mha.get_fastpath_enabled()
    for function in FUNCTIONS.values():
        with pytest.raises(ValueError, match="not finite"):
            function(module, X, y, np.arange(8) % 2)
    assert torch.backends.mha.get_fastpath_enabled() is fast
    assert str(state(module)) == str(before)


@pytest.mark.filterwarnings("ignore::skqfair.exceptions.SmallGroupWarning")
@pytest.mark.parametrize("module", [MLP, Attention])
def test_the_diagnostics_in_threads_are_those_in_turn(module):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(120, 12)).astype(np.float32), np.arange(120) % 3
    torch.manual_seed(0)
    frozen = FrozenEstimator(make_classifier(module, max_epochs=1).fit(X, y))
    groups, reports = np.arange(120) < 40, []
    for n_jobs in (1, 4):
        diagnostics = QuantizationDiagnostics(frozen, weight_bits=(4, 2), random_state=0, n_jobs=n_jobs)
        with parallel_config(backend="threading"):
            reports.append(diagnostics.fit(X, y, sensitive_features=groups).group_report_)
    np.testing.assert_array_equal(*reports)
