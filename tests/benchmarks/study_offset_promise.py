"""Is the accuracy that offsets were allowed to cost kept on others? By confidence, on digits.

    python tests/benchmarks/study_offset_promise.py --splits 200

Of the digits 30 % train a logistic regression, half of the others fit the offsets, the rest is measured;
the digit is class and group. Prints a Markdown table.
"""

import argparse
import warnings

import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from skqfair import FairOffsetClassifier, fairness_violation_observed


def study(n_splits):
    """Return a row for each confidence, drop and split."""
    X, y = load_digits(return_X_y=True)
    rows = []
    for seed in range(n_splits):
        train_X, X_rest, train_y, y_rest = train_test_split(
            X, y, train_size=0.3, stratify=y, random_state=seed
        )
        fit_X, test_X, fit_y, test_y = train_test_split(
            X_rest, y_rest, test_size=0.5, stratify=y_rest, random_state=seed
        )
        net = FrozenEstimator(LogisticRegression(C=1e-4, max_iter=500).fit(train_X, train_y))
        before = net.predict(test_X)
        for confidence in (None, 0.8, 0.95):
            for drop in (0.01, 0.02):
                clf = FairOffsetClassifier(net, max_accuracy_drop=drop, confidence=confidence)
                clf.set_params(random_state=seed)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    after = clf.fit(fit_X, fit_y, sensitive_features=fit_y).predict(test_X)
                lost = np.mean(before == test_y) - np.mean(after == test_y)
                fvo = [
                    fairness_violation_observed(test_y, p, sensitive_features=test_y)
                    for p in (before, after)
                ]
                rows.append((str(confidence), drop, lost, lost <= drop, *fvo))
    columns = ["confidence", "allowed", "lost", "kept", "fvo_before", "fvo_after"]
    return pd.DataFrame(rows, columns=columns)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=int, default=200)
    table = study(parser.parse_args().splits).groupby(["confidence", "allowed"], sort=False).mean()
    print(table.reset_index().round(3).to_markdown(index=False))
