"""
How many bits can this model lose, and who pays for it?
=======================================================

A census model is to run on a small device. Fewer bits for its weights make it smaller; on average its
accuracy hardly changes. Does that hold for every group of people? We search over bit widths with
``GridSearchCV``, score accuracy, FVO (the largest accuracy gap between two groups of race × sex) and
size, let the search take the smallest model within limits that we state, and then look at the result on
people whom neither the training nor the search has seen.

Run it with ``make demo``, or ``python examples/plot_bit_width_grid.py``; the picture is saved as
``bit_width_grid.png`` in the current folder.
"""

# sphinx_gallery_thumbnail_path = "_static/thumbs/bit_width_grid.png"

# %%
# Data: UCI Adult, shipped with the package
# -----------------------------------------
# A quarter of the people is put aside for the table at the end; the split keeps the shares of
# income and group. Race and sex are not given to the network: the preprocessing passes on the
# other columns only (of which "relationship", with its husbands and wives, gives sex away).

import tempfile

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skqfair import QuantizedClassifier
from skqfair.datasets import load_adult
from skqfair.displays import BitWidthDisplay
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
print(f"{len(X_train)} people to train and search on, {len(X_test)} held out")
groups_test.value_counts().rename("held out").to_frame()

# %%
# The pipeline
# ------------
# An ordinary scikit-learn pipeline that ends in the quantized network. ``memory`` keeps each
# fold's float network, so that the whole grid trains four networks: one for each fold and one for
# the refit.

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
pipeline = Pipeline(
    [
        ("preprocess", preprocess),
        ("clf", QuantizedClassifier(network, memory=cache.name, random_state=0)),
    ]
)

# %%
# The search
# ----------
# Accuracy, FVO and size are three scores. ``refit`` is our decision rule: the smallest model that
# loses at most half a point of accuracy against the best, with an FVO of at most 0.2, both
# cross-validated. The groups come as a frame whose index is that of the data.

bits = [None, 16, 8, 6, 4, 3, 2]
search = GridSearchCV(
    pipeline,
    {"clf__weight_bits": bits},
    scoring=fairness_counts_scorer(
        sensitive_features=groups_train, groups=groups_train, scoring={"size": model_size_scorer}
    ),
    refit=smallest_within(accuracy_drop=0.005, fvo=0.2),
    cv=StratifiedKFold(3, shuffle=True, random_state=0),
    error_score="raise",
    verbose=2,
)
search.fit(X_train, y_train)
chosen = search.best_params_["clf__weight_bits"]

found = pooled_report(search.cv_results_)[["fvo", "fvo_low", "fvo_high", "fvo_chance"]]
found.insert(0, "accuracy", search.cv_results_["mean_test_accuracy"])
found["bytes"] = -search.cv_results_["mean_test_size"].astype(int)
found.index = pd.Index(["float" if width is None else width for width in bits], name="bits")
print("\nCross-validated, by bit width (FVO of all out-of-fold predictions)")
print(found.round(4).to_string())
print("taken:", "float" if chosen is None else f"{chosen} bits")

# %%
# What each width costs on people held out
# ----------------------------------------
# For this table each width is fitted once more on all training data; the float network comes from
# the cache. FVO is a maximum over noisy accuracies: its interval is wide, and even a model that
# serves all groups alike has a positive one. ``fvo_chance`` is the 95 % quantile of that;
# ``equal_accuracy_p`` tests whether all groups could have one accuracy, with all of them, not
# with the two extremes only. ``flip_rate`` and ``excess_accuracy_gap`` are paired, against the
# float model.

predictions, sizes = {}, {}
for width in bits:
    model = search.best_estimator_.set_params(clf__weight_bits=width).fit(X_train, y_train)
    predictions[width] = model.predict(X_test)
    sizes[width] = model["clf"].model_size_

display = BitWidthDisplay.from_predictions(
    y_test, predictions, sensitive_features=groups_test, sizes=sizes, random_state=0
)
table = display.table_.rename(index={None: "float"})
print("\nHeld out, by bit width")
print(table.T.map(lambda value: f"{value:.3f}" if isinstance(value, float) else value).to_string())

# %%
# The picture: accuracy of all and of the worst group, FVO with its interval over what equal
# accuracy would show, and size.

display.figure_.savefig("bit_width_grid.png", dpi=120)
print("\nsaved: bit_width_grid.png")

# %%
# The chosen model, group by group
# --------------------------------
# Did the limits of the search hold on new people? The accuracy of each group, with intervals that
# hold together; then what quantization changed for each group against the float model, sample by
# sample.

report = group_report(y_test, predictions[chosen], sensitive_features=groups_test, random_state=0)
held = "within" if report.attrs["fvo"] <= 0.2 else "beyond"
print(f"\nThe chosen model on people held out: FVO {report.attrs['fvo']:.3f}, {held} the limit of 0.2")
print(report.iloc[:, :4].round(3).to_string())
low, high = report.attrs["fvo_interval"]
print(
    f"FVO interval {low:.3f} to {high:.3f}; p of equal accuracy {report.attrs['equal_accuracy_p']:.4f}"
)

print("\nWhat 2 bits change, by group, against the float model")
changes = change_report(y_test, predictions[None], predictions[2], sensitive_features=groups_test)
print(changes.iloc[:, :6].round(3).to_string())

# %%
# The changes as a picture: an interval that includes 0 shows no change of that group's accuracy.

fig, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharex=True, sharey=True, layout="constrained")
for ax, width in zip(axes, (8, 3, 2), strict=True):
    by_group = change_report(
        y_test, predictions[None], predictions[width], sensitive_features=groups_test
    )
    by_group.index = [", ".join(name) for name in by_group.index]
    errors = [by_group["change"] - by_group["change_low"], by_group["change_high"] - by_group["change"]]
    ax.errorbar(by_group["change"], by_group.index, xerr=errors, fmt="o", capsize=3)
    ax.axvline(0, color="0.7", lw=1)
    ax.set(title=f"{width} bits", xlabel="change of accuracy")

# %%
# Reading it
# ----------
# On these data, with one split and one training, quantization to 3 bits and more changes nothing
# that can be told from noise, for any group. At 2 bits accuracy falls by about a point; the large
# groups are where this shows, and the intervals of the small ones are too wide to say. Most of
# FVO is in the float model already: income is easier to predict where nearly everyone has the
# same label. That gap is real (the interval excludes 0, and the test rejects equal accuracy),
# although an FVO of this size by itself could be chance in groups as small as 27 people.
#
# A model within the limits is not thereby "fair": the limits are ours, and so is the choice of
# accuracy as what should be equal.

cache.cleanup()
