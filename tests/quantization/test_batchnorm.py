"""Statistics of BatchNorm moved by what rounding changed."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from skqfair.quantization import QuantizationScheme, convert, has_batchnorm, move_batchnorm


@pytest.fixture
def problem():
    torch.manual_seed(0)
    module = nn.Sequential(
        *(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(144, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2)),
    ).eval()
    for norm in (module[1], module[5]):  # those of other samples, as augmentation leaves them
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return module, torch.randn(64, 2, 8, 8) * 3 + 1


def moments(values):
    rows = np.moveaxis(values.double().numpy(), 1, -1)
    rows = rows.reshape(-1, rows.shape[-1])
    return rows.mean(0), rows.var(0)


def test_layer_after_layer_by_hand(problem):
    module, X = problem
    quantized = convert(module, QuantizationScheme(2)).module
    by_hand = copy.deepcopy(quantized)
    move_batchnorm(quantized, module, lambda m: [m(part) for part in X.split(20)])
    for place in (1, 5):  # the second sees what the first became
        with torch.no_grad():
            mean_f, var_f = moments(module[:place](X))
            mean_q, var_q = moments(by_hand[:place](X))
        norm = by_hand[place]
        norm.running_mean += torch.as_tensor(mean_q - mean_f).float()
        norm.running_var *= torch.as_tensor(var_q / var_f).float()
        torch.testing.assert_close(
            quantized[place].running_mean, norm.running_mean, rtol=1e-5, atol=1e-5
        )
        torch.testing.assert_close(quantized[place].running_var, norm.running_var, rtol=1e-5, atol=1e-5)
        assert not quantized[place]._forward_pre_hooks
        assert not module[place]._forward_pre_hooks


def test_each_layer_is_called_once(problem):
    module, X = problem
    quantized, calls = convert(module, QuantizationScheme(2)).module, []
    quantized[4].register_forward_hook(lambda *_: calls.append("linear"))
    quantized[7].register_forward_hook(lambda *_: calls.append("last"))
    move_batchnorm(quantized, module, lambda m: [m(part) for part in X.split(20)])
    assert calls == ["linear"] * 4  # before the second BatchNorm, behind which nothing is; four batches


def test_what_was_not_rounded_does_not_move(problem):
    module, X = problem
    same = copy.deepcopy(module)
    move_batchnorm(same, module, lambda m: m(X))
    for name, values in module.state_dict().items():
        torch.testing.assert_close(same.state_dict()[name], values)


class Unused(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body, self.unused = body, nn.BatchNorm1d(3)

    def forward(self, x):
        return self.body(x)


def test_dead_channels_and_layers_that_are_not_called(problem):
    module, X = problem
    with torch.no_grad():
        module[0].weight[1], module[0].bias[1] = 0, 0
    module = Unused(module)
    quantized = convert(module, QuantizationScheme(2)).module
    before = quantized.body[1].running_var[1].clone()
    move_batchnorm(quantized, module, lambda m: m(X))
    assert all(values.isfinite().all() for values in quantized.state_dict().values())
    assert quantized.body[1].running_var[1] == before
    assert quantized.unused.running_var.tolist() == [1, 1, 1]


def test_an_error_leaves_the_statistics(problem):
    module, X = problem
    quantized = convert(module, QuantizationScheme(2)).module
    before = copy.deepcopy(quantized.state_dict())

    def interrupt(*_):
        raise KeyboardInterrupt

    quantized[4].register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        move_batchnorm(quantized, module, lambda m: m(X))
    for name, values in quantized.state_dict().items():
        assert values.equal(before[name])
    assert not quantized[1]._forward_pre_hooks


def test_has_batchnorm():
    assert has_batchnorm(nn.Sequential(nn.BatchNorm3d(2)))
    assert not has_batchnorm(
        nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False), nn.LayerNorm(2))
    )
