"""Warnings name the user's line, however deep in the package they arise."""

import ast
import warnings

import pandas as pd
import pytest
import torch
from rooms import FILES
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_validate
from sklearn.pipeline import make_pipeline
from torch import nn

from skqfair import QuantizedClassifier, make_fairness_scorer
from skqfair.exceptions import NearestRoundingWarning, UnquantizedWeightsWarning
from skqfair.networks import make_classifier

X, Y = load_iris(return_X_y=True)


class Shifted(nn.Module):
    def __init__(self):
        super().__init__()
        self.places = nn.Parameter(torch.zeros(4, 4))
        self.output = nn.Linear(4, 3)

    def forward(self, X):
        return self.output(X @ self.places)


def lines_of(caught, category):
    found = [w.filename for w in caught if issubclass(w.category, category)]
    assert found
    return set(found)


@pytest.mark.parametrize("wrapped", [False, True])
def test_of_a_fit(wrapped):
    clf = QuantizedClassifier(make_classifier(Shifted, max_epochs=1), random_state=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (make_pipeline(clf) if wrapped else clf).fit(X, Y)
        clf.set_params(quantize_parameters={"places": 0}, rounding="gptq").fit(X, Y)
    assert lines_of(caught, UnquantizedWeightsWarning) == {__file__}
    assert lines_of(caught, NearestRoundingWarning) == {__file__}


def test_of_a_scorer_inside_scikit_learn():
    frame = pd.DataFrame(X)
    groups = pd.Series(["few"] * 2 + ["many"] * 148, index=frame.index)
    scorer = make_fairness_scorer(sensitive_features=groups)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cross_validate(LogisticRegression(max_iter=500), frame, Y, scoring=scorer, error_score="raise")
    assert {w.filename for w in caught} == {__file__}


def test_no_level_is_counted_by_hand():
    for path in FILES:
        calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
        if path.name not in ("_warnings.py", "_deprecation.py"):
            assert "stacklevel" not in {word.arg for call in calls for word in call.keywords}, path
