"""What cannot be exported says why, and a file is whole or as it was."""

import os
import signal

import numpy as np
import pytest
import torch
from exports import fitted, mlp, rows
from onnx import TensorProto, helper
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skqfair import QuantizedClassifier
from skqfair.exceptions import ExportError
from skqfair.export import OnnxClassifier, to_onnx
from skqfair.networks import TorchClassifier

AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


class Operation(nn.Module):
    """A layer, and a function of its output."""

    def __init__(self, function):
        super().__init__()
        self.layer, self.function = nn.Linear(5, 3), function

    def forward(self, x):
        return self.function(self.layer(x))


def eigenvalues(z):
    return z + torch.linalg.eigvalsh(z.T @ z)


def branch(z):
    return z if z.sum() > 0 else -z


@torch.library.custom_op("skqfair_tests::twice", mutates_args=())
def twice(z: torch.Tensor) -> torch.Tensor:
    return z * 2


@twice.register_fake
def _(z):
    return torch.empty_like(z)


def own_operation(z):
    return torch.ops.skqfair_tests.twice(z)


def fixed(z):
    return z + torch.zeros(2, 3) if len(z) == 2 else z


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (eigenvalues, r"nothing for the operation aten\._linalg_eigh; replace it"),
        (torch.special.bessel_j0, r"nothing for the operation \w+\.bessel_j0; replace it"),
        (own_operation, r"nothing for the operation skqfair_tests\.twice; replace it"),
        (branch, r"Operation cannot be exported: .*data-dependent .*control flow"),
        (fixed, r"cannot"),
    ],
    ids=["eigenvalues", "bessel", "own", "branch", "fixed"],
)
def test_operations_that_onnx_lacks_are_named(function, message, tmp_path):
    classifier = fitted(Operation(function), rows())
    with pytest.raises(ExportError, match=message):
        to_onnx(classifier, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_estimators_that_are_none(simple, tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(NotFittedError):
        to_onnx(QuantizedClassifier(), path)
    pipeline = make_pipeline(StandardScaler(), simple)
    search = GridSearchCV(QuantizedClassifier(), {"weight_bits": [4]})
    for other in (pipeline, search, mlp(), None):
        with pytest.raises(TypeError, match=f"got {type(other).__name__}. Of a pipeline pass the last"):
            to_onnx(other, path)
    given = TorchClassifier(simple.estimator_.module_, classes=simple.classes_)
    with pytest.raises(TypeError, match=r"pass QuantizedClassifier\(estimator, weight_bits=None\)\.fit"):
        to_onnx(given, path)
    assert not list(tmp_path.iterdir())


def test_paths_that_cannot_be_written(simple, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing' does not exist; create it first"):
        to_onnx(simple, tmp_path / "missing" / "model.onnx")
    with pytest.raises(IsADirectoryError, match="must be a file"):
        to_onnx(simple, tmp_path)
    with pytest.raises(TypeError):
        to_onnx(simple, 3)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(AS_ROOT, reason="root may write anywhere")
def test_folders_that_are_read_only(simple, tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match="cannot be written to"):
            to_onnx(simple, tmp_path / "model.onnx")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opset": 20}, "opset must be an integer from 21, .*16 bits, to .* got 20"),
        ({"opset": 99}, "opset must be an integer from 21, .* got 99"),
        ({"opset": True}, "opset .* got True"),
        ({"opset": "21"}, "opset .* got '21'"),
        ({"report": {"fvo": 0.1}}, "report must be the frame .* got dict"),
        ({"X_example": rows(4, 6)}, "6 features"),
        ({"X_example": np.full((4, 5), np.nan)}, "NaN"),
        ({"X_example": rows(0)}, "0 sample"),
    ],
)
def test_arguments_that_do_not_fit(options, message, simple, tmp_path):
    with pytest.raises(ValueError, match=message):
        to_onnx(simple, tmp_path / "model.onnx", **options)
    assert not list(tmp_path.iterdir())


def test_two_bits_need_their_opset(tmp_path):
    classifier = fitted(mlp(), rows(), weight_bits=2)
    with pytest.raises(ValueError, match="opset must be an integer from 25, the first for weights of 2"):
        to_onnx(classifier, tmp_path / "model.onnx", opset=24)


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(name, simple, tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, name, fail)
    with pytest.raises(OSError, match="No space left"):
        to_onnx(simple, path)
    assert path.read_bytes() == b"old"
    assert [child.name for child in tmp_path.iterdir()] == ["model.onnx"]


def test_new_files_are_readable_as_the_umask_says(simple, simple_path, tmp_path):
    path = tmp_path / "model.onnx"
    before = os.umask(0o027)
    try:
        assert to_onnx(simple, str(path)) == str(path)
    finally:
        os.umask(before)
    assert path.read_bytes() == simple_path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o640
    assert [child.name for child in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_an_export_that_is_killed_leaves_the_old_file(tmp_path, new_processes):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    code = """
import os, signal
from pathlib import Path
from skqfair import _files

os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
_files.write_whole(Path("model.onnx"), b"new" * 1000)
"""
    new_processes.run(code, tmp_path, status=signal.SIGKILL)
    assert path.read_bytes() == b"old"


def test_a_missing_extra_is_named(tmp_path, new_processes):
    code = """
import sys
sys.modules[{!r}] = None
import skqfair
try:
    import skqfair.export
except ImportError as error:
    print(error)
"""
    for module in ("onnxruntime", "onnxscript"):
        said = new_processes.run(code.format(module), tmp_path)
        assert "pip install 'skqfair[onnx]'" in said


def without_metadata():
    """A valid model that this package wrote, cut off before its metadata."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 5]) for name in "XY"]
    graph = helper.make_graph([helper.make_node("Relu", ["X"], ["Y"])], "g", ends[:1], ends[1:])
    options = {"opset_imports": [helper.make_opsetid("", 21)], "producer_name": "skqfair"}
    return helper.make_model(graph, ir_version=10, **options).SerializeToString()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated or no ONNX model"),
        (np.random.default_rng(0).bytes(5000), "truncated or no ONNX model"),
        (b"<html>not found</html>", "truncated or no ONNX model"),
        (without_metadata(), "no metadata of skqfair; write it with skqfair.export.to_onnx"),
    ],
    ids=["empty", "random", "page", "cut off"],
)
def test_files_that_are_no_export(content, message, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    for source in (path, str(path), content):
        with pytest.raises(ValueError, match=f"cannot be (loaded|used).*{message}"):
            OnnxClassifier(source).fit()


def test_truncated_files_at_any_length(simple_path):
    content = simple_path.read_bytes()
    for length in [*range(0, len(content), 61), *range(len(content) - 60, len(content))]:
        with pytest.raises(ValueError, match=r"cannot be (loaded|used)"):
            OnnxClassifier(content[:length]).fit()


def test_files_of_another_format(simple_path):
    content = simple_path.read_bytes()
    assert content.count(b"skqfair.format\x12\x011") == 1
    other = content.replace(b"skqfair.format\x12\x011", b"skqfair.format\x12\x012")
    with pytest.raises(ValueError, match=r"in format 2, and skqfair .* reads format 1; export the"):
        OnnxClassifier(other).fit()
    with pytest.raises(ValueError, match=r"metadata lack .'classes'.; export the estimator again"):
        OnnxClassifier(content.replace(b"skqfair.classes", b"skqfair.clasped")).fit()


def test_sources_that_are_no_paths(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"there is no file .*missing.onnx'; write it with to_onnx"
    ):
        OnnxClassifier(tmp_path / "missing.onnx").fit()
    with pytest.raises(FileNotFoundError, match="there is no file"):
        OnnxClassifier(tmp_path).fit()
    with pytest.raises(TypeError, match="path must be the path of an ONNX file or its bytes; got int"):
        OnnxClassifier(3).fit()
