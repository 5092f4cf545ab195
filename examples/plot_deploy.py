"""
Is the model on the device the one that was audited?
====================================================

A census model was quantized and audited by group. Now it has to run where there is no Python package for
training: a file and a runtime. Its owner asks whether the figures of the audit hold there. The model is
written as ONNX with integer weights, loaded in a fresh process that imports onnxruntime and numpy only,
and its predictions are compared with those of the audit, person by person and group by group.

Run it with ``python examples/plot_deploy.py``; the picture is saved as ``deploy.png`` in the current
folder. It needs ``pip install 'skqfair[onnx]'``.
"""

# sphinx_gallery_thumbnail_path = "_static/thumbs/deploy.png"

# %%
# The audit
# ---------
# The network is trained on one half of the data and audited on the other, which was used for nothing
# else. Weights have 4 bits, and inputs of layers 8, so that a runtime can compute in integers.

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skqfair import QuantizedClassifier
from skqfair.datasets import load_adult
from skqfair.export import OnnxClassifier, parity_report, to_onnx
from skqfair.metrics import group_report
from skqfair.networks import make_classifier

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

net = make_classifier(module__hidden_sizes=(64, 32), lr=0.002, max_epochs=8)
model = QuantizedClassifier(net, weight_bits=4, activation_bits=8, random_state=0)
model.fit(Z_train, y_train)
audited = model.predict(Z_held)
audit = group_report(y_held, audited, sensitive_features=race, random_state=0)
print("The audit")
print(audit.iloc[:, :4].round(4).to_string())
print(f"FVO {audit.attrs['fvo']:.4f}, interval {np.round(audit.attrs['fvo_interval'], 4)}")

# %%
# The file
# --------
# ``to_onnx`` writes the codes of the weights as 4-bit integers and the figures of the audit into the
# metadata. What the pipeline does before the network is not in the file: the device gets rows that are
# preprocessed, or does that itself.

folder = Path(tempfile.mkdtemp())
path = to_onnx(model, folder / "census.onnx", report=audit)
whole = QuantizedClassifier(net, weight_bits=None, random_state=0).fit(Z_train, y_train)
float_path = to_onnx(whole, folder / "census_float.onnx")
sizes = {"float": float_path.stat().st_size, "4 bits": path.stat().st_size}
print("\nBytes of the files:", sizes, " counted as model_size_:", model.model_size_)

# %%
# Parity
# ------
# ``OnnxClassifier`` runs the file as a scikit-learn classifier. ``parity_report`` compares it with the
# audited estimator and raises an error where a group's predictions, or FVO, differ by more than the
# limits.

deployed = OnnxClassifier(path)
parity = parity_report(model, deployed, Z_held, y_held, sensitive_features=race)
print("\nThe file and the estimator")
print(parity.round(5).to_string())
print(f"FVO {parity.attrs['fvo']:.5f}, of the file {parity.attrs['fvo_onnx']:.5f}")

# %%
# The device
# ----------
# A fresh process, with nothing but onnxruntime and numpy. It reads the labels from the metadata.

DEVICE = """
import json, sys
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
metadata = session.get_modelmeta().custom_metadata_map
labels = np.array(json.loads(metadata["skqfair.classes"])["values"])
logits = session.run(None, {"X": np.load(sys.argv[2])})[0]
np.save(sys.argv[3], labels[logits.argmax(axis=1)])
print(json.dumps({
    "torch": "torch" in sys.modules,
    "skqfair": "skqfair" in sys.modules,
    "version": json.loads(metadata["skqfair.version"]),
    "fvo of the audit": json.loads(metadata["skqfair.report"])["fvo"],
}))
"""
np.save(folder / "rows.npy", Z_held)
files = [str(folder / name) for name in ("census.onnx", "rows.npy", "labels.npy")]
device = subprocess.run(
    [sys.executable, "-c", DEVICE, *files], capture_output=True, text=True, check=True
)
said = json.loads(device.stdout)
print("\nThe device says", said)
on_device = np.load(folder / "labels.npy")
print(f"predictions that differ from the audit: {(on_device != audited).sum()} of {len(audited)}")

# %%
# Group by group
# --------------
# The whiskers are the simultaneous 95 % intervals of the audit. What the device does lies on top of
# the audit, far inside them: for these people the figures of the audit are the figures of the device.
# That is a statement about this file, this runtime and these rows. On another processor, run
# ``parity_report`` again.

found = group_report(y_held, on_device, sensitive_features=race, random_state=0)
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), width_ratios=(3, 1))
rows = np.arange(len(audit))
low, high = audit["accuracy"] - audit["accuracy_low"], audit["accuracy_high"] - audit["accuracy"]
left.errorbar(audit["accuracy"], rows, xerr=[low, high], fmt="o", capsize=3, label="audited estimator")
left.plot(found["accuracy"], rows, "x", ms=10, mew=2, color="C1", label="file on the device")
left.set_yticks(rows, [f"{name} ({count})" for name, count in audit["count"].items()])
left.set_xlabel("accuracy on people held out")
left.set_title(f"FVO {audit.attrs['fvo']:.3f} audited, {found.attrs['fvo']:.3f} on the device")
left.legend(loc="upper left")
right.bar(list(sizes), [size / 1000 for size in sizes.values()], color=["C2", "C0"])
right.set_ylabel("kB")
right.set_title("size of the file")
figure.tight_layout()
figure.savefig("deploy.png", dpi=120)
