"""Nets and outputs of modules that do not fit: what is wrong, and what to do."""

import inspect
import numbers

import numpy as np
import torch
from sklearn.base import clone
from skorch import NeuralNetBinaryClassifier
from torch import nn

from skqfair.exceptions import ModuleOutputError, UntrainedNetworkError

__all__ = [
    "check_count",
    "check_criterion",
    "check_device",
    "check_one_logit",
    "check_outputs",
    "check_parameters",
    "check_probabilities",
    "check_trained",
    "copied",
    "criterion_type",
    "ends_in_sigmoid",
    "finite_logits",
    "type_name",
]


def type_name(obj):
    """Return the name of the class of an object."""
    return type(obj).__name__


def criterion_type(net):
    """Return the class of a net's criterion."""
    return net.criterion if inspect.isclass(net.criterion) else type(net.criterion)


def check_criterion(net):
    """Raise for a criterion that is not known, or not with this class of nets."""
    criterion = criterion_type(net)
    name = getattr(criterion, "__name__", str(criterion))
    if isinstance(net, NeuralNetBinaryClassifier):
        if not issubclass(criterion, nn.BCEWithLogitsLoss):
            raise ValueError(
                f"criterion of a {type_name(net)} must be torch.nn.BCEWithLogitsLoss (the module "
                f"returns one logit), got {name}; for another one take skorch.NeuralNetClassifier."
            )
        if net.threshold != 0.5:
            raise ValueError(
                f"threshold={net.threshold!r} of the net would not reach exports and diagnostics; set "
                "threshold=0.5, and put sklearn.model_selection.FixedThresholdClassifier around the "
                "fitted classifier."
            )
    elif issubclass(criterion, nn.BCEWithLogitsLoss):
        raise ValueError(
            f"criterion=BCEWithLogitsLoss, for a module that returns one logit, goes with "
            f"skorch.NeuralNetBinaryClassifier; got it in a {type_name(net)}."
        )
    elif not issubclass(criterion, (nn.CrossEntropyLoss, nn.NLLLoss)):
        raise ValueError(
            f"criterion of the net must be torch.nn.CrossEntropyLoss (the module returns logits) or "
            f"torch.nn.NLLLoss (it returns probabilities), got {name}; set "
            "criterion=torch.nn.CrossEntropyLoss and let the module return one logit for each class."
        )


def check_parameters(net):
    """Raise for parameters of a net that skorch or torch would fail on in other words."""
    check_device(net.device)
    check_count("max_epochs", net.max_epochs, 0)
    check_count("batch_size", net.batch_size, 1)
    for part in ("iterator_train", "iterator_valid"):
        if "batch_size" in (given := net.get_params_for(part)):
            check_count(f"{part}__batch_size", given["batch_size"], 1)
    if not isinstance(net.lr, (numbers.Real, torch.Tensor)):
        raise ValueError(f"lr of the net must be a number, e.g. 0.003; got {net.lr!r}.")
    if isinstance(net.module, type) and not issubclass(net.module, nn.Module):
        raise TypeError(f"module of the net must be a torch.nn.Module; got {net.module.__name__}.")
    if not callable(net.optimizer):
        raise ValueError(
            "optimizer of the net must be a class, e.g. torch.optim.Adam, with its arguments as "
            f"optimizer__weight_decay=...; got {net.optimizer!r}."
        )
    if net.train_split is not None and not callable(net.train_split):
        raise ValueError(
            "train_split of the net must be None or a split, e.g. skorch.dataset.ValidSplit(5); got "
            f"{net.train_split!r}."
        )
    if not isinstance(net.callbacks or [], (list, tuple)) and net.callbacks != "disable":
        raise ValueError(f"callbacks of the net must be a list of callbacks; got {net.callbacks!r}.")


def finite_logits(logits):
    """Return logits, or raise if their probabilities would be NaN; a class may have minus infinity."""
    possible = np.isfinite(logits.max(1))
    if not possible.all():
        row = int(np.flatnonzero(~possible)[0])
        raise ModuleOutputError(
            f"the module returns {logits[row].tolist()} for row {row} of X; such samples are beyond its "
            "range: scale or drop them."
        )
    return logits


def check_device(device):
    """Raise if there is no such device, or it holds no values."""
    try:
        if torch.empty(0, device="cpu" if device is None else device).is_meta:
            raise RuntimeError("it holds no values")
    except (AssertionError, RuntimeError) as error:
        raise ValueError(
            f"device={device!r} of the net cannot be used here ({str(error).splitlines()[0][:80]}); "
            "set device='cpu'."
        ) from error


def check_count(name, value, least):
    """Raise if a number of a net is no whole number, or below the least."""
    allowed = ", or -1 for all samples" if "batch_size" in name else ""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or not (value >= least or (allowed and value == -1)):
        raise ValueError(f"{name} of the net must be an integer >= {least}{allowed}; got {value!r}.")


def copied(net):
    """Return a clone of a net, or raise and name what has no copy."""
    try:
        return clone(net)
    except TypeError as error:
        for name, value in net.get_params(deep=False).items():
            try:
                clone(value, safe=False)
            except TypeError:
                raise TypeError(
                    f"{name} of the net cannot be copied ({error}); make what has no copy later, e.g. "
                    "in initialize() of a callback, or train the net and pass FrozenEstimator(net)."
                ) from error
        raise


def check_trained(net):
    """Raise if a net that is called trained never was."""
    if not getattr(net, "initialized_", False) or not len(net.history or ()):
        raise UntrainedNetworkError(
            "the net inside FrozenEstimator has never been trained (its history is empty); train it "
            "first with net.fit(X, y), or pass the net itself to have it trained here. Weights read "
            "with load_params need their history and classes too: "
            "net.load_params(f_params=..., f_history=...) on a net made with classes=[...]. A module "
            "trained without skorch: TorchClassifier(module)."
        )


def check_probabilities(probabilities, n_classes, net):
    """Raise if what a net calls probabilities are none."""
    values = np.asarray(probabilities, dtype=np.float64)
    fits = values.ndim == 2 and values.shape[1] == n_classes and (values >= 0).all()
    if not (fits and np.allclose(values.sum(1), 1, atol=1e-3)):
        raise ModuleOutputError(
            f"predict_proba of {type_name(net)} (predict_nonlinearity={net.predict_nonlinearity!r}) "
            f"does not return probabilities of shape (n, {n_classes}) whose rows sum to 1; leave "
            "predict_nonlinearity='auto', or correct the method."
        )


def check_one_logit(outputs, module):
    """Return one logit of each sample, with 0 as that of the first class, shape (n, 2)."""
    name = type_name(module)
    if not isinstance(outputs, torch.Tensor):
        raise ModuleOutputError(
            f"the module {name} returns a {type_name(outputs)}; it must return one tensor of shape (n,) "
            "or (n, 1). Return only the logit from forward."
        )
    if outputs.ndim > 2 or (outputs.ndim == 2 and outputs.shape[1] != 1):
        raise ModuleOutputError(
            f"the module {name} returns shape {tuple(outputs.shape)}, but BCEWithLogitsLoss takes one "
            "logit of each sample, shape (n,) or (n, 1); for several use CrossEntropyLoss."
        )
    logit = outputs.reshape(-1)
    return torch.stack([torch.zeros_like(logit), logit], dim=1)


def ends_in_sigmoid(module):
    """Tell whether the last part of a module, as its modules are listed, is a sigmoid."""
    return isinstance(list(module.modules())[-1], nn.Sigmoid)


def check_outputs(outputs, n_classes, network):
    """Raise if outputs of a network are no logits, or no probabilities, of so many classes."""
    logits, name = network.returns_logits, type_name(network.module)
    if network.has_one_logit:
        if n_classes != 2:
            raise ModuleOutputError(
                f"the module {name} returns one logit, for two classes, but y has {n_classes}; use "
                f"CrossEntropyLoss, with {n_classes} outputs of its last layer."
            )
        if ends_in_sigmoid(network.module):
            raise ModuleOutputError(
                f"the module {name} ends in a sigmoid, but BCEWithLogitsLoss takes its logit; remove "
                "the sigmoid."
            )
        return
    if not isinstance(outputs, torch.Tensor):
        raise ModuleOutputError(
            f"the module {name} returns a {type_name(outputs)}; it must return one tensor of shape "
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
