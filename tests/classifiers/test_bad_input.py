"""Every error names the argument, what came, and the remedy."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from nets import Resized, Sizes, WithSoftmax, small
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from skqfair import QuantizedClassifier
from skqfair.exceptions import CacheBypassWarning, ModuleOutputError, UntrainedNetworkError
from skqfair.networks import MLP, make_classifier


def change(X, value):
    X = X.copy()
    X[3, 2] = value
    return X


FIT = {
    "nan": (lambda X, y: {"X": change(X, np.nan)}, "Input X contains NaN"),
    "infinity": (lambda X, y: {"X": change(X, np.inf)}, "Input X contains infinity"),
    "beyond float32": (lambda X, y: {"X": change(X.astype(float), 1e300)}, "too large for dtype"),
    "empty": (lambda X, y: {"X": X[:0], "y": y[:0]}, "0 sample"),
    "text": (lambda X, y: {"X": np.char.add(X[:, :2].astype(str), "a")}, "Convert your data to numeric"),
    "one class": (
        lambda X, y: {"y": np.full(400, "a")},
        "y has one class only.*at least two.*StratifiedKFold",
    ),
    "y length": (lambda X, y: {"y": y[:-1]}, "y must have one label for each row of X"),
    "y numbers": (lambda X, y: {"y": np.linspace(0, 1, 400)}, "Unknown label type"),
    "y missing": (lambda X, y: {"y": np.where(np.arange(400) == 3, None, y)}, "y has 1 missing labels"),
    "groups length": (
        lambda X, y: {"sensitive_features": y[:-1]},
        "sensitive_features must have one entry for each sample: expected 400, got 399",
    ),
    "groups missing": (
        lambda X, y: {"sensitive_features": pd.Series(y).where(np.arange(400) > 3)},
        "sensitive_features: 4 of 400 values .* missing.*fillna",
    ),
    "weights": (lambda X, y: {"sample_weight": -np.ones(400)}, "sample_weight must be finite and >= 0"),
    "shuffled groups": (
        lambda X, y: {"X": pd.DataFrame(X), "sensitive_features": pd.Series(y).iloc[::-1]},
        "sensitive_features has the index of X in another order",
    ),
    "shuffled labels": (
        lambda X, y: {"X": pd.DataFrame(X), "y": pd.Series(y).iloc[::-1]},
        "y has the index of X in another order",
    ),
    "fit params": (lambda X, y: {"costs": np.ones(400)}, "fit parameter costs.*put such data into X"),
}


@pytest.mark.parametrize("case", FIT)
def test_data(problem, case):
    X, y, _ = problem
    make, message = FIT[case]
    arguments = {"X": X, "y": y} | make(X, y)
    clf = QuantizedClassifier(small(), random_state=0)
    with pytest.raises((ValueError, TypeError), match=message):
        clf.fit(arguments.pop("X"), arguments.pop("y"), **arguments)
    assert not hasattr(clf, "module_")


PARAMETERS = {
    **{
        f"weight_bits={b!r}": ({"weight_bits": b}, "'weight_bits' parameter.*Got")
        for b in (1, 0, 17, 3.5, "8")
    },
    **{
        f"activation_bits={b!r}": ({"activation_bits": b}, "'activation_bits'")
        for b in (1, 0, 17, 3.5, "8")
    },
    "calibration": ({"calibration": "entropy"}, "'calibration' parameter.*'entropy'"),
    **{
        f"granularity={g!r}": ({"granularity": g}, r"granularity must be one of .*\('per_group', n\)")
        for g in (
            *("per_row", "per_group", None, 32, ["per_group", 32]),
            *(("per_group", n) for n in (0, 1, -4, True, 8.0, "8", None)),
            *(("per_channel", 8), ("per_group",), ("per_group", 8, 8)),
        )
    },
    "calibration_size": ({"calibration_size": 0}, "'calibration_size' parameter"),
    "layer_bits": (
        {"layer_bits": {"conv*": 4}},
        r"'conv\*' matches no quantizable weight; the names are hidden0",
    ),
    "layer_bits value": (
        {"layer_bits": {"output": 1}},
        r"layer_bits\['output'\] must be an integer from 2 to 16",
    ),
    "layer_bits type": ({"layer_bits": 4}, "'layer_bits' parameter"),
    "memory": ({"memory": 3}, "'memory' parameter"),
    "random_state": ({"random_state": "x"}, "'random_state' parameter"),
}


@pytest.mark.parametrize("case", PARAMETERS)
def test_parameters(problem, case):
    X, y, _ = problem
    changes, message = PARAMETERS[case]
    with pytest.raises(ValueError, match=message):
        QuantizedClassifier(small(), **{"random_state": 0, **changes}).fit(X, y)


class Pair(MLP):
    def forward(self, x):
        return super().forward(x), x


class Halves(Resized):
    """Returns each logit twice."""

    def forward(self, x):
        return super().forward(x).repeat(1, 2)


class LogSoftmax(MLP):
    def forward(self, x):
        return super().forward(x).log_softmax(1)


class NoWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(nn.init.zeros_(nn.Parameter(nn.Linear(6, 3).weight.detach())))

    def forward(self, x):
        return x @ self.shift.T


SIZES = {"module__n_features": 6, "module__n_classes": 3}
CROSS = {"criterion": nn.CrossEntropyLoss}
NETS = {
    "tuple": ((Pair, CROSS | SIZES), "Pair returns a tuple; it must return one tensor.*only the logits"),
    "probabilities": (
        (WithSoftmax, CROSS),
        "returns probabilities, but .* takes logits; remove the softmax",
    ),
    "logits": (
        (MLP, SIZES),
        "MLP returns logits, but .* NLLLoss .* criterion=torch.nn.CrossEntropyLoss",
    ),
    "log-probabilities": ((LogSoftmax, SIZES), "returns log-probabilities, but"),
    "too many outputs": (
        (MLP, CROSS | SIZES | {"module__n_classes": 4}),
        r"y\s+has 3 classes.*Give its last layer 3",
    ),
    "one output": ((MLP, CROSS | SIZES | {"module__n_classes": 1}), r"shape \(8, 1\)"),
    "no weights": ((NoWeights, CROSS), "NoWeights has no quantizable weight"),
    "criterion": (
        (MLP, {"criterion": nn.MSELoss} | SIZES),
        "must be torch.nn.CrossEntropyLoss.*got MSELoss; set",
    ),
    "criterion instance": ((MLP, {"criterion": nn.MSELoss()} | SIZES), "got MSELoss"),
}


@pytest.mark.parametrize("case", NETS)
def test_networks(problem, case):
    X, y, _ = problem
    (module, options), message = NETS[case]
    net = NeuralNetClassifier(module, max_epochs=1, verbose=0, **options)
    with pytest.raises(ValueError, match=message):
        QuantizedClassifier(net, random_state=0).fit(X, y)


def test_outputs_are_checked_before_the_time_is_spent(problem, monkeypatch):
    X, y, _ = problem
    net = NeuralNetClassifier(MLP, **SIZES, verbose=0)
    monkeypatch.setattr(NeuralNetClassifier, "fit_loop", lambda *args, **kwargs: pytest.fail("trained"))
    with pytest.raises(ModuleOutputError):
        QuantizedClassifier(net, random_state=0).fit(X, y)


@pytest.mark.parametrize("estimator", [LogisticRegression(), MLP, NeuralNetRegressor(MLP), "net"])
def test_estimators_that_are_no_skorch_classifier(problem, estimator):
    X, y, _ = problem
    with pytest.raises(
        TypeError, match=r"estimator must be a skorch\.NeuralNetClassifier.*got .*make_classifier"
    ):
        QuantizedClassifier(estimator).fit(X, y)
    with pytest.raises(TypeError, match="estimator must be"):
        QuantizedClassifier(FrozenEstimator(LogisticRegression())).fit(X, y)


def test_untrained_nets_inside_a_frozen_estimator(problem):
    X, y, _ = problem
    initialised = NeuralNetClassifier(MLP, **CROSS, **SIZES).initialize()
    for net in (small(), initialised):
        with pytest.raises(UntrainedNetworkError, match=r"never been trained.*net\.fit\(X, y\)"):
            QuantizedClassifier(FrozenEstimator(net)).fit(X, y)
    assert issubclass(UntrainedNetworkError, NotFittedError)


def test_labels_unknown_to_a_frozen_net(problem):
    X, y, _ = problem
    net = small().fit(X, np.arange(400) % 3)
    with pytest.raises(
        ValueError,
        match=r"given network has no output for: \['high'.*\[0, 1, 2\].*classes=\[\.\.\.\]",
    ):
        QuantizedClassifier(FrozenEstimator(net)).fit(X, y)


def test_features_unknown_to_a_frozen_net(problem):
    X, _y, _ = problem
    net = small().fit(X, np.arange(400) % 3)
    with pytest.raises(ValueError, match=r"the module MLP fails on X of shape \(400, 5\)"):
        QuantizedClassifier(FrozenEstimator(net)).fit(X[:, :5], np.arange(400) % 3)


def test_several_modules(problem):
    class TwoModules(NeuralNetClassifier):
        def initialize_module(self):
            super().initialize_module()
            self.module2_ = nn.Linear(2, 2)
            return self

    X, y, _ = problem
    with pytest.raises(ValueError, match=r"\['module', 'module2'\]; only `module` would be quantized"):
        QuantizedClassifier(TwoModules(MLP, **CROSS, **SIZES, verbose=0), random_state=0).fit(X, y)


def test_diverged_training(problem):
    X, y, _ = problem
    net = make_classifier(lr=1e30, max_epochs=3)
    with pytest.raises(ValueError, match=r"training diverged.*not finite.*[Ll]ower the learning rate"):
        QuantizedClassifier(net, random_state=0).fit(X, y)


def test_prediction(problem):
    X, y, _ = problem
    clf = QuantizedClassifier(small(), random_state=0)
    for method in ("predict", "predict_proba", "decision_function"):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            getattr(clf, method)(X)
    clf.fit(X, y)
    with pytest.raises(ValueError, match="X has 5 features, but QuantizedClassifier is expecting 6"):
        clf.predict(X[:, :5])
    with pytest.raises(ValueError, match="Input X contains NaN"):
        clf.predict(change(X, np.nan))
    with pytest.raises(ValueError, match="0 sample"):
        clf.predict(X[:0])


def test_a_callback_that_hides_the_sizes_is_checked_after_training(problem):
    X, y, _ = problem
    net = NeuralNetClassifier(Halves, **CROSS, callbacks=[Sizes()], max_epochs=1, verbose=0)
    with pytest.raises(ModuleOutputError, match=r"returns shape \(8, 6\) for 8 samples, but y has 3"):
        QuantizedClassifier(net, random_state=0).fit(X, y)


def test_fresh_seeds_bypass_memory_with_a_warning(problem, tmp_path):
    X, y, _ = problem
    with pytest.warns(CacheBypassWarning, match="random_state=None.*set random_state to an integer"):
        QuantizedClassifier(small(), memory=str(tmp_path)).fit(X, y)


def test_sensitive_features_in_a_search_without_routing(problem):
    """With routing off the fit gets its groups sliced; asking for a routed scorer says what to do."""
    X, y, groups = problem
    assert not sklearn.get_config()["enable_metadata_routing"]
    search = GridSearchCV(
        QuantizedClassifier(small(), random_state=0, recalibrate_batchnorm=True),
        {"weight_bits": [4]},
        cv=2,
        error_score="raise",
    )
    search.fit(X, y, sensitive_features=groups)
