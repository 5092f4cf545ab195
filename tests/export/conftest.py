import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # exports

for module in ("onnx", "onnx_ir", "onnxruntime", "onnxscript"):
    pytest.importorskip(module)

from exports import fitted, mlp, rows  # noqa: E402

from skqfair.export import to_onnx  # noqa: E402


@pytest.fixture(scope="session")
def simple():
    """A classifier of rows with 4-bit weights."""
    return fitted(mlp(), rows(), weight_bits=4)


@pytest.fixture(scope="session")
def simple_path(simple, tmp_path_factory):
    """Its file; not to be changed."""
    return to_onnx(simple, tmp_path_factory.mktemp("simple") / "simple.onnx")


@pytest.fixture(scope="session")
def integer():
    """A classifier of rows with 8-bit weights and inputs."""
    return fitted(mlp(), rows(), weight_bits=8, activation_bits=8)


@pytest.fixture(scope="session")
def integer_path(integer, tmp_path_factory):
    """Its file; not to be changed."""
    return to_onnx(integer, tmp_path_factory.mktemp("integer") / "integer.onnx")
