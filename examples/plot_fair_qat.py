"""
Can fine-tuning give the groups back what 2 bits took?
======================================================

At 2 bits the census model of the other example loses about a point of accuracy. Quantization-aware
training can win it back; while it does so, sampling or loss weights can shift its attention between
groups of race × sex. We search over bits, loss weights and sampling with ``GridSearchCV``, draw what
each candidate costs in accuracy, FVO (the largest accuracy gap between two groups) and bytes, choose
by a rule stated beforehand, and look at the choice on people that neither training nor search has
seen, beside the control that tells quantization and mitigation apart: the float network, fine-tuned
alike.

Run it with ``python examples/plot_fair_qat.py``; the picture is saved as ``fair_qat.png`` in the current
folder.
"""

# sphinx_gallery_thumbnail_path = "_static/thumbs/fair_qat.png"

# %%
# Data and pipeline
# -----------------
# As in the other example: race and sex are not given to the network. They go to ``fit``, which needs
# them for balancing, and to the scorer; prediction never needs them.

import tempfile

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skqfair import FairQATClassifier
from skqfair.datasets import load_adult
from skqfair.metrics import (
    change_report,
    fairness_counts_scorer,
    group_report,
    model_size_scorer,
    pooled_report,
    smallest_within,
)
from skqfair.networks import make_classifier

adult = load_adult()
X, y, groups = adult.data, adult.target, adult.sensitive_features
strata = y + groups["race"].astype(str) + groups["sex"].astype(str)
X_train, X_test, y_train, y_test, groups_train, groups_test = train_test_split(
    X, y, groups, test_size=0.25, stratify=strata, random_state=0
)

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
cache = tempfile.TemporaryDirectory()
network = make_classifier(module__hidden_sizes=(64, 32), lr=0.002, max_epochs=8)
clf = FairQATClassifier(network, finetune_epochs=3, memory=cache.name, random_state=0)
pipeline = Pipeline([("preprocess", preprocess), ("clf", clf)])

# %%
# The search
# ----------
# Every mitigation acts in the fine-tuning only, so one float network of each fold serves the
# whole grid. Sampling and loss weights on the same cells would compound: a list of two grids keeps
# them apart. ``weight_bits=None`` are the controls: float networks with the same fine-tuning.
#
# The rule: the smallest model that loses at most half a point of accuracy against the best, with an
# FVO of at most 0.2, both cross-validated.

bits = [None, 2]
grids = [
    {"clf__weight_bits": bits, "clf__mitigation_weight": [0.0, 1.0]},
    {"clf__weight_bits": bits, "clf__sampling": ["balanced"]},
]
search = GridSearchCV(
    pipeline,
    grids,
    scoring=fairness_counts_scorer(
        sensitive_features=groups_train, groups=groups_train, scoring={"size": model_size_scorer}
    ),
    refit=smallest_within(accuracy_drop=0.005, fvo=0.2),
    cv=StratifiedKFold(3, shuffle=True, random_state=0),
    error_score="raise",
)
search.fit(X_train, y_train, clf__sensitive_features=groups_train)

results = search.cv_results_
pooled = pooled_report(results)  # FVO of all out-of-fold predictions
candidates = pd.DataFrame(
    {
        "bits": [p["clf__weight_bits"] or "float" for p in results["params"]],
        "mitigation": [
            p.get("clf__sampling") or f"weight {p['clf__mitigation_weight']:g}"
            for p in results["params"]
        ],
        "accuracy": results["mean_test_accuracy"],
        "fvo": pooled["fvo"],
        "fvo_low": pooled["fvo_low"],
        "fvo_high": pooled["fvo_high"],
        "bytes": -results["mean_test_size"].astype(int),
    }
).replace({"mitigation": {"weight 0": "none"}})

# %%
# Which candidates are worth a look?
# ----------------------------------
# One is dominated if another is at least as good in accuracy, FVO and bytes, and better in one.

costs = np.column_stack([-candidates["accuracy"], candidates["fvo"], candidates["bytes"]])
worse_or_equal = (costs[:, None] >= costs[None]).all(2)
candidates["dominated"] = (worse_or_equal & (costs[:, None] > costs[None]).any(2)).any(1)
print(candidates.round(4).to_string())
chosen = candidates.iloc[search.best_index_]
print(f"\ntaken: {chosen['bits']} bits, {chosen['mitigation']}")

# %%
# The picture: each mitigation has a marker, each bit width a colour, and the area of a marker is the
# size of the model. Dominated candidates are grey, the float network without mitigation is the star.
# The bars are 95 % intervals of FVO of all out-of-fold predictions.

markers = {"none": "o", "weight 1": "^", "balanced": "s"}
colors = {"float": "tab:blue", 2: "tab:red"}
fig, ax = plt.subplots(figsize=(8, 5), layout="constrained")
for row in candidates.itertuples():
    color = "0.75" if row.dominated else colors[row.bits]
    plain = row.bits == "float" and row.mitigation == "none"
    marker = "*" if plain else markers[row.mitigation]
    ax.errorbar(
        row.fvo,
        row.accuracy,
        xerr=[[row.fvo - row.fvo_low], [row.fvo_high - row.fvo]],
        color=color,
        lw=0.6,
        zorder=1,
    )
    ax.scatter(row.fvo, row.accuracy, 30 + row.bytes / 150, color=color, marker=marker, zorder=2)
for name, marker in {"float, no mitigation": "*", **markers}.items():
    ax.scatter([], [], 40, color="k", marker=marker, label=name)
for width, color in colors.items():
    ax.scatter([], [], 40, color=color, label=width if width == "float" else f"{width} bits")
ax.scatter([], [], 40, color="0.75", label="dominated")
ax.set(xlabel="FVO (cross-validated)", ylabel="accuracy (cross-validated)")
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
fig.savefig("fair_qat.png", dpi=120)

# %%
# On people held out
# ------------------
# Four models, fitted on all training data: the float network; 2 bits without fine-tuning; the choice;
# and its control, the float network fine-tuned in the same way. The interval of FVO is wide because
# the smallest groups are.

options = {name.removeprefix("clf__"): value for name, value in search.best_params_.items()}
models = {
    "float": {"weight_bits": None, "finetune_epochs": 0},
    "2 bits, no fine-tuning": {"weight_bits": 2, "finetune_epochs": 0},
    "chosen": options,
    "float, fine-tuned alike": {**options, "weight_bits": None},
}
ready = search.best_estimator_["preprocess"]
predictions, rows = {}, {}
for name, changes in models.items():
    model = FairQATClassifier(
        network, **{"finetune_epochs": 3, "memory": cache.name, "random_state": 0, **changes}
    ).fit(ready.transform(X_train), y_train, sensitive_features=groups_train)
    predictions[name] = model.predict(ready.transform(X_test))
    report = group_report(y_test, predictions[name], sensitive_features=groups_test, random_state=0)
    rows[name] = {
        "accuracy": np.mean(predictions[name] == y_test),
        "worst group": report["accuracy"].min(),
        "fvo": report.attrs["fvo"],
        "fvo from": report.attrs["fvo_interval"][0],
        "fvo to": report.attrs["fvo_interval"][1],
        "bytes": model.model_size_,
    }
print("\nHeld out")
print(pd.DataFrame(rows).T.round(3).to_string())

# %%
# Before and after, group by group: the choice against 2 bits without fine-tuning, on the same people.
# An interval that includes 0 shows no change of that group's accuracy.

print("\nWhat fine-tuning and mitigation change, against 2 bits without them")
changes = change_report(
    y_test, predictions["2 bits, no fine-tuning"], predictions["chosen"], sensitive_features=groups_test
)
print(changes.iloc[:, :6].round(3).to_string())
print("\nWhat is left, against the float network")
left = change_report(y_test, predictions["float"], predictions["chosen"], sensitive_features=groups_test)
print(left.iloc[:, :6].round(3).to_string())

# %%
# Reading it
# ----------
# On these data the fine-tuning does what it should for accuracy: most of what 2 bits took comes back,
# at a tenth of the size. Balancing race by sex does not do what one might hope: no weight and no
# sampling lowers FVO below the interval of the network without, in the float controls either, and
# oversampling costs accuracy. That is no accident. The groups are unequal because their
# shares of high incomes are, and all are learned about equally well for what the columns say;
# attention was not what the small groups lacked. Where a group is badly learned because it is
# small, balancing helps: see the table on faces in the user guide.

cache.cleanup()
