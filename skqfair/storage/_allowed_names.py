"""Classes and functions that a saved estimator may refer to by name: these, and no others."""

import importlib
import sys
from types import BuiltinFunctionType, FunctionType

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Dataset

__all__ = ["PUBLIC_NAMES", "is_instance_class", "library_name", "library_object"]

PUBLIC_NAMES = {  # of the package's own classes, wherever their files are
    *("skqfair.FairQATClassifier", "skqfair.PrunedClassifier", "skqfair.QuantizationDiagnostics"),
    *("skqfair.QuantizedClassifier", "skqfair.diagnostics.Version", "skqfair.networks.BatchLoader"),
    *("skqfair.networks.ConvNet", "skqfair.networks.MLP", "skqfair.networks.ResidualBlock"),
    *("skqfair.networks.ImageAugmentation", "skqfair.networks.TorchClassifier"),
    *("skqfair.networks.BothProbabilities", "skqfair.FairOffsetClassifier"),
    *("skqfair.networks.TensorNetClassifier", "skqfair.quantization.ActivationQuantizer"),
    *("skqfair.networks.TensorData", "skqfair.quantization.QuantizedTensor"),
    "skqfair.export.OnnxClassifier",
}
# Nothing here imports, unpickles or runs what it is given: no loader, no checkpoint, no compiler.
_CLASSES = PUBLIC_NAMES | {
    *(f"builtins.{name}" for name in ("bool", "int", "float", "str", "list", "dict", "tuple", "set")),
    *(f"sklearn.utils._metadata_requests.{name}Request" for name in ("Metadata", "MethodMetadata")),
    *("sklearn.frozen._frozen.FrozenEstimator", "skorch.classifier.NeuralNetClassifier"),
    "skorch.classifier.NeuralNetBinaryClassifier",
    *("skorch.dataset.Dataset", "skorch.dataset.ValidSplit", "torch.utils.data.dataloader.DataLoader"),
    *(f"skorch.callbacks.logging.{name}" for name in ("EpochTimer", "PrintLog", "ProgressBar")),
    *(f"skorch.callbacks.scoring.{name}Scoring" for name in ("Batch", "Epoch", "Passthrough")),
    *("skorch.callbacks.lr_scheduler.LRScheduler", "skorch.callbacks.training.EarlyStopping"),
    *("skorch.callbacks.regularization.GradientNormClipping",),
    "skorch.callbacks.training.InputShapeSetter",
}
_FAMILIES = {"torch.nn.modules.": nn.Module, "torch.optim.": (Optimizer, LRScheduler)}
_INSTANCES = (nn.Module, NeuralNet, Callback, Optimizer, LRScheduler, Dataset, DataLoader)


def _is_function(obj):
    """Tell whether this is a function of torch.nn.functional, not one that it imports."""
    return (isinstance(obj, FunctionType) and obj.__module__ == functional.__name__) or (
        isinstance(obj, BuiltinFunctionType) and obj.__module__ in ("torch", "torch._C._nn")
    )


_ELEMENTWISE = ("abs", "cos", "erf", "exp", "relu", "sigmoid", "sign", "sin", "softmax", "sqrt", "tanh")
_FUNCTIONS = {f"torch.{name}": getattr(torch, name) for name in _ELEMENTWISE}
_FUNCTIONS |= {
    f"torch.nn.functional.{name}": obj
    for name, obj in vars(functional).items()
    if not name.startswith("_") and _is_function(obj)
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
_FUNCTIONS["builtins.print"] = print  # where a callback of skorch writes to
_FUNCTION_NAMES = {id(obj): name for name, obj in _FUNCTIONS.items()}


def library_name(obj):
    """Return the name under which a class or function is saved; None if it is the user's own."""
    if id(obj) in _FUNCTION_NAMES:
        return _FUNCTION_NAMES[id(obj)]
    name = _name(obj) if isinstance(obj, type) else None
    return name if name and _find(name) is obj else None


def library_object(name):
    """Return the class or function of a name that :func:`library_name` gave, or raise ValueError."""
    found = _FUNCTIONS.get(name) or _find(name)
    if found is None:
        raise ValueError(f"{name!r} is not among the classes and functions that may be loaded by name.")
    return found


def is_instance_class(cls):
    """Tell whether objects of a class may be saved by their attributes."""
    if not isinstance(cls, type) or issubclass(cls, (list, dict, tuple, set, str, int, float)):
        return False
    own = issubclass(cls, _INSTANCES) or hasattr(cls, "_is_saved_by_attributes")
    return own or library_name(cls) is not None


def _find(name):
    """Return the class of a name, or None; no module of others is imported for it."""
    kinds = (object,) if name in _CLASSES else ()
    kinds += tuple(kind for prefix, kind in _FAMILIES.items() if name.startswith(prefix))
    module, _, attribute = name.rpartition(".")
    if name in PUBLIC_NAMES:
        importlib.import_module(module)
    if module not in sys.modules or not kinds:
        return None
    found = getattr(sys.modules[module], attribute, None)
    return (
        found if isinstance(found, type) and issubclass(found, kinds) and _name(found) == name else None
    )


def _name(cls):
    return f"{cls.__module__}.{cls.__qualname__}"
