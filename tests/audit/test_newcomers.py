"""What somebody does who has read one page: models of other tools, few lines, figures by hand."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from skqfair import CompressionAudit
from skqfair.networks import TorchClassifier

RNG = np.random.default_rng(0)
N = 300
SEX = RNG.choice(["f", "m"], N, p=[0.3, 0.7])

SIX_LINES = """
from skqfair import CompressionAudit
from skqfair.export import OnnxClassifier
from skqfair.networks import TorchClassifier
models = {"float": TorchClassifier(module), "int8": OnnxClassifier("int8.onnx")}
audit = CompressionAudit.from_models(models, X, y, sensitive_features=sex)
audit.to_html("audit.html")
""".strip()


def by_hand(labels, y):
    """Return the accuracy of each group, in loops."""
    return {g: np.mean([a == b for a, b, s in zip(labels, y, SEX, strict=True) if s == g]) for g in "fm"}


def check(audit, predicted, y):
    for name, labels in predicted.items():
        hand = by_hand(labels, y)
        assert audit.groups.loc[name, "accuracy"].to_dict() == pytest.approx(hand)
        assert audit.models.loc[name, "fvo"] == pytest.approx(abs(hand["f"] - hand["m"]))
        for group in "fm" if name != "float" else ():
            lost = [
                a == c != b
                for a, b, c, s in zip(predicted["float"], labels, y, SEX, strict=True)
                if s == group
            ]
            assert audit.changes.loc[(name, group), "lost"] == sum(lost)


def test_a_torch_module_and_an_int8_file_in_six_lines(tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    tools = pytest.importorskip("onnxruntime.quantization")
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    X = RNG.normal(size=(N, 6)).astype(np.float32)
    with torch.no_grad():
        outputs = module(torch.as_tensor(X)).numpy()
    y = np.where(RNG.random(N) < 0.2, RNG.integers(0, 3, N), outputs.argmax(1))
    monkeypatch.chdir(tmp_path)
    weights = [p.detach().numpy() for p in module.parameters()]
    stored = [onnx.numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)]
    ends = [
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", size])]
        for name, size in (("x", 6), ("scores", 3))
    ]
    nodes = [
        onnx.helper.make_node("Gemm", ["x", "w0", "w1"], ["a"], transB=1),
        onnx.helper.make_node("Relu", ["a"], ["b"]),
        onnx.helper.make_node("Gemm", ["b", "w2", "w3"], ["scores"], transB=1),
    ]
    graph = onnx.helper.make_graph(nodes, "net", *ends, stored)
    opsets = [onnx.helper.make_opsetid("", 21)]
    onnx.save(onnx.helper.make_model(graph, ir_version=10, opset_imports=opsets), "float.onnx")
    tools.quantize_dynamic("float.onnx", "int8.onnx")
    assert len(SIX_LINES.splitlines()) <= 6
    names = {"module": module, "X": X, "y": y, "sex": SEX}
    exec(SIX_LINES, names)
    evaluator = onnx.reference.ReferenceEvaluator("int8.onnx")
    filled = np.concatenate([X, np.repeat(X[-1:], 2 * 256 - N, axis=0)])  # dynamic: batches matter
    scores = [evaluator.run(None, {"x": batch})[0] for batch in np.split(filled, 2)]
    predicted = {"float": outputs.argmax(1), "int8": np.concatenate(scores)[:N].argmax(1)}
    assert (predicted["float"] != predicted["int8"]).any()
    check(names["audit"], predicted, y)
    assert (tmp_path / "audit.html").read_text().startswith("<!DOCTYPE html>")


def test_one_command_from_a_table_to_a_page(tmp_path):
    y = RNG.integers(0, 2, N)
    shares = {"float": 0.1, "int8": 0.2}
    models = {name: np.where(RNG.random(N) < share, 1 - y, y) for name, share in shares.items()}
    pd.DataFrame({"y": y, "sex": SEX, **models}).to_csv(tmp_path / "predictions.csv", index=False)
    command = "audit predictions.csv --y-true y --reference float --compressed int8 --groups sex"
    command += " --html audit.html --json audit.json"
    run = [sys.executable, "-m", "skqfair", *command.split()]
    said = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    audit = CompressionAudit.from_json(tmp_path / "audit.json")
    check(audit, models, y)
    page = (tmp_path / "audit.html").read_text()
    assert said.splitlines() == audit.verdicts
    assert all(verdict in page for verdict in audit.verdicts)


class Reader(nn.Module):
    """An LSTM whose last state is read."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


@pytest.mark.filterwarnings(
    "ignore:torch.ao.quantization is deprecated:DeprecationWarning",
    "ignore:torch.quantize_per_tensor, :UserWarning",
    "ignore:TypedStorage is deprecated:UserWarning",
)
def test_dynamic_int8_of_an_lstm():
    torch.manual_seed(0)
    module = Reader().eval()
    int8 = torch.ao.quantization.quantize_dynamic(module, {nn.LSTM, nn.Linear}, dtype=torch.qint8)
    modules = {"float": module, "int8": int8}
    X = RNG.normal(size=(N, 5, 4)).astype(np.float32)
    batches = torch.as_tensor(X).split(100)
    with torch.no_grad():
        outputs = {
            name: torch.cat([net(batch) for batch in batches]).numpy() for name, net in modules.items()
        }
    assert np.abs(outputs["float"] - outputs["int8"]).max() > 0
    y = np.where(RNG.random(N) < 0.2, RNG.integers(0, 2, N), outputs["float"].argmax(1))
    models = {name: TorchClassifier(net, batch_size=100) for name, net in modules.items()}
    for name, model in models.items():
        np.testing.assert_allclose(model.decision_function(X), np.diff(outputs[name])[:, 0], atol=1e-5)
    audit = CompressionAudit.from_models(models, X, y, sensitive_features=SEX)
    check(audit, {name: output.argmax(1) for name, output in outputs.items()}, y)
    shift = outputs["int8"] - outputs["int8"].max(1, keepdims=True)
    logs = shift - np.log(np.exp(shift).sum(1, keepdims=True))
    assert audit.models.loc["int8", "log_loss"] == pytest.approx(-logs[np.arange(N), y].mean(), rel=1e-5)
