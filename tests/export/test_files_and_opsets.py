"""What the file holds, what may become of it, and what older runtimes can read."""

import os
import stat
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from skqfair import QuantizedClassifier
from skqfair.exceptions import ExportError
from skqfair.export import OnnxClassifier, _session, _writer, parity_report, to_onnx
from skqfair.networks import MLP, ConvNet, make_classifier


@pytest.fixture(scope="module")
def rows():
    X = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    return X, (X[:, 0] > 0).astype(int)


@pytest.fixture(scope="module")
def images():
    X = np.random.default_rng(0).normal(size=(200, 3, 12, 12)).astype(np.float32)
    return X, (X[:, 0].mean((1, 2)) > 0).astype(int)


def fitted(module, X, y, **options):
    options = {"weight_bits": 8, "activation_bits": 8, "random_state": 0, **options}
    torch.manual_seed(0)
    return QuantizedClassifier(make_classifier(module, max_epochs=2), **options).fit(X, y)


@pytest.fixture(scope="module")
def of_rows(rows):
    return fitted(MLP, *rows)


@pytest.fixture(scope="module")
def of_images(images):
    torch.manual_seed(0)
    return fitted(ConvNet(3, 2, widths=(4, 8)), *images)


@pytest.fixture(scope="module")
def file(of_rows, tmp_path_factory):
    """Not to be changed."""
    return to_onnx(of_rows, tmp_path_factory.mktemp("rows") / "model.onnx")


class Twice(nn.Module):
    """Layers that are called twice."""

    def __init__(self, images):
        super().__init__()
        self.images = images
        kind = (lambda n: nn.Conv2d(n, 6, 3, padding=1)) if images else (lambda n: nn.Linear(n, 6))
        self.first, self.shared, self.output = kind(3 if images else 6), kind(6), nn.Linear(6, 2)

    def forward(self, x):
        x = torch.relu(self.shared(torch.relu(self.shared(torch.relu(self.first(x))))))
        return self.output(x.mean((2, 3)) if self.images else x)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("kind", ["rows", "images"])
def test_shared_layers_on_any_processor(request, tmp_path, monkeypatch, kind, exact):
    X, y = request.getfixturevalue(kind)
    here = _session._sums_are_exact()
    monkeypatch.setattr(_session, "_sums_are_exact", lambda: exact)
    torch.manual_seed(0)
    clf = fitted(Twice(kind == "images"), X, y)
    exported = OnnxClassifier(to_onnx(clf, tmp_path / "model.onnx", X_example=X))
    same = (exported.predict(X) == clf.predict(X)).mean()
    assert same >= 0.995 or (exact and not here)  # sums that are taken for exact and saturate
    stored = {tensor.name for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer}
    assert len([name for name in stored if name.startswith("shared.weight.codes")]) == 1


class Length(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 2)

    def forward(self, x):
        return self.layer(x.reshape(len(x), -1))


def test_a_fixed_number_of_samples_is_named(rows, tmp_path):
    with pytest.raises(ExportError, match=r"Length .* makes it a constant, as len\(x\).*x\.shape"):
        to_onnx(fitted(Length, *rows), tmp_path / "model.onnx")
    assert not os.listdir(tmp_path)


class Masked(nn.Module):
    """An encoder that leaves padding out; of nothing but padding it makes NaN."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 8, padding_idx=0)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
        self.output = nn.Linear(8, 2)

    def forward(self, x):
        mask = x == 0
        hidden = self.encoder(self.embed(x), src_key_padding_mask=mask)
        return self.output((hidden * ~mask[..., None]).sum(1) / (~mask).sum(1, keepdim=True))


@pytest.mark.filterwarnings("ignore:enable_nested_tensor", "ignore:The PyTorch API of nested tensors")
def test_an_encoder_with_a_mask_needs_no_example(tmp_path):
    ids = np.random.default_rng(0).integers(1, 20, (200, 7))
    ids[::2, 4:] = 0
    clf = fitted(Masked, ids, (ids[:, 0] > 9).astype(int), activation_bits=None)
    exported = OnnxClassifier(to_onnx(clf, tmp_path / "model.onnx"))
    np.testing.assert_allclose(exported.predict_proba(ids), clf.predict_proba(ids), atol=1e-5)


class Inverted(nn.Module):
    """A block of MobileNetV2."""

    def __init__(self, first, second, n_in, n_out, stride):
        super().__init__()
        wide = 3 * n_in
        self.layers = nn.Sequential(
            *(nn.Conv2d(n_in, wide, 1, bias=False), nn.BatchNorm2d(wide), first()),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            *(nn.BatchNorm2d(wide), second()),
            *(nn.Conv2d(wide, n_out, 1, bias=False), nn.BatchNorm2d(n_out)),
        )
        self.residual = stride == 1 and n_in == n_out

    def forward(self, x):
        return x + self.layers(x) if self.residual else self.layers(x)


class Mobile(nn.Module):
    """Every kind of activation, among them those that torch writes as several operators."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.SiLU()),
            Inverted(nn.ReLU, nn.ReLU6, 8, 8, 1),
            Inverted(nn.SiLU, nn.Hardswish, 8, 12, 2),
            Inverted(nn.LeakyReLU, nn.GELU, 12, 12, 1),
        )
        self.output = nn.Linear(12, 2)

    def forward(self, x):
        return self.output(self.layers(x).mean((2, 3)))


def roundings(path):
    """Return how many values are rounded, and the operators whose outputs are."""
    graph = onnx.load(path).graph
    made_by = {name: node for node in graph.node for name in node.output}
    quantizers = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    return len(quantizers), [made_by[n.input[0]].op_type for n in quantizers if n.input[0] in made_by]


def test_no_activation_is_rounded_twice(images, tmp_path):
    X, y = images
    clf = fitted(Mobile, X, y)
    to_onnx(clf, tmp_path / "plain.onnx")
    to_onnx(clf, tmp_path / "integer.onnx", X_example=X)
    n_inputs = 11  # ten convolutions and a linear layer
    plain, integer = (roundings(tmp_path / name) for name in ("plain.onnx", "integer.onnx"))
    assert plain[0] == n_inputs
    # besides: convolutions before an addition, and the sum before the mean
    assert integer[0] <= n_inputs + 4
    assert "Conv" in integer[1]
    before = [kind for kind in integer[1] if kind == "Conv"]
    assert len(before) <= 3
    exported = OnnxClassifier(tmp_path / "integer.onnx")
    report = parity_report(clf, exported, X, y, sensitive_features=y)
    assert report["agreement"].min() >= 0.995


FAST = {"rows": (13, 14, 16, 19, 21), "images": (13, 15, 17, 18, 20, 21)}
OLD = [
    pytest.param(kind, opset, marks=[] if opset in FAST[kind] else pytest.mark.slow)
    for kind in FAST
    for opset in range(13, 22)
]


@pytest.mark.parametrize(("kind", "opset"), OLD)
def test_old_operators(request, tmp_path, kind, opset):
    X, _ = request.getfixturevalue(kind)
    clf = request.getfixturevalue(f"of_{kind}")
    path = to_onnx(clf, tmp_path / "model.onnx", opset=opset, X_example=X)
    model = onnx.load(path)
    assert [entry.version for entry in model.opset_import] == [opset]
    onnx.checker.check_model(model)
    exported = OnnxClassifier(path)
    assert (exported.predict(X) == clf.predict(X)).mean() >= 0.995
    types = {tensor.data_type for tensor in model.graph.initializer if tensor.name.endswith(".codes")}
    assert types <= {onnx.TensorProto.INT8, onnx.TensorProto.INT32}


@pytest.mark.parametrize(("bits", "least"), [(2, 25), (4, 21), (12, 21), (8, 13)])
def test_the_integers_decide(rows, tmp_path, bits, least):
    clf = fitted(MLP, *rows, weight_bits=bits, activation_bits=None)
    with pytest.raises(ValueError, match=rf"opset must be an integer from {least}, the first for"):
        to_onnx(clf, tmp_path / "model.onnx", opset=least - 1)
    to_onnx(clf, tmp_path / "model.onnx", opset=least)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_operations_without_an_older_form(rows, tmp_path):
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.layer = nn.LayerNorm(6), nn.Linear(6, 2)

        def forward(self, x):
            return self.layer(self.norm(x))

    with pytest.raises(
        ExportError, match=r"cannot be written in opset 15: .*LayerNorm.*use 18 or a later"
    ):
        to_onnx(fitted(Normed, *rows), tmp_path / "model.onnx", opset=15)
    assert not os.listdir(tmp_path)


def test_permissions_are_kept(of_rows, file, tmp_path):
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~umask
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    path.chmod(0o600)
    to_onnx(of_rows, path)
    assert path.read_bytes() == file.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_paths(of_rows, tmp_path):
    clf = of_rows
    for path in (3, None, open):
        with pytest.raises(TypeError, match=f"path must be the path .* got {type(path).__name__}"):
            to_onnx(clf, path)
    link, target = tmp_path / "latest.onnx", tmp_path / "first.onnx"
    target.write_bytes(b"before")
    link.symlink_to(target)
    assert to_onnx(clf, link) == link
    assert link.is_symlink()
    OnnxClassifier(target).fit()


def test_nothing_half_written_stays(of_rows, tmp_path, monkeypatch):
    clf, path = of_rows, tmp_path / "model.onnx"
    for number, age in enumerate((2 * 3600, 5)):  # of a writer that was killed, and of one at work
        left = tmp_path / f".model.onnx.{number}.part"
        left.write_bytes(b"half")
        os.utime(left, (time.time() - age,) * 2)
    to_onnx(clf, path)
    assert sorted(os.listdir(tmp_path)) == [".model.onnx.1.part", "model.onnx"]

    def fail(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(_writer.os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        to_onnx(clf, path)
    assert sorted(os.listdir(tmp_path)) == [".model.onnx.1.part", "model.onnx"]


def test_weights_in_other_files_are_refused(file, tmp_path, monkeypatch):
    onnx.save(
        onnx.load(file),
        tmp_path / "split.onnx",
        save_as_external_data=True,
        location="w",
        size_threshold=0,
    )
    monkeypatch.chdir(tmp_path)  # where onnxruntime would look for it
    with pytest.raises(ValueError, match=r"split\.onnx' cannot be used: the weights .* in another file"):
        OnnxClassifier("split.onnx").fit()


def test_what_was_changed_is_refused(file):
    model = onnx.load(file)
    codes = next(t for t in model.graph.initializer if t.name.endswith("weight.codes"))
    raw = bytearray(codes.raw_data)
    raw[3] ^= 1
    codes.raw_data = bytes(raw)
    with pytest.raises(ValueError, match="is damaged or was changed: its digest is not"):
        OnnxClassifier(model.SerializeToString()).fit()
    content = bytearray(file.read_bytes())
    refused = 0
    places = np.random.default_rng(0).integers(0, len(content), 60)
    for place in places:
        content[place] ^= 4
        try:
            OnnxClassifier(bytes(content)).fit()
        except ValueError:
            refused += 1
        content[place] ^= 4
    assert refused >= 55  # the rest are metadata


def test_as_many_classes_as_outputs(file):
    model = onnx.load(file)
    entry = next(e for e in model.metadata_props if e.key == "skqfair.classes")
    entry.value = '{"dtype": "<i8", "values": [0, 1, 2]}'
    model.metadata_props.remove(next(e for e in model.metadata_props if e.key == "skqfair.digest"))
    with pytest.raises(ValueError, match="it has 2 outputs for 3 classes"):
        OnnxClassifier(model.SerializeToString()).fit()


def test_predictions_do_without_torch(rows, of_rows, file, tmp_path):
    X, _ = rows
    np.save(tmp_path / "X.npy", X)
    code = (
        "import sys, numpy; from skqfair.export import OnnxClassifier\n"
        f"labels = OnnxClassifier({str(file)!r}).predict(numpy.load({str(tmp_path / 'X.npy')!r}))\n"
        "print('torch' in sys.modules or 'skorch' in sys.modules, int(labels.sum()))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", str(int(of_rows.predict(X).sum()))]
