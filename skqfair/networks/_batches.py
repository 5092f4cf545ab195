"""Batches as one index operation on tensors, in the order in which torch's own loader draws them."""

from collections.abc import Mapping

import numpy as np
import torch
from skorch.dataset import Dataset as SkorchDataset
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    default_collate,
)

from skqfair._rows import AT_ONCE, Rows, rows_of
from skqfair.networks._several_inputs import as_tensors

__all__ = [
    "BatchLoader",
    "TensorData",
    "WeightedCollate",
    "WeightedData",
    "WeightedSkorchData",
    "avoid_single_rows",
    "batches_of",
    "inputs_of",
    "parts_of",
]


def inputs_of(X):
    """Return samples as a tensor that shares their memory, or as :class:`Rows` where none can.

    Torch takes arrays that are contiguous and can be written to; others are copied if they are small.
    """
    if isinstance(X, (torch.Tensor, Rows)):
        return X
    if isinstance(X, Mapping):
        return rows_of(X)
    shared = X.flags.c_contiguous and X.flags.writeable
    if not shared and X.nbytes > AT_ONCE:
        return Rows(X)
    return torch.as_tensor(X if shared else np.require(X, None, ["C", "W"]))


def batches_of(inputs, size):
    """Return the batches of a tensor, or of samples that are read by batch."""
    if isinstance(inputs, Rows):
        starts = range(0, len(inputs), size)
        return (as_tensors(inputs.read(slice(start, start + size))) for start in starts)
    return inputs.split(size) if len(inputs) > size else (inputs,)


def parts_of(X, size):
    """Yield the samples as arrays of whole batches."""
    size *= max(1, int(AT_ONCE // (size * max(1, X.nbytes // len(X)))))
    for start in range(0, len(X), size):
        yield X.read(slice(start, start + size))


class TensorData(SkorchDataset):
    """Rows of X and y by batch; callbacks of skorch find the arrays in ``X`` and ``y``.

    Parameters
    ----------
    X : array, tensor or Rows of shape (n, ...)
        Inputs; those of an array are a tensor in the same memory.
    y : array or tensor of shape (n,), optional
        Targets; zeros if not given, as in skorch.
    """

    def __init__(self, X, y=None):
        self.X, self.y, self.inputs = X, y, inputs_of(X)
        n = len(self.inputs)
        self.targets = torch.zeros(n, dtype=torch.long) if y is None else torch.as_tensor(y)
        if n != len(self.targets):
            raise ValueError(f"X and y differ in length: {n} and {len(self.targets)}.")

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        return self.inputs[index], self.targets[index]

    def rows(self, index):
        """Return the batch of these rows; ``index`` is a slice or a 1-d tensor of positions."""
        targets = self.targets[index]
        if isinstance(self.inputs, Rows):
            return as_tensors(self.inputs.read(index)), targets
        if isinstance(index, slice):
            return self.inputs[index].clone(), targets  # modules may work in place
        return self.inputs.index_select(0, index), targets


class WeightedData(Dataset):
    """Another dataset with more numbers for each sample, inside the batch.

    Parameters
    ----------
    data : Dataset
        Items (x, y).
    **extras : array of shape (n,)
        E.g. sample_weight; items become ({"X": x, "sample_weight": weight}, y).
    """

    def __init__(self, data, **extras):
        self.data = data
        self.extras = {name: torch.as_tensor(values) for name, values in extras.items()}

    def __len__(self):
        return len(self.data)

    def __getattr__(self, name):
        if name.startswith("__") or name == "data":
            raise AttributeError(name)
        return getattr(self.data, name)

    def __getitem__(self, index):
        x, y = self.data[index]
        return self._with_extras(x, index), y

    def rows(self, index):
        """Return the batch of these rows."""
        x, y = self.data.rows(index)
        return self._with_extras(x, index), y

    def _with_extras(self, x, index):
        return {"X": x, **{name: values[index] for name, values in self.extras.items()}}


class WeightedSkorchData(WeightedData, SkorchDataset):
    """The same around a dataset of skorch's, which its callbacks recognise as such."""


class WeightedCollate:
    """Collates the items of :class:`WeightedData` by a function that knows nothing of weights."""

    def __init__(self, collate):
        self.collate = collate

    def __call__(self, items):
        """Return the collated batch, with the weights beside X."""
        x, y = self.collate([(x["X"], y) for x, y in items])
        names = [name for name in items[0][0] if name != "X"]
        return {"X": x, **{name: torch.stack([x[name] for x, _ in items]) for name in names}}, y


def avoid_single_rows(loader, *, strict):
    """Let a last batch of one row join the one before, for BatchNorm has no variance of one value.

    Raises
    ------
    ValueError
        If ``strict`` and all batches are of one row, or the loader makes its batches itself.
    """
    size = getattr(loader, "batch_size", None)
    try:
        n = len(loader.sampler)
    except (AttributeError, TypeError):  # of another kind, or of unknown length
        return
    if not size or getattr(loader, "drop_last", False) or n % size != 1 % size:
        return
    if size > 1 and n > size and isinstance(loader, BatchLoader) and loader._by_rows():
        loader.joins_single_rows = True
    elif strict:
        raise ValueError(
            f"{n} samples in batches of {size} leave a batch of one row, of which BatchNorm has no "
            "variance; choose another batch_size, or iterator_train__drop_last=True."
        )


class BatchLoader(DataLoader):
    """A DataLoader that takes whole batches from tensor data, in the same order.

    All parameters are those of :class:`torch.utils.data.DataLoader`. Where the data are not tensors,
    or workers, a collate function or pinned memory are asked for, it is a plain DataLoader.
    """

    def __iter__(self):
        if not self._by_rows():
            return super().__iter__()
        # torch draws a seed for its workers here, even for none: keep the generator in step
        torch.empty((), dtype=torch.int64).random_(generator=self.generator)
        return self._batches()

    def _by_rows(self):
        data = self.dataset.dataset if isinstance(self.dataset, Subset) else self.dataset
        data = data.data if isinstance(data, WeightedData) else data
        return (
            isinstance(data, TensorData)
            and type(self.batch_sampler) is BatchSampler
            and self.collate_fn is default_collate
            and self.num_workers == 0
            and not self.pin_memory
        )

    def _batches(self):
        data, order = self.dataset, None
        if isinstance(data, Subset):
            data, order = data.dataset, torch.as_tensor(np.asarray(data.indices))
        if not isinstance(self.sampler, SequentialSampler):
            drawn = self._draw_order()
            order = drawn if order is None else order[drawn]
        n, size = len(self.sampler), self.batch_size
        if self.drop_last:
            n -= n % size
        ends = [*range(size, n, size), n] if n else []
        if self.__dict__.get("joins_single_rows") and n % size == 1 and n > size:
            del ends[-2]
        for start, end in zip([0, *ends], ends, strict=False):
            rows = slice(start, end)
            yield data.rows(rows if order is None else order[rows])

    def _draw_order(self):
        """Return the sampler's order as a tensor; torch's shuffle without the detour over a list."""
        sampler, n = self.sampler, len(self.dataset)
        if hasattr(sampler, "draw"):
            return torch.as_tensor(sampler.draw())
        if type(sampler) is not RandomSampler or sampler.replacement or sampler.generator is not None:
            return torch.as_tensor(list(sampler))
        if sampler.num_samples != n:
            return torch.as_tensor(list(sampler))
        seed = int(torch.empty((), dtype=torch.int64).random_().item())
        return torch.randperm(n, generator=torch.Generator().manual_seed(seed))
