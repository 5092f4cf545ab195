"""Fine-tuning of a trained net under fake quantization, with samplers and penalties."""

import contextlib
import copy
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from skorch.callbacks import (
    Callback,
    Checkpoint,
    Initializer,
    LoadInitState,
    LRScheduler,
    TrainEndCheckpoint,
)
from torch import nn
from torch.utils.data import Subset

from skqfair._copies import copy_attributes
from skqfair._seeding import seeded
from skqfair.exceptions import DivergedTrainingError
from skqfair.mitigation import CellSampler
from skqfair.networks._distillation import Distillation
from skqfair.networks._schedules import LEARNING_RATE_RATIO, adapted_schedule
from skqfair.networks._training import TensorTraining, for_training, tensor_training
from skqfair.quantization import FakeQuantization

__all__ = ["LEARNING_RATE_RATIO", "Tuning", "fine_tune"]

# They would start anew, or write over what they have stored of the float net.
_FLOAT_ONLY = (Initializer, LoadInitState, Checkpoint, TrainEndCheckpoint)


@dataclass
class Tuning:
    """What the fine-tuning does besides training.

    Parameters
    ----------
    fake : FakeQuantization
        Of the module that is tuned.
    lr : float or None
        First learning rate; None is ``LEARNING_RATE_RATIO`` times that of the net.
    n_epochs : int
        Epochs, over which the learning rate falls to 0.
    sampling : str or None
        How cells are sampled.
    cells : ndarray of int, shape (n,), or None
        Cell of each sample.
    seed : int
        Seed of the fine-tuning and the sampling.
    groups : ndarray of int, shape (n,), or None
        Group of each sample, for the penalties.
    penalties : list of callables
        ``(losses, groups, correct) -> term``.
    distillation : Distillation or None
        The soft part of the loss.
    validation : callable or None
        ``(module) -> dict of records``; the epoch with the least "validation_loss" is kept.
    first_lr : float
        The learning rate at the beginning, once that is known.
    n_steps : int
        Steps of an epoch, once that is known.
    sampler : CellSampler
        Once it is made.
    """

    fake: FakeQuantization
    lr: float | None = None
    n_epochs: int = 1
    sampling: str | None = None
    cells: np.ndarray | None = None
    seed: int = 0
    groups: np.ndarray | None = None
    penalties: list = field(default_factory=list)
    distillation: Distillation | None = None
    validation: object = None
    first_lr: float | None = None
    n_steps: int = 1
    sampler: CellSampler | None = None


class FineTuning(TensorTraining):
    """What is added to a skorch classifier while it is fine-tuned; ``tuning_`` says how."""

    def initialize_module(self):
        """Keep the module, also where a callback sets its parameters when training begins."""
        self.module_ = self.tuning_.fake.module
        return self

    def initialize_optimizer(self, *args, **kwargs):
        """Scale the learning rates, and spare learned scales the weight decay."""
        super().initialize_optimizer(*args, **kwargs)
        scales = self.tuning_.fake.learned_scales
        for name in self._optimizers:
            optimizer = getattr(self, name + "_")
            base = optimizer.defaults["lr"]
            lr = base * LEARNING_RATE_RATIO if self.tuning_.lr is None else self.tuning_.lr
            self.tuning_.first_lr = lr
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] * lr / base if base else lr
            if scales and optimizer.defaults.get("weight_decay"):
                for group in optimizer.param_groups:
                    group["params"] = [p for p in group["params"] if not any(p is s for s in scales)]
                optimizer.add_param_group({"params": scales, "lr": lr, "weight_decay": 0.0})
        return self

    def _extras(self):
        extras, groups, soft = super()._extras(), self.tuning_.groups, self.tuning_.distillation
        if groups is not None:
            extras = {**extras, "group": torch.as_tensor(groups)}
        if soft is not None and soft.targets is not None:
            extras = {**extras, "teacher": soft.targets}
        return extras

    def get_iterator(self, dataset, training=False):
        """Return the loader; in training with the sampler in the place of shuffling."""
        if not training:
            return super().get_iterator(dataset, training=False)
        sampled = self.tuning_.sampling is not None
        iterator = self._sampled(dataset) if sampled else super().get_iterator(dataset, training=True)
        with contextlib.suppress(TypeError):  # an iterator of unknown length
            self.tuning_.n_steps = max(1, len(iterator))
        for penalty in self.tuning_.penalties:
            penalty.n_steps = self.tuning_.n_steps
        return iterator

    def _sampled(self, dataset):
        cells = self.tuning_.cells
        if isinstance(dataset, Subset):
            cells = cells[np.asarray(dataset.indices)]
        if len(cells) != len(dataset):
            raise ValueError(
                f"sampling={self.tuning_.sampling!r} needs a dataset with one item for each row of X: "
                f"that of the net has {len(dataset)} items for {len(cells)} rows; set sampling=None."
            )
        options = ("shuffle", "sampler", "batch_sampler")
        own = {f"iterator_train__{option}" for option in options} & self.__dict__.keys()
        own = {name: self.__dict__.pop(name) for name in own}
        sampler = CellSampler(cells, self.tuning_.sampling, self.tuning_.seed)
        self.__dict__["iterator_train__sampler"] = self.tuning_.sampler = sampler
        try:
            return super().get_iterator(dataset, training=True)
        finally:
            del self.__dict__["iterator_train__sampler"]
            self.__dict__.update(own)

    def train_step_single(self, batch, **fit_params):
        """Take a step forward and backward on the quantized weights."""
        with self.tuning_.fake.applied(training=True):
            step = super().train_step_single(batch, **fit_params)
        loss = step["loss"].item()
        if not math.isfinite(loss):
            epoch = len(self.history)
            raise DivergedTrainingError(
                f"fine-tuning diverged: the loss is {loss} in epoch {epoch}. Lower "
                f"finetune_lr (now {self.tuning_.first_lr:.2g}), gap_penalty or the "
                "learning rate of the net. The float net is kept in estimator_."
            )
        return step

    def validation_step(self, batch, **fit_params):
        """Evaluate a batch with the quantized weights."""
        with self.tuning_.fake.applied(training=False):
            return super().validation_step(batch, **fit_params)

    def evaluation_step(self, batch, training=False):
        """Run a batch with the quantized weights, e.g. for a scoring callback."""
        with self.tuning_.fake.applied(training=False):
            return super().evaluation_step(batch, training=training)

    def get_loss(self, y_pred, y_true, X=None, training=False, **kwargs):
        """Return the loss of a batch, with soft targets, and penalties on the losses of the labels."""
        penalties, soft = self.tuning_.penalties, self.tuning_.distillation
        if not (training and (penalties or soft)):
            return super().get_loss(y_pred, y_true, X, training=training, **kwargs)
        losses = mixed = self._sample_losses(y_pred, y_true, X, training=training, **kwargs)
        if soft:
            share = self._shares(losses, y_true)
            mixed = soft.mixed(losses, y_pred, X, 1 if share is None else share)
        extras = X if isinstance(X, dict) else {}
        weight = extras.get("sample_weight", torch.ones(()))
        loss = self._weighted_mean(mixed, y_true, weight.expand(len(losses)))
        if not penalties:
            return loss
        groups = X["group"].to(losses.device)
        predicted = y_pred > 0 if y_pred.ndim == 1 else y_pred.argmax(1)
        correct = predicted == y_true.to(y_pred.device)
        for penalty in penalties:
            loss = loss + penalty(losses, groups, correct)
        return loss


class _Epochs(Callback):
    """Re-estimates the scales at each epoch, lets the learning rate fall, keeps the best epoch."""

    def __init__(self, tuning):
        self.tuning, self.best, self.best_loss, self.best_epoch = tuning, None, math.inf, None
        self.step, self.anneals = 0, True

    def on_train_begin(self, net, **kwargs):
        # a schedule of the user's holds in the place of ours
        self.anneals = not any(isinstance(c, LRScheduler) for _, c in net.callbacks_)

    def on_batch_begin(self, net, training=False, **kwargs):
        """Let the learning rates fall to 0 along a cosine."""
        if training and self.anneals:
            groups = [g for name in net._optimizers for g in getattr(net, name + "_").param_groups]
            for group in groups:
                start = group.setdefault("initial_lr", group["lr"])
                share = min(1.0, self.step / (self.tuning.n_epochs * self.tuning.n_steps))
                group["lr"] = start * (1 + math.cos(math.pi * share)) / 2
            self.step += 1

    def on_epoch_begin(self, net, **kwargs):
        self.tuning.fake.rescale()

    def on_epoch_end(self, net, **kwargs):
        if self.tuning.validation is None:
            return
        with self.tuning.fake.applied(training=False):
            records = self.tuning.validation(net.module_)
        for name, value in records.items():
            net.history.record(name, value)
        better = records["validation_loss"] < self.best_loss
        net.history.record("validation_loss_best", better)
        if better:
            self.best_loss, self.best_epoch = records["validation_loss"], len(net.history)
            self.best = copy.deepcopy(net.module_.state_dict())


def fine_tune(net, tuning, X, y, *, sample_weight, fit_params):
    """Fine-tune ``tuning.fake.module`` as the trained ``net`` trains.

    Parameters
    ----------
    net : NeuralNetClassifier
        Trained; a copy of it trains on.
    tuning : Tuning
        What is done besides.
    X, y : array
        Samples, and positions of their classes.
    sample_weight : array of shape (n,) or None
        Weights of the losses.
    fit_params : dict
        As in fit.

    Returns
    -------
    history : skorch.history.History
        History of the fine-tuning.
    best_epoch : int or None
        The epoch that was kept, from 1, where there was a validation.
    """
    n_trained = len(net.history or ())
    n_steps = net.history[-1].get("train_batch_count", 1) if n_trained else 1
    net, epochs_callback = _copy(net, tuning.fake.module), _Epochs(tuning)
    net.max_epochs = tuning.n_epochs
    X = for_training(net, X)
    tuning.fake.module.train()  # a step of the user's own may not switch it
    with (
        seeded(tuning.seed),
        tensor_training(net, sample_weight, base=FineTuning, tuning_=tuning),
    ):
        verbose, net.verbose = net.verbose, 0  # or skorch announces each of these
        net._initialize_callbacks()
        net._initialize_optimizer()
        net._initialize_history()
        net.verbose = verbose
        kept = [(name, c) for name, c in net.callbacks_ if not isinstance(c, _FLOAT_ONLY)]
        if any(isinstance(callback, LRScheduler) for _, callback in kept):
            n_groups, epochs = len(net.optimizer_.param_groups), (n_trained, tuning.n_epochs)
            options = n_groups, tuning.lr, epochs, (n_steps, _n_steps(net, X, y, n_steps))
            kept = [(name, adapted_schedule(callback, *options)) for name, callback in kept]
        net.callbacks_ = [("quantization", epochs_callback), *kept]
        net.partial_fit(X, y, **{k: v for k, v in fit_params.items() if k != "epochs"})
        _check_effect(net, tuning)
        if epochs_callback.best is not None:
            tuning.fake.module.load_state_dict(epochs_callback.best)
    for parameter in tuning.fake.module.parameters():
        parameter.grad = None
    return net.history_, epochs_callback.best_epoch


def _n_steps(net, X, y, unknown):
    """Return how many steps an epoch of the fine-tuning will have."""
    dataset, _ = net.get_split_datasets(X, y)
    try:
        return max(1, len(net.get_iterator(dataset, training=True)))
    except TypeError:  # an iterator of unknown length
        return unknown


def _check_effect(net, tuning):
    """Raise if the net went around what the fine-tuning is to do."""
    name = type(net).__name__
    if tuning.sampler is not None and not tuning.sampler.n_draws:
        raise ValueError(
            f"sampling={tuning.sampling!r} had no effect: get_iterator of {name} returns a loader "
            "without it; pass the keyword arguments of get_params_for('iterator_train') on, or set "
            "sampling=None."
        )
    if tuning.distillation and tuning.fake.n_steps and not tuning.distillation.n_steps:
        raise ValueError(
            f"distillation={tuning.distillation.weight} had no effect: {name} computes its loss without "
            "get_loss; call self.get_loss(y_pred, y, X=Xi, training=True) in its train_step_single, or "
            "set distillation=0."
        )
    if len(net.history) and not tuning.fake.n_steps:
        raise ValueError(
            f"no step of the fine-tuning ran on quantized weights: either {name} has a train_step "
            "that does not call train_step_single, or no batch is full while drop_last=True. Override "
            "train_step_single instead, or lower the batch size."
        )


def _copy(net, module):
    """Return a copy of a trained net around another module, to be trained on."""
    left_out = ("module_", "optimizer_", "callbacks_", "history_")
    copied = object.__new__(type(net))
    attributes = {name: value for name, value in vars(net).items() if name not in left_out}
    known = {id(net): copied, id(net.module_): module}
    known |= {id(m): m for m in [net.module] if isinstance(m, nn.Module)}
    vars(copied).update(copy_attributes(attributes, known))
    vars(copied).update(module_=module, history_=None)
    return copied
