"""Datasets of torch, and several inputs, that tests share."""

import numpy as np
import torch
from nets import TwoInputs
from torch.utils.data import Dataset

from skqfair.networks import ConvNet, make_classifier

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (40, 3, 8, 8)).astype(np.uint8)
LABELS = np.where(IMAGES[:, 0, 0, 0] > 127, "yes", "no")
GROUPS = np.where(IMAGES[:, 1, 0, 0] > 99, "a", "b")
INPUTS = {
    "image": IMAGES,
    "table": rng.normal(size=(40, 2)),
    "mask": rng.integers(0, 2, (40, 1)),
}
NET = make_classifier(ConvNet, module__widths=(4,), max_epochs=1, batch_size=16)
TWO = make_classifier(TwoInputs, max_epochs=1, batch_size=16)


class Samples(Dataset):
    """Items of a function of the row."""

    def __init__(self, item, n=40):
        self.item, self.n = item, n

    def __len__(self):
        return self.n

    def __getitem__(self, row):
        return self.item(row)


class ImagesOnDisk(Dataset):
    """As a user has it, in a module of its own."""

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, row):
        return torch.from_numpy(IMAGES[row]), str(LABELS[row])


def named(row):
    return {name: values[row] for name, values in INPUTS.items()}
