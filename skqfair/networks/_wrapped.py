"""The wrapped skorch network: taken over, checked, trained, and run."""

import contextlib
import copy
import functools
import itertools

import numpy as np
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import nn

from skqfair._copies import copies_of, copy_attributes, keep_padding
from skqfair._losses import log_probabilities
from skqfair._rows import Rows, only, whole
from skqfair._seeding import preserved, seeded
from skqfair.exceptions import ModuleOutputError
from skqfair.networks._batches import BatchLoader, TensorData, batches_of, inputs_of, parts_of
from skqfair.networks._checks import (
    check_criterion,
    check_one_logit,
    check_outputs,
    check_parameters,
    check_probabilities,
    check_trained,
    copied,
    criterion_type,
    finite_logits,
    type_name,
)
from skqfair.networks._make_classifier import TensorNetClassifier, make_classifier
from skqfair.networks._several_inputs import call, moved, named_for
from skqfair.networks._training import (
    batch_parts,
    for_prediction,
    for_training,
    prediction_view,
    tensor_training,
)
from skqfair.networks._validation_labels import with_positions

__all__ = ["SKORCH_CLASSIFIERS", "Network"]

SKORCH_CLASSIFIERS = (NeuralNetClassifier, NeuralNetBinaryClassifier)
"""The classes of nets that can be wrapped, with their subclasses."""

_OPTIONS = "iterator_valid__", "dataset__"
_OVERRIDABLE = ("forward_iter", "evaluation_step", "infer", "get_dataset", "get_iterator")
_PRODUCTS = 3_000_000  # multiplications of one block: its time is then a few times that of one row
_BLOCK_LOGS = 3, 7
_TOGETHER = 64  # batches whose outputs are put together at a time


class Network:
    """A clone of an unfitted net, or a deep copy of a frozen one.

    Parameters
    ----------
    estimator : skorch classifier, FrozenEstimator of a trained one, TorchClassifier, or None
        What the user passed; not changed.
    X : array of shape (n, ...), optional
        Samples, by which a TorchClassifier finds out what its module returns.

    Attributes
    ----------
    net : NeuralNetClassifier or NeuralNetBinaryClassifier
        The copy that is trained and kept.
    frozen : bool
        Whether it is trained already.
    classes : ndarray or None
        Labels of one that is.
    """

    def __init__(self, estimator, X=None):
        self.frozen, self.classes = isinstance(estimator, FrozenEstimator), None
        inner = estimator.estimator if self.frozen else estimator
        inner = make_classifier() if inner is None else inner
        foreign = hasattr(inner, "net_for")  # a TorchClassifier
        if foreign:
            self.frozen, (inner, self.classes) = True, inner.net_for(X)
        if not isinstance(inner, SKORCH_CLASSIFIERS):
            raise TypeError(
                "estimator must be a skorch.NeuralNetClassifier or NeuralNetBinaryClassifier, a "
                f"FrozenEstimator of a trained one, a TorchClassifier, or None; got {type_name(inner)}. "
                "Put preprocessing before it in a Pipeline; make_classifier(module) wraps a module that "
                "is to be trained, TorchClassifier(module) one that is."
            )
        check_criterion(inner)
        check_parameters(inner)
        if self.frozen and not foreign:
            check_trained(inner)
            self.classes = np.asarray(inner.classes_)
        if self.frozen:  # not by skorch's own pickling, which some modules refuse
            self.state = type(inner), copy_attributes(vars(inner), copies_of(inner.module_))
            self.module.eval()
        else:
            self.net = copied(inner)
            self.net.batch_size = int(inner.batch_size)  # torch's loaders take no integers of numpy

    @classmethod
    def of_trained(cls, net):
        """Return the network of a net that was trained here, without a copy."""
        network = object.__new__(cls)
        network.net, network.frozen = net, True
        return network

    def named(self, X):
        """Return several inputs by the names that forward takes; others as they are."""
        return named_for(X, self.net.__dict__.get("module_", self.net.module))

    def view(self, module):
        """Return the net with ``module`` in the place of its own, to predict with."""
        return prediction_view(self.net, module)

    def recipe(self):
        """Return what describes the training, for a key: the class of the net and its parameters."""
        params = self.net.get_params(deep=False)
        return type(self.net), {name: params[name] for name in params if name != "verbose"}

    @property
    def returns_logits(self):
        """Whether :meth:`outputs` are logits rather than probabilities."""
        return not issubclass(criterion_type(self.net), nn.NLLLoss)

    @property
    def has_one_logit(self):
        """Whether the module returns the logit of the second of two classes, and no others."""
        return isinstance(self.net, NeuralNetBinaryClassifier)

    def class_logits(self, outputs):
        """Return what a module returns as logits of all classes, differentiable."""
        if self.has_one_logit:
            return check_one_logit(outputs, self.module)
        return outputs if self.returns_logits else outputs.clamp_min(_tiny(outputs)).log()

    def logits(self, X, module=None, *, block=None):
        """Return logits of arrays ``X`` in float64, shape (n, C)."""
        if self.has_own_probabilities:
            predict = self.view(module or self.module).predict_proba
            return log_probabilities(self.by_parts(predict, X))
        outputs = self.outputs(X, module, block=block).double().numpy()
        return finite_logits(outputs) if self.returns_logits else log_probabilities(outputs)

    @property
    def module(self):
        """The float module, without the wrapper of ``torch.compile``."""
        return getattr(self.net.module_, "_orig_mod", self.net.module_)

    def probe(self, X, y, seed):
        """Return an initialised, untrained copy, or None if that fails before training.

        A callback may set sizes when training begins: a failure here means nothing yet.
        """
        if self.frozen:
            return self
        probe = copy.copy(self)
        probe.net = clone(self.net)
        with seeded(seed):
            if hasattr(probe.net, "find_sizes"):
                probe.net.find_sizes(X, y)
            try:
                probe.net.set_params(verbose=0)
                probe.net.initialize()
            except Exception as error:
                module = getattr(probe.net, "module_", None)
                if isinstance(module, nn.Module) and not list(module.parameters()):
                    raise ValueError(
                        f"the module {type_name(module)} has no parameters: there is nothing to train "
                        "or to quantize."
                    ) from error
                return None
        return probe

    @property
    def changes_when_training_begins(self):
        """Whether the net or a callback that is not skorch's acts at the beginning of training."""
        callbacks = [callback for _, callback in self.net.callbacks_]
        acting = [type(c).on_train_begin for c in callbacks] + [type(self.net).on_train_begin]
        begins = ("fit", "partial_fit", "fit_loop", "initialize")
        return any(not method.__module__.startswith("skorch.") for method in acting) or any(
            self.overrides(name) for name in begins
        )

    def take_classes(self, classes):
        """Give the validation data of the user the labels that the net is trained on."""
        self.net.train_split = with_positions(self.net.train_split, classes)

    def train(self, X, y, sample_weight, seed, fit_params, stored):
        """Train the net, and return its state; one to be stored has no moments of the optimizer."""
        with seeded(seed), tensor_training(self.net, sample_weight):
            self.net.fit(for_training(self.net, X), y, **fit_params)
        keep_padding(self.module.eval())
        for name in self.net._optimizers if stored else ():
            getattr(self.net, name + "_").state.clear()
        return self.state

    def check_finite(self):
        """Raise if a weight is NaN or infinite."""
        for name, parameter in self.module.named_parameters():
            if not torch.isfinite(parameter).all():
                raise ValueError(
                    f"training diverged: the weight {name} is not finite. Lower the learning rate "
                    f"(lr={self.net.lr}) or scale the features of X."
                )

    @property
    def state(self):
        """Class and attributes of the net, to be stored without skorch's own pickling.

        That goes through torch.save, which cannot store a module whose class is in a notebook.
        """
        return type(self.net), dict(vars(self.net))

    @state.setter
    def state(self, state):
        own, attributes = state
        self.net = object.__new__(own)
        vars(self.net).update(attributes)
        keep_padding(self.module)

    def input_dtype(self, X):
        """Return the dtype in which the module takes ``X``: int64 for an Embedding, else its own."""
        module = self.module
        floats = [p.dtype for p in module.parameters() if p.is_floating_point()]
        wide = floats and floats[0] == torch.float64
        dtype = np.dtype(np.float64 if wide else np.float32)
        embeds = any("Embedding" in type(m).__name__ for m in module.modules())  # quantized ones too
        if embeds and X.dtype.kind in "iub":
            # the first layer decides: one that takes floats fails on integers
            with contextlib.suppress(Exception):
                self.outputs(X[:2].astype(np.int64))
                return np.dtype(np.int64)
        return dtype

    def check_outputs(self, X, n_classes, *, trained):
        """Raise if the outputs of the module do not fit its criterion and the classes.

        Before training nothing is checked where a callback or an overridden method of the user's may
        still set sizes when the training begins.
        """
        if self.net._modules != ["module"]:
            raise ValueError(
                f"{type_name(self.net)} has the modules {self.net._modules}; only `module` would be "
                "quantized. Put them into one module."
            )
        if not trained and self.changes_when_training_begins:
            return
        try:
            outputs = self.outputs(X[: min(len(X), 8)])
        except ModuleOutputError:
            raise
        except Exception as error:
            raise ValueError(
                f"the module {type_name(self.module)} fails on X of shape {X.shape} and dtype "
                f"{X.dtype}: {error}"
            ) from error
        check_outputs(outputs, n_classes, self)
        if self.has_own_probabilities:
            check_probabilities(self.view(self.module).predict_proba(whole(X[:8])), n_classes, self.net)

    @property
    def has_own_probabilities(self):
        """Whether probabilities come from the user's own method or nonlinearity."""
        own = callable(self.net.predict_nonlinearity)
        return own or self.overrides("predict_proba")

    def outputs(self, X, module=None, *, block=None):
        """Return the outputs of the float module, or of ``module`` in its place, for arrays ``X``.

        One logit comes with 0 as that of the other class. The batches have the net's own size; with
        ``block`` this one, the last filled up with copies.
        """
        found, start, batches = None, 0, self.each_batch(X, module, block=block)
        while parts := list(itertools.islice(batches, _TOGETHER)):
            for part in parts:
                if not isinstance(part, torch.Tensor) or not part.ndim:
                    return part  # for check_outputs to refuse
            part = parts[0] if len(parts) == 1 else torch.cat(parts)
            if found is None and len(part) == len(X):
                return part
            if found is None:  # kept parts would scatter over the memory that batches are read into
                found = part.new_empty((len(X), *part.shape[1:]))
            end = start + len(part)
            if end > len(found) or part.shape[1:] != found.shape[1:]:
                return part
            found[start:end], start = part, end
        return found[:start]

    def each_batch(self, X, module=None, *, block=None):
        """Yield what :meth:`outputs` returns, batch by batch."""
        module = self.module if module is None else module
        run = self._run_directly if self.is_plain else self._run_by_skorch
        size = block or self.batch_size(len(X))
        rest = len(X) % size if block else 0
        full = len(X) - rest
        if full:
            yield from run(only(X, slice(full)), module, size)
        if rest:
            filled = X[np.minimum(np.arange(full, full + size), len(X) - 1)]
            for outputs in run(filled, module, size):
                yield outputs[:rest]

    def by_parts(self, predict, X):
        """Return what a method of the user's predicts, a few batches at a time where X is not there."""
        if not isinstance(X, Rows):
            return np.asarray(predict(X))
        return np.concatenate(
            [np.asarray(predict(part)) for part in parts_of(X, self.batch_size(len(X)))]
        )

    def find_block(self, X, module):
        """Return how many rows of a 2-d X go together, None for batches of the net's own size.

        Float32 products depend on the shape of the batch, so a row's prediction would depend on how
        many rows are beside it, unless all batches have one shape. Small: a single row pays for a block.
        None where rows see each other, for then a filled batch is another one.
        """
        if X.ndim != 2:
            return None
        positions = X.shape[1] if X.dtype.kind in "iu" else 1  # ids share the weights
        products = positions * max(1, sum(p.numel() for p in module.parameters()))
        block = 2 ** int(np.clip(np.log2(_PRODUCTS / products), *_BLOCK_LOGS))
        block = min(block, self.batch_size(len(X)))
        among_others = self.outputs(X[np.arange(block) % len(X)], module, block=block)
        among_copies = self.outputs(X[np.zeros(block, int)], module, block=block)
        tolerance = 1e-5 * float(among_copies[0].abs().max())
        first = among_others[:1].expand_as(among_copies)
        same = torch.allclose(first, among_copies, rtol=0, atol=tolerance, equal_nan=True)
        return block if same else None

    def batch_size(self, n_samples):
        """Return the net's batch size for prediction; all samples for skorch's -1."""
        size = self.net.get_params_for("iterator_valid").get("batch_size", self.net.batch_size)
        return max(1, n_samples) if size == -1 else int(size)

    def overrides(self, name):
        """Whether the net's class has a method ``name`` of its own."""
        return _has_own(type(self.net), name)

    @property
    def is_plain(self):
        """Whether the net predicts as skorch does, on batches of rows in their order."""
        parts = batch_parts(self.net)
        return (
            parts["dataset"] is TensorData
            and parts["iterator_valid"] is BatchLoader
            and _predicts_as_skorch(type(self.net))
            and not any(
                name.startswith(_OPTIONS) and name != "iterator_valid__batch_size"
                for name in vars(self.net)
            )
        )

    def _run_directly(self, X, module, size):
        inputs = inputs_of(X)
        is_read = isinstance(inputs, Rows)
        device = self.net.device or "cpu"
        modes = [m for m in module.modules() if m.training]
        if modes:  # never of a fitted estimator, whose threads would get into each other's way
            module.eval()
        try:
            for batch in batches_of(inputs, size):
                batch = moved(batch, device, copy=not is_read)  # for modules that work in place
                with torch.no_grad():
                    output = self._columns(call(module, batch))
                yield output
        finally:
            for m in modes:
                m.training = True

    def _run_by_skorch(self, X, module, size):
        with preserved():  # torch's loader draws from the global generator
            view = self.view(module)
            if size != self.batch_size(len(X)):
                view.iterator_valid__batch_size = size
            parts = for_prediction(view, X, size)
            return [self._columns(outputs) for part in parts for outputs in view.forward_iter(part)]

    def _columns(self, outputs):
        if self.has_one_logit:
            outputs = check_one_logit(outputs, self.module)
        return outputs.cpu() if isinstance(outputs, torch.Tensor) else outputs


@functools.cache
def _has_own(kind, name):
    method = getattr(kind, name)
    return all(method is not getattr(c, name) for c in (*SKORCH_CLASSIFIERS, TensorNetClassifier))


@functools.cache
def _predicts_as_skorch(kind):
    return not any(_has_own(kind, name) for name in _OVERRIDABLE)


def _tiny(outputs):
    return torch.finfo(outputs.dtype).tiny
