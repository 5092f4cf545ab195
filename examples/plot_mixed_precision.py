"""
Where do bits matter? Mixed precision under a budget
====================================================

Three bits per weight on average: the same in every layer, 8 in the first and the last layer and fewer
between them, or as many in each layer as the worst served group needs, ``layer_bits="auto"``. A small
convolutional network reads digits; the digit is the group, and weights are rounded to the nearest code,
without training. Five splits and trainings, each measured on 797 digits that it was not trained on.

Run it with ``python examples/plot_mixed_precision.py``; it saves ``mixed_precision.png`` in the current
folder.
"""

# sphinx_gallery_thumbnail_path = "_static/thumbs/mixed_precision.png"

import tempfile

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skqfair import QuantizedClassifier, fairness_violation_observed
from skqfair.networks import ConvNet, make_classifier

X, y = load_digits(return_X_y=True)
X = X.reshape(-1, 1, 8, 8).astype(np.float32) / 16
net = make_classifier(ConvNet, module__widths=(8, 16), max_epochs=20, lr=0.02)

# %%
# Five trainings
# --------------
# One float network for each seed, kept by ``memory``; all rules round the same one. The bits of "auto"
# are chosen from what the training data lose, group by group.

rules = {
    "3 bits everywhere": {"weight_bits": 3},
    "2 bits, ends 8": {"weight_bits": 2, "layer_bits": "first_last_8"},
    "auto, 3 on average": {"layer_bits": "auto", "bit_budget": 3},
}
cache, rows, chosen = tempfile.TemporaryDirectory(), [], None
for seed in range(5):
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, train_size=1000, stratify=y, random_state=seed
    )
    for rule, options in {"float": {"weight_bits": None}, **rules}.items():
        clf = QuantizedClassifier(net, random_state=seed, memory=cache.name, **options)
        predicted = clf.fit(X_train, y_train, sensitive_features=y_train).predict(X_test)
        fvo = fairness_violation_observed(y_test, predicted, sensitive_features=y_test)
        accuracy = np.mean(predicted == y_test)
        rows.append((rule, seed, clf.model_size_, accuracy, fvo))
    chosen = chosen or clf.layer_bits_
    print(f"seed {seed} of 0..4 measured", flush=True)
cache.cleanup()

results = pd.DataFrame(rows, columns=["rule", "seed", "bytes", "accuracy", "fvo"])
print(results.groupby("rule", sort=False)[["bytes", "accuracy", "fvo"]].mean().round(3).to_string())

# %%
# Which layers got how many, in the first training
# ------------------------------------------------

print(pd.Series(chosen, name="bits").to_string())

# %%
# The picture
# -----------
# Accuracy and FVO, the largest accuracy gap between two digits; bars are 95 % intervals of the mean over
# the five seeds. Bytes count codes, scales and all that stays in float, so that they are not quite the
# budget.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
names = list(results["rule"].unique())
for ax, column in zip(axes, ("accuracy", "fvo"), strict=True):
    for place, name in enumerate(names):
        values = results.loc[results["rule"] == name, column]
        half = stats.t.ppf(0.975, len(values) - 1) * values.sem()
        ax.errorbar(values.mean(), place, xerr=half, fmt="o", capsize=4, color=f"C{place}")
    ax.set_xlabel({"accuracy": "accuracy", "fvo": "FVO"}[column])
sizes = results.groupby("rule", sort=False)["bytes"].mean()
axes[0].set_yticks(range(len(names)), [f"{name}\n{sizes[name]:,.0f} bytes" for name in names])
axes[0].invert_yaxis()
figure.savefig("mixed_precision.png", dpi=120)
