"""Library classes and functions that a saved estimator may refer to by name: these, and no others."""

import sys
from types import BuiltinFunctionType, FunctionType

import torch
from skorch import NeuralNetClassifier
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Dataset

__all__ = ["library_name", "library_object"]

# Nothing here imports, unpickles or runs what it is given: no loader, no checkpoint, no compiler.
_CLASSES = {
    *(
        f"builtins.{name}"
        for name in ["bool", "int", "float", "complex", "str", "list", "dict", "tuple", "set"]
    ),
    "collections.OrderedDict",
    "collections.defaultdict",
    "sklearn.frozen._frozen.FrozenEstimator",
    "sklearn.utils._metadata_requests.MetadataRequest",
    "sklearn.utils._metadata_requests.MethodMetadataRequest",
    "skorch.classifier.NeuralNetClassifier",
    "skorch.dataset.Dataset",
    "skorch.dataset.ValidSplit",
    "skorch.history.History",
    "torch.Size",
    "torch.nn.modules.module._WrappedHook",
    "torch.nn.utils.spectral_norm.SpectralNorm",
    "torch.nn.utils.spectral_norm.SpectralNormLoadStateDictPreHook",
    "torch.nn.utils.spectral_norm.SpectralNormStateDictHook",
    "torch.nn.utils.weight_norm.WeightNorm",
    "torch.utils.data.dataloader.DataLoader",
    "skorch.callbacks.logging.EpochTimer",
    "skorch.callbacks.logging.PrintLog",
    "skorch.callbacks.logging.ProgressBar",
    "skorch.callbacks.lr_scheduler.LRScheduler",
    "skorch.callbacks.regularization.GradientNormClipping",
    "skorch.callbacks.scoring.BatchScoring",
    "skorch.callbacks.scoring.EpochScoring",
    "skorch.callbacks.scoring.PassthroughScoring",
    "skorch.callbacks.training.EarlyStopping",
    "skorch.callbacks.training.InputShapeSetter",
    "skqfair.classifiers._fair_qat.FairQATClassifier",
    "skqfair.classifiers._pruned.PrunedClassifier",
    "skqfair.classifiers._quantized.QuantizedClassifier",
    "skqfair.diagnostics._versions.Version",
    "skqfair.quantization._activations.ActivationQuantizer",
    "skqfair.quantization._quantize.QuantizedTensor",
}
_FAMILIES = {  # by the package that defines them, and what they must be
    "torch.nn.modules.": (nn.Module,),
    "torch.nn.utils.parametriz": (nn.Module,),
    "torch.optim.": (torch.optim.Optimizer, LRScheduler),
    "skqfair.networks.": (nn.Module, NeuralNetClassifier, Dataset, DataLoader),
}
_ELEMENTWISE = {
    *("abs", "arctan", "atan", "celu", "clamp", "cos", "erf", "exp", "hardshrink", "log", "log1p"),
    *("log_softmax", "logit", "neg", "prelu", "relu", "relu_", "rrelu", "selu", "selu_", "sigmoid"),
    *("sigmoid_", "sign", "sin", "sinc", "softmax", "sqrt", "square", "tan", "tanh", "tanh_"),
    *("tanhshrink", "threshold"),
} & vars(torch).keys()


def _is_function(obj):
    """Tell whether this is a function of torch.nn.functional, not one that it imports."""
    return (isinstance(obj, FunctionType) and obj.__module__ == functional.__name__) or (
        isinstance(obj, BuiltinFunctionType) and obj.__module__ in ("torch", "torch._C._nn")
    )


_FUNCTIONS = {
    **{f"torch.{name}": getattr(torch, name) for name in _ELEMENTWISE},
    **{
        f"torch.nn.functional.{name}": obj
        for name, obj in vars(functional).items()
        if not name.startswith("_") and _is_function(obj)
    },
    "builtins.print": print,  # where a callback of skorch writes to
}
_FUNCTIONS |= {  # what scores and optimizers of a net refer to
    f"skorch.{module}.{name}": obj
    for module, prefix in (
        ("utils", "to_numpy"),
        ("utils", "_indexing_"),
        ("setter", "optimizer_setter"),
    )
    for name, obj in vars(sys.modules[f"skorch.{module}"]).items()
    if name.startswith(prefix)
}
_FUNCTION_NAMES = {id(obj): name for name, obj in _FUNCTIONS.items()}


def library_name(obj):
    """Return the name under which a class or function is saved; None if it is the user's own."""
    if id(obj) in _FUNCTION_NAMES:
        return _FUNCTION_NAMES[id(obj)]
    if not isinstance(obj, type):
        return None
    name = _name(obj)
    return name if _find(name) is obj else None


def library_object(name):
    """Return the class or function of a name that :func:`library_name` gave.

    Raises
    ------
    ValueError
        For any other name.
    """
    found = _FUNCTIONS.get(name) or _find(name)
    if found is None:
        raise ValueError(f"{name!r} is not among the classes and functions that may be loaded by name.")
    return found


def _find(name):
    """Return the class of a name, or None. Nothing is imported, and no attribute is followed."""
    kinds = (object,) if name in _CLASSES else ()
    kinds += tuple(k for prefix, own in _FAMILIES.items() if name.startswith(prefix) for k in own)
    module, _, attribute = name.rpartition(".")
    found = vars(sys.modules[module]).get(attribute) if module in sys.modules else None
    fits = isinstance(found, type) and issubclass(found, kinds) and _name(found) == name
    return found if fits else None


def _name(cls):
    return f"{cls.__module__}.{cls.__qualname__}"
