import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset, WeightedRandomSampler, default_collate

from skqfair.networks import BatchLoader, TensorData
from skqfair.networks._batches import WeightedData

X = torch.arange(50.0).reshape(25, 2)
Y = torch.arange(25)


def batches(loader, data, **options):
    torch.manual_seed(3)
    found = list(loader(data, **options))
    return found, torch.rand(1)  # and where the global generator is afterwards


OPTIONS = {
    "in order": {"batch_size": 4},
    "shuffled": {"batch_size": 4, "shuffle": True},
    "last dropped": {"batch_size": 4, "shuffle": True, "drop_last": True},
    "one batch": {"batch_size": 25},
    "own sampler": {"batch_size": 4, "sampler": WeightedRandomSampler(torch.rand(25), 17)},
    "own generator": {"batch_size": 4, "shuffle": True},
    "collated": {"batch_size": 4, "collate_fn": lambda items: default_collate(items[::-1])},
    "batch sampler": {"batch_sampler": [[1, 2], [5]]},
}


@pytest.mark.parametrize("part", ["all", "subset", "weighted", "weighted subset"])
@pytest.mark.parametrize("name", OPTIONS)
def test_batches_are_those_of_torch(name, part):
    def data():
        whole = TensorData(X, Y)
        if "weighted" in part:
            whole = WeightedData(whole, sample_weight=np.linspace(0, 1, 25, dtype=np.float32))
        return Subset(whole, np.arange(25)[::-1].copy()) if "subset" in part else whole

    options = dict(OPTIONS[name])
    found = []
    for loader in (DataLoader, BatchLoader):
        if name == "own generator":
            options["generator"] = torch.Generator().manual_seed(5)
        found.append(batches(loader, data(), **options))
    (expected, after), (ours, after_ours) = found
    assert torch.equal(after, after_ours)
    assert len(expected) == len(ours)
    for one, two in zip(expected, ours, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_workers_fall_back_to_torch():
    found = list(BatchLoader(TensorData(X, Y), batch_size=10, num_workers=1))
    assert torch.equal(torch.cat([x for x, _ in found]), X)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="X and y differ in length: 25 and 24"):
        TensorData(X, Y[1:])


def test_no_targets():
    assert TensorData(X)[3][1] == 0
