"""
Whom did compression harm? An answer from a table of predictions
=================================================================

An auditor gets a CSV: a row for each person, the true label, what the original model predicted, what
the compressed ones did, and the groups. Nothing else is needed, neither the models nor what made them.
One command makes a page for those who decide, and an exit status for a continuous integration.

Run it with ``python examples/plot_audit_csv.py``; page and picture are saved as ``audit.html`` and
``audit.png`` in the current folder.
"""

# sphinx_gallery_thumbnail_path = "_static/thumbs/audit_csv.png"

# %%
# The table
# ---------
# Here it comes from a network on census data, and from the same network at 4 and at 2 bits, on people
# that training has not seen. It could be anyone's.

from pathlib import Path
from tempfile import mkdtemp

import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skqfair import CompressionAudit, QuantizedClassifier
from skqfair.audit import main
from skqfair.datasets import load_adult
from skqfair.exceptions import AuditFailure
from skqfair.networks import make_classifier

adult = load_adult()
X_train, X_held, y_train, y_held, _, groups_held = train_test_split(
    adult.data,
    adult.target,
    adult.sensitive_features,
    test_size=0.5,
    stratify=adult.target,
    random_state=0,
)
preprocess = make_column_transformer(
    (StandardScaler(), ["age", "education-num", "capital-gain", "capital-loss", "hours-per-week"]),
    (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["marital-status", "occupation"]),
)
table = groups_held.assign(income=y_held)
folder = Path(mkdtemp())
for bits in (4, 2):
    net = make_classifier(module__hidden_sizes=(64, 32), lr=0.002, max_epochs=5)
    quantized = QuantizedClassifier(net, weight_bits=bits, memory=folder / "cache", random_state=0)
    model = make_pipeline(preprocess, quantized).fit(X_train, y_train)
    table[f"int{bits}"] = model.predict(X_held)
    table["float"] = quantized.float_classifier_.predict(model[0].transform(X_held))
predictions = folder / "predictions.csv"
table.to_csv(predictions, index=False)
print(table.head().to_string(index=False))

# %%
# One command
# -----------
# On a shell: ``skqfair audit predictions.csv --y-true income --reference float --compressed int4 int2
# --groups race sex --html audit.html --require max_accuracy_drop=0.02``. The exit status is 0 within
# the limits, 1 beyond one of them, 2 for bad input. From Python it is the same:

command = (
    f"audit {predictions} --y-true income --reference float --compressed int4 int2 --groups race sex"
)
status = main([*command.split(), "--html", "audit.html", "--require", "max_accuracy_drop=0.02"])
print(f"\nexit status {status}")

# %%
# The same in Python
# ------------------
# The tables behind the page are frames. An interval of a change that excludes 0 says that this group
# lost, or gained; ``detectable`` says how much a group of this size would have to lose for us to see
# it.

frame = pd.read_csv(predictions)
audit = CompressionAudit.from_predictions(
    frame["income"],
    {name: frame[name] for name in ("float", "int4", "int2")},
    sensitive_features=frame[["race", "sex"]],
)
columns = ["count", "lost", "gained", "change", "change_low", "change_high"]
print(audit.changes[columns].round(3).to_string())
print("\nThe smallest gap and loss that would be seen in 8 of 10 such samples")
print(audit.detectable.loc["int4"].round(3).to_string())

# %%
# A gate names each limit that is exceeded, with the figure and its interval. ``on="upper"`` is
# stricter: not the estimate but the end of its interval must be within.

try:
    audit.require(max_accuracy_drop=0.02, max_excess_gap=0.05, on="upper")
except AuditFailure as failure:
    print(failure)

# %%
# The picture: accuracy of each group, and how compression changed it, with intervals that hold
# together.

accuracy, change = audit.plot()
accuracy.figure.savefig("audit.png", dpi=120)

# %%
# A group whose interval includes 0 may have lost all the same: of few people little can be said, and
# the page says how little. No gap found is not fair.
