"""The wrapped skorch network: taken over, checked, trained, and run."""

import contextlib
import copy
import inspect

import numpy as np
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from torch import nn

from skqfair._copies import copies_of, copy_attributes
from skqfair._seeding import preserved, seeded
from skqfair.exceptions import ModuleOutputError, UntrainedNetworkError
from skqfair.networks._batches import BatchLoader, TensorData
from skqfair.networks._make_classifier import TensorNetClassifier, make_classifier
from skqfair.networks._training import prediction_view, tensor_training
from skqfair.networks._validation_labels import with_positions

__all__ = ["Network"]

_OVERRIDABLE = ("forward_iter", "evaluation_step", "infer", "get_dataset", "get_iterator")
_PRODUCTS = 3_000_000  # multiplications of one block: its time is then a few times that of one row
_BLOCK_LOGS = 3, 7


class Network:
    """A clone of an unfitted net, or a deep copy of a frozen one.

    Parameters
    ----------
    estimator : NeuralNetClassifier, FrozenEstimator of a trained one, or None
        What the user passed; not changed.

    Attributes
    ----------
    net : NeuralNetClassifier
        The copy that is trained and kept.
    frozen : bool
        Whether it is trained already.
    """

    def __init__(self, estimator):
        self.frozen = isinstance(estimator, FrozenEstimator)
        inner = estimator.estimator if self.frozen else estimator
        inner = make_classifier() if inner is None else inner
        if not isinstance(inner, NeuralNetClassifier):
            raise TypeError(
                "estimator must be a skorch.NeuralNetClassifier, a FrozenEstimator of a trained one, or "
                f"None; got {_type_name(inner)}. Put preprocessing before it in a Pipeline, "
                "and use make_classifier(module) to wrap a torch module."
            )
        _check_criterion(inner)
        _check_numbers(inner)
        if self.frozen:
            _check_trained(inner)
        if self.frozen:  # not by skorch's own pickling, which some modules refuse
            self.state = type(inner), copy_attributes(vars(inner), copies_of(inner.module_))
            self.module.eval()
        else:
            self.net = clone(inner)

    @classmethod
    def of_trained(cls, net):
        """Return the network of a net that was trained here, without a copy."""
        network = object.__new__(cls)
        network.net, network.frozen = net, True
        return network

    def view(self, module):
        """Return the net with ``module`` in the place of its own, to predict with."""
        return prediction_view(self.net, module)

    def recipe(self):
        """Return what describes the training, for a key: the class of the net and its parameters."""
        params = self.net.get_params(deep=False)
        return type(self.net), {name: params[name] for name in params if name != "verbose"}

    @property
    def returns_logits(self):
        """Whether the module returns logits rather than probabilities."""
        return issubclass(_criterion_type(self.net), nn.CrossEntropyLoss)

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
                        f"the module {_type_name(module)} has no parameters: there is nothing to train "
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
            self.net.fit(X, y, **fit_params)
        self.module.eval()
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

    def input_dtype(self, X):
        """Return the dtype in which the module takes ``X``: int64 for an Embedding, else its own."""
        module = self.module
        floats = [p.dtype for p in module.parameters() if p.is_floating_point()]
        wide = floats and floats[0] == torch.float64
        dtype = np.dtype(np.float64 if wide else np.float32)
        embeds = any(isinstance(m, (nn.Embedding, nn.EmbeddingBag)) for m in module.modules())
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
                f"{_type_name(self.net)} has the modules {self.net._modules}; only `module` would be "
                "quantized. Put them into one module."
            )
        if not trained and self.changes_when_training_begins:
            return
        try:
            outputs = self.outputs(X[: min(len(X), 8)])
        except Exception as error:
            raise ValueError(
                f"the module {_type_name(self.module)} fails on X of shape {X.shape} and dtype "
                f"{X.dtype}: {error}"
            ) from error
        _check_outputs(outputs, n_classes, self.returns_logits, _type_name(self.module))
        if self.has_own_probabilities:
            _check_probabilities(self.view(self.module).predict_proba(X[:8]), n_classes, self.net)

    @property
    def has_own_probabilities(self):
        """Whether probabilities come from the user's own method or nonlinearity."""
        own = callable(self.net.predict_nonlinearity)
        return own or self.overrides("predict_proba")

    def outputs(self, X, module=None, *, block=None):
        """Return the outputs of the float module, or of ``module`` in its place, for arrays ``X``.

        The batches have the net's own size; with ``block`` this one, the last filled up with copies.
        """
        parts = list(self.each_batch(X, module, block=block))
        for part in parts:
            if not isinstance(part, torch.Tensor):
                return part  # for check_outputs to refuse
        return torch.cat(parts)

    def each_batch(self, X, module=None, *, block=None):
        """Yield what :meth:`outputs` returns, batch by batch."""
        module = self.module if module is None else module
        run = self._run_directly if self.is_plain else self._run_by_skorch
        size = block or self.batch_size(len(X))
        rest = len(X) % size if block else 0
        full = len(X) - rest
        if full:
            yield from run(X[:full], module, size)
        if rest:
            filled = np.concatenate([X[full:], np.repeat(X[-1:], size - rest, 0)])
            for outputs in run(filled, module, size):
                yield outputs[:rest]

    def find_block(self, X, module):
        """Return how many rows of a 2-d X go together, None for batches of the net's own size.

        Float32 products depend on the shape of the batch, so a row's prediction would depend on how
        many rows are beside it, unless all batches have one shape. Small: a single row pays for a block.
        None where rows see each other, for then a filled batch is another one.
        """
        if X.ndim != 2:
            return None
        positions = X.shape[1] if X.dtype.kind in "iu" else 1  # ids share the weights
        products = positions * sum(p.numel() for p in module.parameters())
        block = 2 ** int(np.clip(np.log2(_PRODUCTS / products), *_BLOCK_LOGS))
        block = min(block, self.batch_size(len(X)))
        among_others = self.outputs(X[np.arange(block) % len(X)], module, block=block)
        among_copies = self.outputs(np.repeat(X[:1], block, 0), module, block=block)
        tolerance = 1e-5 * float(among_copies[0].abs().max())
        first = among_others[:1].expand_as(among_copies)
        same = torch.allclose(first, among_copies, rtol=0, atol=tolerance, equal_nan=True)
        return block if same else None

    def batch_size(self, n_samples):
        """Return the net's batch size for prediction; all samples for skorch's -1."""
        size = self.net.get_params_for("iterator_valid").get("batch_size", self.net.batch_size)
        return max(1, n_samples) if size == -1 else size

    def overrides(self, name):
        """Whether the net's class has a method ``name`` of its own."""
        method = getattr(type(self.net), name)
        return all(method is not getattr(c, name) for c in (NeuralNetClassifier, TensorNetClassifier))

    @property
    def is_plain(self):
        """Whether the net predicts as skorch does, on batches of rows in their order."""
        own = self.view(None)
        options = set(own.get_params_for("iterator_valid")) - {"batch_size"}
        return (
            own.dataset is TensorData
            and own.iterator_valid is BatchLoader
            and not options
            and not own.get_params_for("dataset")
            and not any(self.overrides(name) for name in _OVERRIDABLE)
        )

    def _run_directly(self, X, module, size):
        tensor = torch.as_tensor(np.require(X, requirements=["C", "W"]))
        device = self.net.device or "cpu"
        modes = [m for m in module.modules() if m.training]
        if modes:  # never of a fitted estimator, whose threads would get into each other's way
            module.eval()
        try:
            for batch in tensor.split(size):
                with torch.no_grad():  # a copy of each batch, for modules that work in place
                    output = _to_cpu(module(batch.to(device, copy=True)))
                yield output
        finally:
            for m in modes:
                m.training = True

    def _run_by_skorch(self, X, module, size):
        with preserved():  # torch's loader draws from the global generator
            view = self.view(module)
            if size != self.batch_size(len(X)):
                view.iterator_valid__batch_size = size
            return list(view.forward_iter(X))


def _to_cpu(output):
    return output.cpu() if isinstance(output, torch.Tensor) else output


def _type_name(obj):
    return type(obj).__name__


def _criterion_type(net):
    return net.criterion if inspect.isclass(net.criterion) else type(net.criterion)


def _check_criterion(net):
    criterion = _criterion_type(net)
    if not issubclass(criterion, (nn.CrossEntropyLoss, nn.NLLLoss)):
        name = getattr(criterion, "__name__", str(criterion))
        raise ValueError(
            f"criterion of the net must be torch.nn.CrossEntropyLoss (the module returns logits) or "
            f"torch.nn.NLLLoss (it returns probabilities), got {name}; set "
            "criterion=torch.nn.CrossEntropyLoss and let the module return one logit for each class."
        )


def _check_numbers(net):
    """Raise for a device that is not there, and for sizes of batches and numbers of epochs below 1."""
    try:
        torch.empty(0, device=net.device or "cpu")
    except (AssertionError, RuntimeError) as error:
        raise ValueError(
            f"device={net.device!r} of the net cannot be used here ({str(error).splitlines()[0][:80]}); "
            "set device='cpu'."
        ) from error
    limits = {"batch_size": 1, "max_epochs": 0}
    for name, least in limits.items():
        value = getattr(net, name)
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not whole or not (value >= least or (name == "batch_size" and value == -1)):
            allowed = ", or -1 for all samples" if name == "batch_size" else ""
            raise ValueError(f"{name} of the net must be an integer >= {least}{allowed}; got {value!r}.")


def _check_trained(net):
    if not getattr(net, "initialized_", False) or not len(net.history or ()):
        raise UntrainedNetworkError(
            "the net inside FrozenEstimator has never been trained (its history is empty); train it "
            "first with net.fit(X, y), or pass the net itself to have it trained here. Weights read "
            "with load_params need their history and classes too: "
            "net.load_params(f_params=..., f_history=...) on a net made with classes=[...]. A module "
            "trained without skorch: make_classifier(module, max_epochs=0), not frozen."
        )


def _check_probabilities(probabilities, n_classes, net):
    values = np.asarray(probabilities, dtype=np.float64)
    fits = values.ndim == 2 and values.shape[1] == n_classes and (values >= 0).all()
    if not (fits and np.allclose(values.sum(1), 1, atol=1e-3)):
        raise ModuleOutputError(
            f"predict_proba of {_type_name(net)} (predict_nonlinearity={net.predict_nonlinearity!r}) "
            f"does not return probabilities of shape (n, {n_classes}) whose rows sum to 1; leave "
            "predict_nonlinearity='auto', or correct the method."
        )


def _check_outputs(outputs, n_classes, logits, name):
    if not isinstance(outputs, torch.Tensor):
        raise ModuleOutputError(
            f"the module {name} returns a {_type_name(outputs)}; it must return one tensor of shape "
            "(n, n_classes). Return only the logits from forward."
        )
    if outputs.ndim != 2 or outputs.shape[1] != n_classes:
        raise ModuleOutputError(
            f"the module {name} returns shape {tuple(outputs.shape)} for {len(outputs)} samples, but y "
            f"has {n_classes} classes: shape (n, {n_classes}) is needed. Give its last layer "
            f"{n_classes} outputs."
        )
    outputs = outputs.double()
    if not torch.isfinite(outputs).all():
        return  # for the training to say
    sums_to_one = torch.allclose(outputs.sum(1), torch.ones(len(outputs)).double(), atol=1e-3)
    probabilities = bool((outputs >= 0).all()) and sums_to_one
    if logits and probabilities:
        raise ModuleOutputError(
            f"the module {name} returns probabilities, but the criterion CrossEntropyLoss takes logits; "
            "remove the softmax from the module, or use criterion=torch.nn.NLLLoss."
        )
    if not logits and not probabilities:
        what = "logits"
        if bool((outputs <= 0).all()) and torch.allclose(
            outputs.exp().sum(1), torch.ones(len(outputs)).double(), atol=1e-3
        ):
            what = "log-probabilities"
        raise ModuleOutputError(
            f"the module {name} returns {what}, but with the criterion NLLLoss skorch takes "
            "probabilities; use criterion=torch.nn.CrossEntropyLoss, or end the module in a softmax."
        )
