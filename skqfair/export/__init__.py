"""Export to ONNX: the model that was audited is the model that runs."""

from skqfair._optional import import_extra

for _module in ("onnx", "onnx_ir", "onnxruntime", "onnxscript"):
    import_extra(_module, "onnx")

from skqfair.export._classifier import OnnxClassifier  # noqa: E402
from skqfair.export._parity import parity_report  # noqa: E402
from skqfair.export._writer import to_onnx  # noqa: E402

__all__ = ["OnnxClassifier", "parity_report", "to_onnx"]
