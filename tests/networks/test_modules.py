import pytest
import torch
from torch import nn

from skqfair.networks import MLP, ConvNet


def test_mlp_by_hand():
    module = MLP(3, 2, hidden_sizes=(4,))
    x = torch.randn(5, 3)
    hidden = torch.relu(x @ module.hidden0.weight.T + module.hidden0.bias)
    expected = hidden @ module.output.weight.T + module.output.bias
    torch.testing.assert_close(module(x), expected)


def test_mlp_options():
    module = MLP(12, 2, hidden_sizes=(4, 5), activation=nn.GELU, batch_norm=True, dropout=0.5)
    kinds = [type(m).__name__ for m in module]
    block = ["Linear", "BatchNorm1d", "GELU", "Dropout"]
    assert kinds == ["Flatten", *block, *block, "Linear"]
    assert module(torch.randn(6, 3, 2, 2)).shape == (6, 2)
    assert [type(m).__name__ for m in MLP(3, 2, hidden_sizes=())] == ["Flatten", "Linear"]


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (33, 50), (64, 64)])
def test_convnet_takes_any_image_size(size):
    assert ConvNet(1, 4)(torch.randn(2, 1, *size)).shape == (2, 4)


def test_resnet18():
    module = ConvNet(3, 10, widths=(64, 128, 256, 512), blocks_per_stage=2)
    assert sum(p.numel() for p in module.parameters()) == 11_173_962  # the known size of that network
    assert sum(isinstance(m, nn.Conv2d) for m in module.modules()) == 20


@pytest.mark.parametrize(("module", "name"), [(MLP, "n_features"), (ConvNet, "in_channels")])
def test_missing_sizes(module, name):
    with pytest.raises(
        ValueError, match=f"{module.__name__} needs {name}, a positive integer, got None"
    ):
        module()
    with pytest.raises(ValueError, match="needs n_classes"):
        module(3, 0)
