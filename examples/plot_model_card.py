"""
What goes with a model when it is handed on?
============================================

A quantized census pipeline is to be given to somebody else: as a file that they can open without
trusting whoever wrote it, and with a card that says what rounding did to whom. The file is written with
skops, is opened in a fresh process, and predicts there what was audited here. The card has the tables of
the audit, and the sentences that only its author can write.

Run it with ``python examples/plot_model_card.py``; it writes ``model.skops`` and ``README.md`` into a
temporary folder, and saves ``model_card.png`` in the current one. It needs
``pip install 'skqfair[plot,save]'``.
"""

# sphinx_gallery_thumbnail_path = "_static/thumbs/model_card.png"

# %%
# A pipeline and its audit
# ------------------------
# Trained on one half of the people. The audit is on the other, which was used for nothing else.

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import skops.io
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skops.card import Card

import skqfair
from skqfair import CompressionAudit, QuantizedClassifier
from skqfair.datasets import load_adult
from skqfair.networks import make_classifier

adult = load_adult()
X, y, race = adult.data.select_dtypes("number"), adult.target, adult.sensitive_features["race"]
X_train, X_held, y_train, y_held, _, race_held = train_test_split(
    X, y, race, test_size=0.5, stratify=y + race.astype(str), random_state=0
)
net = make_classifier(module__hidden_sizes=(64, 32), lr=0.002, max_epochs=8)
scaler = StandardScaler().fit(X_train)
clf = QuantizedClassifier(net, weight_bits=3, random_state=0).fit(scaler.transform(X_train), y_train)
model = make_pipeline(scaler, clf)

rows = scaler.transform(X_held)
predictions = {"float": clf.float_classifier_.predict(rows), "3 bits": clf.predict(rows)}
audit = CompressionAudit.from_predictions(y_held, predictions, sensitive_features=race_held)
columns = ["count", "change", "change_low", "change_high"]
columns += [f"selection_rate_change{end}" for end in ("", "_low", "_high")]
print(audit.changes[columns].round(3).to_string())

# %%
# The file, and what opening it asks for
# --------------------------------------
# skops stores values, and names every class that is not its own. The list is short, and each name on it
# is one that the receiver can look up; nothing in the file runs before they agree.

folder = Path(tempfile.mkdtemp())
path = folder / "model.skops"
skops.io.dump(model, path)
print("asks to trust:", skops.io.get_untrusted_types(file=path))
print(f"{path.stat().st_size:,} bytes; the quantized network alone counts {clf.model_size_:,}")

RECEIVER = """
import sys
import numpy as np
import pandas as pd
import skops.io

model = skops.io.load(sys.argv[1], trusted=["skqfair.QuantizedClassifier"])
np.save(sys.argv[3], model.predict(pd.read_pickle(sys.argv[2])).astype(str))
"""
X_held.to_pickle(folder / "people.pkl")
files = [str(folder / name) for name in ("model.skops", "people.pkl", "labels.npy")]
subprocess.run([sys.executable, "-c", RECEIVER, *files], check=True)
received = np.load(folder / "labels.npy")
print(f"predictions that differ there: {(received != predictions['3 bits']).sum()} of {len(received)}")

# %%
# The card
# --------
# Its first part is the author's: no program knows what a model is for. ``to_model_card`` adds what was
# measured, with intervals.

card = Card(model, template=None)
card.add(
    **{
        "Intended use": "An exercise with census data of 1994. Not for decisions about people.",
        "Data": (
            "UCI Adult (Becker & Kohavi, 1996), numeric columns; half of the people trained the model, "
            "the other half measured it. Race as the census wrote it down."
        ),
        "Not measured": "Other years, other countries, groups within groups.",
        "File": (
            f"`model.skops`, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}..., "
            f"skqfair {skqfair.__version__}, `{json.dumps(clf.layer_bits_)}`"
        ),
    }
)
audit.to_model_card(card)
card.save(folder / "README.md")
print((folder / "README.md").read_text()[:1500])

# %%
# The picture of the audit
# ------------------------
# Accuracy of each group and what 3 bits changed of it, with simultaneous 95 % intervals. Accuracy hardly
# moved; the card says what else did: of three groups fewer people are selected, that is, predicted to
# earn more than $50,000, by two to four points.

figure = audit.plot()[0].figure
figure.savefig("model_card.png", dpi=110)
