"""What a module of unknown making returns, and a skorch net around a copy of it."""

import numpy as np
import torch
from skorch import NeuralNetBinaryClassifier
from torch import nn

from skqfair._copies import deep_copy
from skqfair.exceptions import ModuleOutputError
from skqfair.networks._checks import ends_in_sigmoid, type_name
from skqfair.networks._make_classifier import make_classifier

__all__ = [
    "OUTPUTS",
    "BothProbabilities",
    "check_classes",
    "check_float",
    "find_output",
    "net_around",
    "read_weights",
]

OUTPUTS = ("logits", "logit", "probabilities", "probability")
"""What a module may return: for all classes, or for the second of two."""

_SINGLE = ("logit", "probability")


def check_classes(classes, n_classes):
    """Return the labels, None where neither they nor their number is given."""
    whole = isinstance(n_classes, (int, np.integer)) and not isinstance(n_classes, bool)
    if n_classes is not None and not (whole and n_classes >= 2):
        raise ValueError(f"n_classes must be an integer >= 2 or None; got {n_classes!r}.")
    if classes is None:
        return None if n_classes is None else np.arange(n_classes)
    classes = np.asarray(classes)
    if classes.ndim != 1 or len(classes) < 2 or len(np.unique(classes)) < len(classes):
        raise ValueError(
            f"classes must be two or more different labels, shape (C,); got {classes.tolist()!r}."
        )
    if n_classes not in (None, len(classes)):
        raise ValueError(f"n_classes={n_classes} but classes has {len(classes)} labels; leave one out.")
    return classes


def find_output(outputs, output, classes, module):
    """Return what a module returns, and the labels.

    Parameters
    ----------
    outputs : tensor of shape (n, C), (n, 1) or (n,)
        Of some samples.
    output : str or None
        One of :data:`OUTPUTS` where it is said.
    classes : ndarray or None
        Labels where they are said.
    module : torch.nn.Module
        Whose outputs these are.

    Returns
    -------
    output : str
        One of :data:`OUTPUTS`.
    classes : ndarray of shape (C,)
        Labels.

    Raises
    ------
    ModuleOutputError
        Where they do not fit, or where logit or probability are equally likely.
    """
    name = type_name(module)
    if not isinstance(outputs, torch.Tensor) or outputs.ndim not in (1, 2):
        shape = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else ""
        raise ModuleOutputError(
            f"the module {name} returns a {type_name(outputs)} {shape}; it must return one tensor of "
            "shape (n, C), (n, 1) or (n,). Wrap it in a module that returns only that."
        )
    columns = 1 if outputs.ndim == 1 else outputs.shape[1]
    if output is not None and (output in _SINGLE) != (columns == 1):
        raise ModuleOutputError(
            f"output={output!r}, but the module {name} returns shape {tuple(outputs.shape)}."
        )
    n_classes = max(2, columns)
    if classes is not None and len(classes) != n_classes:
        raise ModuleOutputError(
            f"the module {name} returns shape {tuple(outputs.shape)}, for {n_classes} classes, but "
            f"{len(classes)} are said: {classes.tolist()[:10]}."
        )
    values = outputs.detach().double().cpu()
    if torch.isnan(values).any():
        raise ModuleOutputError(f"the module {name} returns NaN; check its weights and the range of X.")
    if output is None:
        output = _one(values, module) if columns == 1 else _several(values)
    elif output.startswith("prob"):
        _check_probabilities(values, columns, output, name)
    return output, np.arange(n_classes) if classes is None else classes


def _one(values, module):
    if ((values < 0) | (values > 1)).any():
        return "logit"
    if ends_in_sigmoid(module):
        return "probability"
    raise ModuleOutputError(
        f"the module {type_name(module)} returns one number from {values.min():.3g} to "
        f"{values.max():.3g} for these {len(values)} samples, a logit or a probability; say which with "
        'output="logit" or output="probability".'
    )


def _several(values):
    return "probabilities" if _sum_to_one(values) else "logits"


def _sum_to_one(values):
    ones = torch.ones(len(values), dtype=values.dtype)
    return bool((values >= 0).all()) and torch.allclose(values.sum(1), ones, atol=1e-2)


def _check_probabilities(values, columns, output, name):
    if columns == 1:
        fits = bool(((values >= 0) & (values <= 1)).all())
    else:
        fits = _sum_to_one(values)
    if not fits:
        raise ModuleOutputError(
            f"output={output!r}, but the module {name} returns values from {values.min():.3g} to "
            f"{values.max():.3g} that are none; leave output=None, or say what they are."
        )


class BothProbabilities(nn.Module):
    """A hook that gives a module with the probability of one class that of the other, too."""

    def forward(self, module, args, output):
        probability = output.reshape(-1)
        return torch.stack([1 - probability, probability], dim=1)


def net_around(classifier, output, classes):
    """Return a skorch net around a copy of the module of a TorchClassifier; it has no optimizer yet."""
    module = deep_copy(classifier.module).eval()
    options = {"max_epochs": 0, "batch_size": classifier.batch_size, "device": classifier.device}
    if output == "logit":
        net = NeuralNetBinaryClassifier(
            module,
            optimizer=torch.optim.Adam,
            lr=0.003,
            train_split=None,
            verbose=0,
            iterator_train__shuffle=True,
            **options,
        )
    else:
        if output == "probability":
            module.register_forward_hook(BothProbabilities())
        criterion = nn.CrossEntropyLoss if output == "logits" else nn.NLLLoss
        net = make_classifier(module, criterion=criterion, classes=np.asarray(classes), **options)
    for part in ("virtual_params", "callbacks", "module", "criterion", "history"):
        getattr(net, f"_initialize_{part}")()  # quantized modules have nothing to optimize
    net.initialized_ = True
    return net


def check_float(module):
    """Raise if layers of a module are quantized already."""
    quantized = [name for name, weight in _weights(module).items() if not _is_plain(weight)]
    if quantized:
        raise ValueError(
            f"the module {type_name(module)} is quantized already ({', '.join(quantized[:3])}), and "
            "predicts as it is: pass the float module here, or put this one beside it, e.g. "
            'QuantizationDiagnostics(float_model, compressed={"int8": TorchClassifier(module)}).'
        )


def read_weights(module):
    """Return the weights of a module in float64, dequantized where they are quantized.

    Parameters
    ----------
    module : torch.nn.Module
        Float, or quantized by ``torch.ao`` or torchao.

    Returns
    -------
    dict of str to ndarray of float64
        Parameters of two or more dimensions, by name.
    """
    weights = {name: weight for name, weight in _weights(module).items() if weight.ndim > 1}
    return {name: _values(weight) for name, weight in weights.items()}


def _weights(module):
    """Return the parameters, and the weights of the layers of torch.ao, by name."""
    weights = dict(module.named_parameters())
    for name, child in module.named_modules():
        weight = getattr(child, "weight", None)
        if not isinstance(weight, torch.Tensor) and callable(weight):  # a layer of torch.ao
            weights[f"{name}.weight" if name else "weight"] = weight()
    return weights


def _is_plain(weight):
    own = type(weight.data)  # a subclass of tensors in torchao
    return own is torch.Tensor and not weight.is_quantized


def _values(weight):
    weight = weight.detach()
    return (weight if _is_plain(weight) else weight.dequantize()).cpu().double().numpy()
