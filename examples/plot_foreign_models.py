"""
A model that was neither trained nor compressed here
====================================================

An auditor gets a torch module that a plain loop has trained, and two compressed versions: an int8 file
that onnxruntime's ``quantize_static`` wrote, and a module with dynamic int8 layers of ``torch.ao``. None
of the three knows skorch, scikit-learn or this package. Here each becomes a fitted classifier in one
line, gets a report by group, and the compressed ones are set beside the float one, layer by layer.

Run it with ``python examples/plot_foreign_models.py``; the picture is saved as ``foreign_models.png`` in
the current folder. It needs ``pip install 'skqfair[onnx]'``.
"""

# sphinx_gallery_thumbnail_path = "_static/thumbs/foreign_models.png"

# %%
# What others have made
# ---------------------
# A census model in plain torch. Rows are preprocessed once; the network sees arrays of float32.

import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import onnxruntime.quantization as ort_quantization
import torch
from onnxruntime.quantization.shape_inference import quant_pre_process
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import nn

from skqfair import QuantizationDiagnostics
from skqfair.datasets import load_adult
from skqfair.export import OnnxClassifier
from skqfair.metrics import change_report, group_report
from skqfair.networks import TorchClassifier

adult = load_adult()
X, y, groups = adult.data, adult.target, adult.sensitive_features
strata = y + groups["race"].astype(str) + groups["sex"].astype(str)
X_train, X_held, y_train, y_held, _, groups_held = train_test_split(
    X, y, groups, test_size=0.5, stratify=strata, random_state=0
)
race = groups_held["race"]

numbers = ["age", "education-num", "capital-gain", "capital-loss", "hours-per-week"]
words = ["workclass", "marital-status", "occupation", "relationship", "native-country"]
preprocess = make_column_transformer(
    (StandardScaler(), numbers),
    (
        make_pipeline(
            SimpleImputer(strategy="constant", fill_value="unknown"),
            OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=50, sparse_output=False),
        ),
        words,
    ),
)
Z_train = preprocess.fit_transform(X_train).astype("float32")
Z_held = preprocess.transform(X_held).astype("float32")
labels = np.unique(y_train)

torch.manual_seed(0)
module = nn.Sequential(
    *(nn.Linear(Z_train.shape[1], 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))
)
inputs = torch.as_tensor(Z_train)
targets = torch.tensor((y_train == labels[1]).to_numpy(), dtype=torch.float32)
optimizer = torch.optim.Adam(module.parameters(), lr=0.002)
for _epoch in range(8):
    for rows in torch.randperm(len(inputs)).split(256):
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(module(inputs[rows])[:, 0], targets[rows])
        loss.backward()
        optimizer.step()

# %%
# The vendor's converter: ``torch.onnx.export``, then ``quantize_static`` with 500 rows for calibration.

folder = Path(tempfile.mkdtemp())
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.onnx.export(
        module,
        (inputs[:2],),
        folder / "float.onnx",
        input_names=["rows"],
        dynamic_shapes=({0: torch.export.Dim("n")},),
        verbose=False,
    )


class Calibration(ort_quantization.CalibrationDataReader):
    """Hands out the rows that ranges are measured on."""

    def __init__(self, rows):
        self.batches = iter([{"rows": rows}])

    def get_next(self):
        return next(self.batches, None)


quant_pre_process(folder / "float.onnx", folder / "prepared.onnx")
ort_quantization.quantize_static(
    folder / "prepared.onnx", folder / "int8.onnx", Calibration(Z_train[:500]), per_channel=False
)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch.ao goes on in torchao
    dynamic = torch.ao.quantization.quantize_dynamic(module, {nn.Linear}, dtype=torch.qint8)

# %%
# One line each
# -------------
# The module returns one logit, and so do the others: that is found out. The labels are those of the
# census.

models = {
    "float": TorchClassifier(module, classes=labels),
    "onnxruntime int8": OnnxClassifier(folder / "int8.onnx", classes=labels),
    "torch.ao int8": TorchClassifier(dynamic, classes=labels),
}
predicted = {name: model.predict(Z_held) for name, model in models.items()}
reports = {
    name: group_report(y_held, found, sensitive_features=race, random_state=0)
    for name, found in predicted.items()
}
for name, report in reports.items():
    print(
        f"\n{name}: FVO {report.attrs['fvo']:.4f}, interval {np.round(report.attrs['fvo_interval'], 4)}"
    )
    print(report[["count", "accuracy", "accuracy_low", "accuracy_high"]].round(4).to_string())

# %%
# Whom did compression cost?
# --------------------------
# Paired, person by person: the change of each group's accuracy, with intervals that hold together.

for name in list(models)[1:]:
    change = change_report(y_held, predicted["float"], predicted[name], sensitive_features=race)
    print(f"\n{name} against the float module")
    print(change.round(4).to_string())

# %%
# Beside the float module
# -----------------------
# ``compressed=`` sets any fitted classifiers beside the float one: flips and excess loss by group, and
# what became of the weights of each layer where they can be read. ``weight_bits=()`` quantizes nothing
# here.

diagnostics = QuantizationDiagnostics(
    models["float"],
    compressed={name: models[name] for name in list(models)[1:]},
    weight_bits=(),
    n_eigenvalues=0,
    max_samples=200,
    random_state=0,
)
diagnostics.fit(Z_held, y_held, sensitive_features=race)
columns = [
    "count",
    "accuracy",
    "loss",
    "flip_rate",
    "excess_loss",
    "excess_loss_low",
    "excess_loss_high",
]
print()
print(diagnostics.group_report_[columns].round(5).to_string())
print()
print(diagnostics.layer_report_.round(3).to_string())
print("NaN because:", diagnostics.layer_report_.attrs["reasons"])

# %%
# The picture
# -----------
# Left: accuracy by group, with simultaneous 95 % intervals. Right: what compression did to the loss of
# each group, with paired intervals. An interval that holds 0 says that no cost was shown for that group
# on these people, not that there is none.

figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.8), sharey=True)
names = list(reports["float"].index)
for i, (name, report) in enumerate(reports.items()):
    rows = np.arange(len(names)) + 0.2 * (i - 1)
    errors = [
        report["accuracy"] - report["accuracy_low"],
        report["accuracy_high"] - report["accuracy"],
    ]
    left.errorbar(
        report["accuracy"], rows, xerr=errors, fmt="o", ms=4, capsize=2, label=name, color=f"C{i}"
    )
    if name != "float":
        costs = diagnostics.group_report_.loc[name]
        errors = [
            costs["excess_loss"] - costs["excess_loss_low"],
            costs["excess_loss_high"] - costs["excess_loss"],
        ]
        right.errorbar(costs["excess_loss"], rows, xerr=errors, fmt="o", ms=4, capsize=2, color=f"C{i}")
left.set_yticks(np.arange(len(names)), [f"{n} ({c})" for n, c in reports["float"]["count"].items()])
left.set_xlabel("accuracy on people held out")
left.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)
right.locator_params(axis="x", nbins=5)
right.axvline(0, color="0.6", lw=1)
right.set_xlabel("excess loss over the float module (nats)")
figure.tight_layout()
figure.savefig("foreign_models.png", dpi=120)
