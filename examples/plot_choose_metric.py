"""
Which metric? Four gaps of the same predictions
===============================================

A network of 4 bits predicts who earns more than $50,000, on census data. Does it serve women and men
alike? Accuracy, the rate of those who are selected, of those rightly and of those wrongly selected give
different answers about the same predictions, because far fewer women in these data earn so much. The
figures are fairlearn's; the intervals say how sure each is.

Run it with ``python examples/plot_choose_metric.py``; it saves ``choose_metric.png`` in the current
folder.
"""

# sphinx_gallery_thumbnail_path = "_static/thumbs/choose_metric.png"

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from fairlearn.metrics import MetricFrame, false_positive_rate, selection_rate, true_positive_rate
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skqfair import QuantizedClassifier
from skqfair.datasets import load_adult
from skqfair.metrics import group_report
from skqfair.networks import make_classifier

adult = load_adult()
X, y = adult.data.select_dtypes("number"), (adult.target == ">50K").astype(int)
X_train, X_test, y_train, y_test, _, sex = train_test_split(
    X, y, adult.sensitive_features["sex"], stratify=y, random_state=0
)
clf = QuantizedClassifier(make_classifier(max_epochs=8, lr=0.002), weight_bits=4, random_state=0)
model = make_pipeline(StandardScaler(), clf).fit(X_train, y_train)
predicted = model.predict(X_test)
print(y_test.groupby(sex).agg(["size", "mean"]).round(3).rename(columns={"mean": "earn more"}))

# %%
# Four figures by group, with simultaneous 95 % intervals
# -------------------------------------------------------

rates = ["selection_rate", "true_positive_rate", "false_positive_rate"]
report = group_report(y_test, predicted, sensitive_features=sex, metrics=rates, random_state=0)
columns = ["accuracy", *rates]
print(report[columns].T.round(3))

# %%
# fairlearn gives the same figures.

frame = MetricFrame(
    metrics={
        "selection_rate": selection_rate,
        "true_positive_rate": true_positive_rate,
        "false_positive_rate": false_positive_rate,
    },
    y_true=y_test,
    y_pred=predicted,
    sensitive_features=sex,
)
assert np.allclose(frame.by_group[rates], report[rates])

# %%
# What each says
# --------------
# - **Accuracy**: its largest difference, FVO, is 13 points, and it is men who are served worse: "no" is
#   right for nine of ten women, whatever the network knows about them.
# - **Selection rate** (demographic parity): men are selected about twice as often. The labels play no
#   part in it.
# - **True and false positive rate** (equalized odds): of those who earn more, about as many women as men
#   are found, and of the others about as few are taken for rich; the differences are small beside the
#   others.
#
# They cannot all be equal where the groups differ in their labels. Choose by what a wrong prediction
# does to a person, before looking at results: see the page "Choosing a metric".

questions = {
    "accuracy": "who is predicted right?",
    "selection_rate": "who is selected?",
    "true_positive_rate": "of those who earn more:\nwho is found?",
    "false_positive_rate": "of those who do not:\nwho is selected?",
}
figure, axes = plt.subplots(1, 4, figsize=(11, 3.2), layout="constrained")
for ax, (name, question) in zip(axes, questions.items(), strict=True):
    low, high = report[f"{name}_low"], report[f"{name}_high"]
    bars = np.array([report[name] - low, high - report[name]])
    ax.bar(report.index.astype(str), report[name], yerr=bars, capsize=5, color=["C1", "C0"])
    gap = report[name].max() - report[name].min()
    ax.set(title=f"{question}\n", ylim=(0, 1), xlabel=f"{name.replace('_', ' ')}: gap {gap:.2f}")
figure.savefig("choose_metric.png", dpi=120)
print(pd.Series({n: report[n].max() - report[n].min() for n in columns}, name="gap").round(3))
