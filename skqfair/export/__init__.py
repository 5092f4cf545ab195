"""Export to ONNX: the model that was audited is the model that runs."""

import importlib

from skqfair._optional import import_extra

for _module in ("onnx", "onnx_ir", "onnxruntime", "onnxscript"):
    import_extra(_module, "onnx")

from skqfair.export._classifier import OnnxClassifier  # noqa: E402

__all__ = ["OnnxClassifier", "parity_report", "to_onnx"]

OnnxClassifier.__module__ = __name__  # the name in saved files, which no move of a file changes

_LATER = {"parity_report": "_parity", "to_onnx": "_writer"}  # with torch, which predictions do without


def __getattr__(name):
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)


def __dir__():
    return __all__
