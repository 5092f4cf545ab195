import copy

import pytest
import torch
from torch import nn

from skqfair.quantization import has_batchnorm, reestimate_batchnorm


def test_statistics_equal_training_mode_in_one_batch():
    """A train-mode pass with momentum 1 writes the same mean and unbiased variance."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(144, 5),
        nn.BatchNorm1d(5),
    ).eval()
    data = torch.randn(32, 2, 8, 8) * 3 + 1
    reference = copy.deepcopy(module).train()
    for norm in (reference[1], reference[5]):
        norm.momentum = 1.0
    with torch.no_grad():
        reference(data)
    with reestimate_batchnorm(module):
        module(data)
    for i in (1, 5):
        torch.testing.assert_close(module[i].running_mean, reference[i].running_mean)
        torch.testing.assert_close(module[i].running_var, reference[i].running_var)
        assert not module[i]._forward_pre_hooks


def test_batches_are_pooled():
    norm, data = nn.BatchNorm1d(3).eval(), torch.randn(50, 3) * 2
    with reestimate_batchnorm(norm):
        for batch in data.split(20):
            norm(batch)
    torch.testing.assert_close(norm.running_mean, data.mean(0))
    torch.testing.assert_close(norm.running_var, data.var(0))


def test_an_error_or_no_data_leaves_the_statistics():
    norm = nn.BatchNorm1d(3).eval()
    norm.running_mean += 7

    def fail():
        with reestimate_batchnorm(norm):
            norm(torch.randn(8, 3))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    with reestimate_batchnorm(norm):
        pass
    assert norm.running_mean.tolist() == [7, 7, 7]
    assert norm.running_var.tolist() == [1, 1, 1]
    assert not norm._forward_pre_hooks


def test_has_batchnorm():
    assert has_batchnorm(nn.Sequential(nn.BatchNorm3d(2)))
    assert not has_batchnorm(
        nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False), nn.LayerNorm(2))
    )
