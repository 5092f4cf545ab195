"""Networks of one logit, as skorch's NeuralNetBinaryClassifier trains them, in every estimator."""

import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import nn

from skqfair import (
    FairQATClassifier,
    PrunedClassifier,
    QuantizationDiagnostics,
    QuantizedClassifier,
)
from skqfair._seeding import draw_seed, seeded
from skqfair.exceptions import ModuleOutputError
from skqfair.export import OnnxClassifier, to_onnx
from skqfair.networks import make_classifier


class OneLogit(nn.Module):
    """Returns (n, 1), or (n,) where it is flat."""

    def __init__(self, flat=False, n_outputs=1, sigmoid=False):
        super().__init__()
        self.hidden, self.output = nn.Linear(6, 8), nn.Linear(8, n_outputs)
        self.last = nn.Sigmoid() if sigmoid else nn.Identity()
        self.flat = flat

    def forward(self, x):
        logit = self.last(self.output(torch.relu(self.hidden(x))))
        return logit[:, 0] if self.flat else logit


def net(**options):
    options = {"max_epochs": 15, "lr": 0.5, "verbose": 0, "train_split": None, **options}
    return NeuralNetBinaryClassifier(OneLogit, **options)


@pytest.fixture(scope="module")
def two_classes(problem):
    X, y, groups = problem
    return X, np.where(y == "low", "no", "yes"), groups


ESTIMATORS = {
    "8 bits": lambda net: QuantizedClassifier(net, activation_bits=8, random_state=0),
    "auto": lambda net: QuantizedClassifier(net, layer_bits="auto", bit_budget=4, random_state=0),
    "fairquant": lambda net: QuantizedClassifier(
        net, layer_bits="fairquant", bit_budget=4, random_state=0
    ),
    "qat": lambda net: FairQATClassifier(
        net, sampling="balanced", gap_penalty=0.1, accuracy_bound=0.5, random_state=0
    ),
    "validated": lambda net: FairQATClassifier(net, validation_fraction=0.2, random_state=0),
    "pruned": lambda net: PrunedClassifier(net, finetune_epochs=1, random_state=0),
}


FAST = ("8 bits", "qat", "pruned")  # a flat logit in one estimator of each class
MARKED = [
    pytest.param(name, flat, marks=pytest.mark.slow if flat and name not in FAST else [])
    for name in ESTIMATORS
    for flat in (False, True)
]


@pytest.mark.parametrize(("name", "flat"), MARKED)
def test_every_estimator(name, flat, two_classes, tmp_path):
    X, y, groups = two_classes
    clf = ESTIMATORS[name](net(module__flat=flat))
    clf.fit(X, y, sensitive_features=groups, sample_weight=np.arange(1.0, 401))
    with torch.no_grad():
        logit = clf.module_(torch.as_tensor(X)).reshape(-1).numpy()
    np.testing.assert_allclose(clf.decision_function(X), logit, atol=1e-5)
    np.testing.assert_allclose(clf.predict_proba(X)[:, 1], expit(logit), atol=1e-6)
    np.testing.assert_array_equal(clf.predict(X), np.where(logit > 0, "yes", "no"))
    assert clf.score(X, y) > 0.8
    exported = OnnxClassifier(to_onnx(clf, tmp_path / "model.onnx"))
    np.testing.assert_allclose(exported.decision_function(X), logit, atol=0.05)
    assert exported.classes_.tolist() == ["no", "yes"]


@pytest.mark.parametrize("split", [None, "default"])
def test_the_float_training_is_that_of_skorch(split, two_classes):
    X, y, _ = two_classes
    options = {} if split == "default" else {"train_split": None}
    alone = net(**options) if options else NeuralNetBinaryClassifier(OneLogit, verbose=0, lr=0.5)
    alone.set_params(max_epochs=3)
    clf = QuantizedClassifier(alone, weight_bits=None, random_state=0).fit(X, y)
    with seeded(draw_seed(0)):
        reference = alone.fit(X, (y == "yes").astype(np.float32))
    losses = reference.history[:, "train_loss"]
    np.testing.assert_allclose(clf.estimator_.history[:, "train_loss"], losses, rtol=1e-5)
    np.testing.assert_allclose(clf.predict_proba(X), reference.predict_proba(X), atol=1e-6)


@pytest.mark.filterwarnings("ignore::skqfair.exceptions.SmallGroupWarning")
def test_frozen_nets_are_not_trained_again(two_classes):
    X, y, groups = two_classes
    trained = net().fit(X, (y == "yes").astype(np.float32))
    clf = QuantizedClassifier(FrozenEstimator(trained), weight_bits=None).fit(X, y == "yes")
    np.testing.assert_allclose(clf.predict_proba(X), trained.predict_proba(X), atol=1e-6)
    assert clf.classes_.tolist() == [0, 1]
    diagnostics = QuantizationDiagnostics(FrozenEstimator(trained), weight_bits=4, random_state=0)
    report = diagnostics.fit(X, (y == "yes").astype(int), sensitive_features=groups).group_report_
    p = trained.predict_proba(X)[:, 1].astype(np.float64)
    losses = -np.log(np.where(y == "yes", p, 1 - p))
    assert report.loc[("float", "a"), "loss"] == pytest.approx(losses[groups == "a"].mean(), rel=1e-4)
    assert report.attrs["hessian_trace_method"] == {"float": "exact", 4: "exact"}


@pytest.mark.parametrize(
    ("estimator", "error", "message"),
    [
        (net(threshold=0.3), ValueError, "threshold=0.3 .*FixedThresholdClassifier"),
        (net(criterion=nn.CrossEntropyLoss), ValueError, "must be torch.nn.BCEWithLogitsLoss"),
        (make_classifier(criterion=nn.BCEWithLogitsLoss), ValueError, "NeuralNetBinaryClassifier"),
        (
            NeuralNetClassifier(OneLogit, criterion=nn.MSELoss),
            ValueError,
            "criterion of the net must be .* got MSELoss",
        ),
        (net(module__n_outputs=2), ModuleOutputError, r"returns shape \(8, 2\), but BCEWith"),
        (net(module__sigmoid=True), ModuleOutputError, "ends in a sigmoid"),
    ],
)
def test_nets_that_do_not_fit(estimator, error, message, two_classes):
    X, y, _ = two_classes
    with pytest.raises(error, match=message):
        QuantizedClassifier(estimator, random_state=0).fit(X, y)


def test_three_classes(problem):
    X, y, _ = problem
    with pytest.raises(ModuleOutputError, match="one logit, for two classes, but y has 3"):
        QuantizedClassifier(net(), random_state=0).fit(X, y)
