"""What is added to a skorch classifier: tensor batches, sample weights, and less work around a step."""

import weakref
from contextlib import contextmanager

import numpy as np
import torch
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from skorch.callbacks import Callback
from skorch.dataset import Dataset
from skorch.utils import TeeGenerator
from torch.nn.modules.batchnorm import BatchNorm1d, _BatchNorm
from torch.utils.data import DataLoader, Subset, default_collate

from skqfair._rows import Rows, whole
from skqfair.networks._batches import (
    BatchLoader,
    TensorData,
    WeightedCollate,
    WeightedData,
    WeightedSkorchData,
    avoid_single_rows,
    parts_of,
)
from skqfair.networks._interrupts import raised_interrupts
from skqfair.networks._own_folders import give_back_folders, own_folders

__all__ = [
    "TensorTraining",
    "batch_parts",
    "for_prediction",
    "for_training",
    "prediction_view",
    "tensor_training",
]


# What a step of skorch's calls besides; a net that overrides one of these steps as skorch does.
_STEP = (
    *("_zero_grad_optimizer", "_step_optimizer", "get_train_step_accumulator", "on_grad_computed"),
    "get_all_learnable_params",
)


class TensorTraining:
    """What is added to a skorch classifier: sample weights in the batch, and less work around it."""

    def __reduce__(self):
        """Pickle as the net's own class, also while it is extended."""
        own = type(self).__dict__.get("_extended_class", type(self))
        return object.__new__, (own,), self.__getstate__()

    def notify(self, method_name, **cb_kwargs):
        """Call the callbacks, less those that inherit a method which does nothing."""
        getattr(self, method_name)(self, **cb_kwargs)
        for callback in self._listening(method_name):
            getattr(callback, method_name)(self, **cb_kwargs)

    def _listening(self, method_name):
        """Return the callbacks that do something at this point."""
        kept = self.__dict__.get("kept_", {})
        key = method_name, id(self.callbacks_), len(self.callbacks_)
        if key not in kept:
            nothing = getattr(Callback, method_name, None)
            callbacks = (callback for _, callback in self.callbacks_)
            kept[key] = [c for c in callbacks if getattr(type(c), method_name, None) is not nothing]
        return kept[key]

    def initialize_callbacks(self):
        """Give checkpoints a folder of this training alone."""
        give_back_folders(self.__dict__.pop("folders_", []))
        super().initialize_callbacks()
        if "kept_" in self.__dict__:  # inside a training
            self.__dict__["folders_"] = own_folders(self.callbacks_)
        return self

    def train_step(self, batch, **fit_params):
        """Take one optimization step, without skorch's closure where the optimizer needs none."""
        kept, key = self.__dict__.get("kept_", {}), type(self.optimizer_)
        if key not in kept:
            kept[key] = self._steps_as_skorch()
        if not kept[key]:
            return super().train_step(batch, **fit_params)
        self.optimizer_.zero_grad()
        step = self.train_step_single(batch, **fit_params)
        if self._listening("on_grad_computed"):
            parameters = TeeGenerator(self.get_all_learnable_params())
            self.notify("on_grad_computed", named_parameters=parameters, batch=batch, training=True)
        self.optimizer_.step()
        return step

    def _steps_as_skorch(self):
        """Whether zero_grad, backward and step are all that a step of this net is."""
        optimizer = type(self.optimizer_)
        return (
            optimizer.__module__.startswith("torch.optim.")
            and optimizer is not torch.optim.LBFGS
            and self._optimizers == ["optimizer"]
            and all(getattr(type(self), n) is getattr(NeuralNetClassifier, n) for n in _STEP)
        )

    def _set_training(self, training=True):
        """Switch modules between training and evaluation, where they are not there already."""
        for name in self._modules + self._criteria:
            module = getattr(self, name + "_")
            if not isinstance(module, torch.nn.Module):
                continue
            kept, key = self.__dict__.get("kept_", {}), ("modes", id(module))
            if key not in kept:
                parts = list(module.modules())
                kept[key] = parts, any(_has_own_train(part) for part in parts)
            parts, own = kept[key]
            if own or any(part.training is not training for part in parts):
                module.train(training)

    def get_dataset(self, X, y=None):
        """Return the dataset, with weights while training with them."""
        dataset, extras = super().get_dataset(X, y), self._extras()
        if not extras or y is None:
            return dataset
        kind = WeightedSkorchData if isinstance(dataset, Dataset) else WeightedData
        return kind(dataset, **extras)

    def _extras(self):
        """Return what travels with the samples inside a batch."""
        weights = self.__dict__.get("sample_weight_")
        return {} if weights is None else {"sample_weight": weights}

    def get_iterator(self, dataset, training=False):
        """Return the loader; a collate function of the user's gets the items without their weights."""
        iterator = super().get_iterator(dataset, training=training)
        norms = [m for m in self.module_.modules() if isinstance(m, _BatchNorm)] if training else []
        if norms:
            own = any(_has_own_train(m) for m in self.module_.modules())
            strict = not own and any(isinstance(m, BatchNorm1d) for m in norms)
            avoid_single_rows(iterator, strict=strict)
        inner = dataset.dataset if isinstance(dataset, Subset) else dataset
        collate = getattr(iterator, "collate_fn", default_collate)
        if isinstance(inner, WeightedData) and collate is not default_collate:
            iterator.collate_fn = WeightedCollate(collate)
        return iterator

    def infer(self, x, **fit_params):
        """Call the module on a batch, less its weights."""
        return super().infer(without_extras(x), **fit_params)

    def get_loss(self, y_pred, y_true, X=None, training=False, **kwargs):
        r"""Return the loss of a batch; with weights :math:`\sum_i w_i \ell_i / \sum_i c_i`.

        :math:`c_i` is what sample i counts in the criterion's own mean: its class weight, 1 if there
        are none, 0 for an ignored class.
        """
        y_true = self._targets(y_pred, y_true)
        if not (isinstance(X, dict) and "sample_weight" in X):
            return super().get_loss(y_pred, y_true, without_extras(X), training=training, **kwargs)
        losses = self._sample_losses(y_pred, y_true, X, training=training, **kwargs)
        return self._weighted_mean(losses, y_true, X["sample_weight"])

    def _sample_losses(self, y_pred, y_true, X, training=False, **kwargs):
        """Return the loss of each sample of a batch that carries extras, shape (batch,)."""
        criterion, X = self.criterion_, without_extras(X)
        y_true = self._targets(y_pred, y_true)
        reduction, criterion.reduction = criterion.reduction, "none"
        try:
            losses = super().get_loss(y_pred, y_true, X, training=training, **kwargs)
        finally:
            criterion.reduction = reduction
        if training:
            self.__dict__["sample_weight_used_"] = True
        if losses.shape != y_true.shape[:1]:
            raise ValueError(
                f"sample_weight cannot be applied: get_loss of {type(self).__name__} returns shape "
                f"{tuple(losses.shape)} for a batch of {len(y_true)}, even with the criterion's "
                "reduction='none'; return one loss for each sample, or fit without weights."
            )
        return losses

    def _targets(self, y_pred, y_true):
        """Return targets as the criterion takes them: for one logit numbers in its dtype."""
        return y_true.to(y_pred) if isinstance(self, NeuralNetBinaryClassifier) else y_true

    def _weighted_mean(self, losses, y_true, weight):
        """Return the mean as the criterion takes it, of weighted losses."""
        criterion, weight = self.criterion_, weight.to(losses)
        if criterion.reduction == "sum":
            return (weight * losses).sum()
        share = self._shares(losses, y_true)
        return (weight * losses).mean() if share is None else (weight * losses).sum() / share.sum()

    def _shares(self, losses, y_true):
        """Return what each sample counts in the criterion, shape (batch,); None where all count 1."""
        criterion = self.criterion_
        if type(criterion) not in (torch.nn.CrossEntropyLoss, torch.nn.NLLLoss):
            return None
        if criterion.weight is None and criterion.ignore_index < 0:
            return None
        y_true = y_true.to(losses.device)
        share = (y_true != criterion.ignore_index).to(losses)
        if criterion.weight is not None:
            share = share * criterion.weight[y_true.clamp(0, len(criterion.weight) - 1)]
        return share


def _has_own_train(module):
    """Whether a module has a mode of its own, e.g. keeps its norms as they are."""
    return "train" in vars(module) or type(module).train is not torch.nn.Module.train


def without_extras(x):
    """Return the input of the module out of a batch's X."""
    return x["X"] if isinstance(x, dict) and x.keys() & {"sample_weight", "group", "teacher"} else x


_EXTENDED = weakref.WeakKeyDictionary()
_DEFAULTS = {"dataset": Dataset, "iterator_train": DataLoader, "iterator_valid": DataLoader}
_OURS = {"dataset": TensorData, "iterator_train": BatchLoader, "iterator_valid": BatchLoader}


def _extended(own, base=TensorTraining):
    """Return the class with ``base`` in front, itself if it is there already.

    Where the class overrides what is only a shortcut here, its own method holds.
    """
    if issubclass(own, base):
        return own
    extended = _EXTENDED.setdefault(own, {})
    if base not in extended:
        members = {"_extended_class": own, "__doc__": own.__doc__, "__module__": own.__module__}
        for name in ("notify", "train_step", "_set_training"):
            if getattr(own, name) is not getattr(NeuralNetClassifier, name):
                members[name] = getattr(own, name)
        extended[base] = type(own.__name__, (base, own), members)
    return extended[base]


@contextmanager
def tensor_training(net, sample_weight=None, base=TensorTraining, **state):
    """Let any skorch classifier weight its losses, and take batches from tensors, inside the block.

    The net's class is extended for that time and given back, so that methods that its own class
    overrides still run. A net with a dataset or iterators of its own keeps them.

    Parameters
    ----------
    net : NeuralNetClassifier
        Trained inside the block.
    sample_weight : array of shape (n,), optional
        Weights, scaled here to mean 1.
    base : type, default=TensorTraining
        What to extend the net's class with.
    **state
        Attributes of the net inside the block; their names end with an underscore.

    Yields
    ------
    NeuralNetClassifier
        The same net.

    Raises
    ------
    KeyboardInterrupt
        If the training was interrupted by a signal.
    """
    own, before = type(net), {name: net.__dict__[name] for name in _DEFAULTS}
    net.__class__ = _extended(own, base)
    if before == _DEFAULTS:
        net.__dict__.update(_OURS)
    net.__dict__.update(state, kept_={})  # what is found out once in a training
    if sample_weight is not None:
        weights = torch.tensor(np.asarray(sample_weight), dtype=torch.float64)
        net.__dict__["sample_weight_"] = (weights / weights.mean()).float()
    try:
        with raised_interrupts():
            yield net
        trained = len(net.history_ or ()) > 0
        if sample_weight is not None and trained and "sample_weight_used_" not in net.__dict__:
            raise ValueError(
                f"sample_weight had no effect: {own.__name__} computes its loss without get_loss; call "
                "self.get_loss(y_pred, y, X=Xi, training=True) in its train_step_single, or fit without "
                "sample_weight."
            )
    finally:
        give_back_folders(net.__dict__.pop("folders_", []))
        if sample_weight is not None:
            net.__dict__.pop("sample_weight_", None)
            net.__dict__.pop("sample_weight_used_", None)
        for name in ("kept_", *state):
            net.__dict__.pop(name, None)
        net.__dict__.update(before)
        net.__class__ = own


# What gets the samples whole, where a net has its own.
_TAKING_ALL = ("fit", "partial_fit", "fit_loop", "check_data", "get_dataset", "get_split_datasets")


def for_training(net, X):
    """Return samples as the net trains on them: an array where parts of the user's take them whole."""
    return whole(X) if isinstance(X, Rows) and not _takes_rows(net) else X


def for_prediction(net, X, size):
    """Return samples in the parts that the net predicts: batches, or all where workers read them."""
    workers = net.get_params_for("iterator_valid").get("num_workers")
    in_parts = isinstance(X, Rows) and not (workers and _takes_rows(net))
    return parts_of(X, size) if in_parts else [X]


def _takes_rows(net):
    """Whether no part of the user's takes samples whole, so that they may be read by batch."""
    own = type(net).__dict__.get("_extended_class", type(net))
    known = net.__dict__["dataset"] in (Dataset, TensorData)
    return known and all(
        getattr(own, name).__module__.startswith(("skorch.", "skqfair.")) for name in _TAKING_ALL
    )


def prediction_view(net, module):
    """Return a net that shares all with ``net`` but predicts with ``module``, in fast batches.

    Parameters
    ----------
    net : NeuralNetClassifier
        A trained net; not changed, and not copied.
    module : torch.nn.Module
        The module to predict with.
    """
    view = object.__new__(_extended(type(net)))
    view.__dict__.update(net.__dict__)
    view.__dict__["module_"] = module
    if batch_parts(net) is _OURS:
        view.__dict__.update(_OURS)
    return view


def batch_parts(net):
    """Return the dataset and the iterators of a net by name, ours for skorch's defaults."""
    own = net.__dict__
    return _OURS if all(own[name] is default for name, default in _DEFAULTS.items()) else own
