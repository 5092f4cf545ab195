"""All classifiers of the package, both criteria, and nets with methods of their own."""

import numpy as np
import pytest
import torch
from exports import codes
from nets import WithSoftmax, skorch_net
from sklearn.linear_model import LogisticRegression
from skorch import NeuralNetClassifier
from torch import nn

from skqfair import FairOffsetClassifier, FairQATClassifier, PrunedClassifier, QuantizedClassifier
from skqfair.exceptions import ExportError
from skqfair.export import OnnxClassifier, parity_report, to_onnx
from skqfair.networks import MLP, make_classifier

SMALL = {"module__hidden_sizes": (8,), "max_epochs": 2, "lr": 0.02}


@pytest.mark.parametrize("calibration", ["mse", "learned"])
def test_fine_tuned_classifiers(calibration, problem, tmp_path):
    X, y, groups = problem
    classifier = FairQATClassifier(
        make_classifier(**SMALL),
        weight_bits=4,
        calibration=calibration,
        finetune_epochs=2,
        random_state=0,
    ).fit(X, y, sensitive_features=groups)
    path = to_onnx(classifier, tmp_path / "model.onnx")
    deployed = OnnxClassifier(path)
    np.testing.assert_allclose(deployed.decision_function(X), classifier.decision_function(X), atol=1e-5)
    assert deployed.metadata_.estimator == "FairQATClassifier"
    for name, tensor in classifier.quantized_weights_.items():
        stored, dtype = codes(path, name)
        wanted = tensor.codes.numpy()
        assert dtype == "INT4"
        assert np.array_equal(stored, wanted) or np.array_equal(stored, wanted.T)


def test_fine_tuned_classifiers_with_quantized_inputs(problem, tmp_path):
    X, y, groups = problem
    classifier = FairQATClassifier(
        make_classifier(**SMALL),
        weight_bits=4,
        activation_bits=8,
        calibration="learned",
        finetune_epochs=2,
        random_state=0,
    ).fit(X, y, sensitive_features=groups)
    deployed = OnnxClassifier(to_onnx(classifier, tmp_path / "model.onnx", X_example=X[:100]))
    difference = np.abs(deployed.decision_function(X) - classifier.decision_function(X)).max(1)
    assert np.median(difference) < 1e-3
    assert (deployed.predict(X) == classifier.predict(X)).mean() >= 0.995


def test_pruned_classifiers(problem, tmp_path):
    X, y, _ = problem
    classifier = PrunedClassifier(make_classifier(**SMALL), amount=0.5, random_state=0).fit(X, y)
    deployed = OnnxClassifier(to_onnx(classifier, tmp_path / "model.onnx"))
    np.testing.assert_allclose(deployed.decision_function(X), classifier.decision_function(X), atol=1e-5)
    assert deployed.metadata_.estimator == "PrunedClassifier"
    assert set(deployed.metadata_.layer_bits.values()) == {32}


def test_modules_that_return_probabilities(problem, tmp_path):
    X, y, _ = problem
    net = NeuralNetClassifier(WithSoftmax, max_epochs=2, lr=0.1, verbose=0)
    classifier = QuantizedClassifier(net, weight_bits=8, random_state=0).fit(X, y)
    deployed = OnnxClassifier(to_onnx(classifier, tmp_path / "model.onnx"))
    assert deployed.metadata_.returns_logits is False
    with torch.no_grad():
        wanted = classifier.module_(torch.as_tensor(X)).numpy()
    np.testing.assert_allclose(deployed.predict_proba(X), wanted, atol=1e-6)
    np.testing.assert_allclose(deployed.decision_function(X), np.log(wanted), atol=1e-4)
    assert deployed.predict(X).tolist() == classifier.predict(X).tolist()


class Casting(NeuralNetClassifier):
    def infer(self, x, **fit_params):
        return super().infer(x.float(), **fit_params)


class Permuting(NeuralNetClassifier):
    def infer(self, x, **fit_params):
        return super().infer(x.flip(1), **fit_params)


class OwnPredict(NeuralNetClassifier):
    def predict(self, X):
        return np.zeros(len(X), dtype=int)


class OwnProbabilities(NeuralNetClassifier):
    def predict_proba(self, X):
        return np.full((len(X), 3), 1 / 3)


def of_net(kind, problem, **options):
    X, y, _ = problem
    net = skorch_net(kind, module__hidden_sizes=(8,), **options)
    return QuantizedClassifier(net, weight_bits=8, random_state=0).fit(X, y)


def test_methods_that_change_nothing_are_taken(problem, tmp_path):
    classifier, X = of_net(Casting, problem), problem[0]
    deployed = OnnxClassifier(to_onnx(classifier, tmp_path / "model.onnx"))
    np.testing.assert_allclose(deployed.decision_function(X), classifier.decision_function(X), atol=1e-5)


def test_methods_that_change_the_input_are_found_out(problem, tmp_path):
    classifier = of_net(Permuting, problem)
    for options in ({}, {"X_example": problem[0]}):
        with pytest.raises(ExportError, match=r"differences of outputs .* method infer"):
            to_onnx(classifier, tmp_path / "model.onnx", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [OwnPredict, OwnProbabilities])
def test_methods_that_predict_are_refused(kind, problem, tmp_path):
    method = "predict" if kind is OwnPredict else "predict_proba"
    with pytest.raises(ValueError, match=rf"predicts by {kind.__name__}\.{method}, which is Python"):
        to_onnx(of_net(kind, problem), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def softly(logits):
    return torch.softmax(logits / 2, dim=1)


def test_own_nonlinearities_are_refused(problem, tmp_path):
    classifier = of_net(NeuralNetClassifier, problem, predict_nonlinearity=softly)
    with pytest.raises(ValueError, match="predict_nonlinearity of its own, which is Python"):
        to_onnx(classifier, tmp_path / "model.onnx")


def test_the_file_follows_the_quantized_module(problem, tmp_path):
    """The file follows ``module_``, not the float net."""
    X = problem[0]
    classifier = of_net(NeuralNetClassifier, problem, module=MLP, criterion=nn.CrossEntropyLoss())
    with torch.no_grad():
        next(classifier.estimator_.module_.parameters()).zero_()
    deployed = OnnxClassifier(to_onnx(classifier, tmp_path / "model.onnx"))
    np.testing.assert_allclose(deployed.decision_function(X), classifier.decision_function(X), atol=1e-5)


@pytest.mark.filterwarnings("ignore::skqfair.exceptions.LimitedOffsetsWarning")
@pytest.mark.parametrize("options", [{"weight_bits": 3}, {"activation_bits": 8}])
def test_offsets_are_in_the_file(options, problem, tmp_path):
    X, y, groups = problem
    net = QuantizedClassifier(make_classifier(**SMALL), random_state=0, **options)
    clf = FairOffsetClassifier(net, max_accuracy_drop=0.2, cv=2, random_state=0).fit(X, y)
    assert clf.strength_ > 0
    deployed = OnnxClassifier(to_onnx(clf, tmp_path / "model.onnx"))
    difference = np.abs(deployed.decision_function(X) - clf.decision_function(X))
    assert np.median(difference) < 1e-4  # onnxruntime rounds biases to integers
    report = parity_report(clf, deployed, X, y, sensitive_features=groups)
    assert report.attrs["fvo"] == report.attrs["fvo_onnx"]
    without = OnnxClassifier(to_onnx(clf.estimator_, tmp_path / "without.onnx"))
    shift = deployed.decision_function(X) - without.decision_function(X)
    np.testing.assert_allclose(np.median(shift, 0), clf.offsets_, atol=1e-4)


@pytest.mark.filterwarnings("ignore::skqfair.exceptions.LimitedOffsetsWarning")
def test_offsets_in_no_network_are_refused(problem, tmp_path):
    X, y, _ = problem
    clf = FairOffsetClassifier(LogisticRegression(), cv=2, random_state=0).fit(X, y)
    with pytest.raises(TypeError, match="around a LogisticRegression, whose offsets are in no network"):
        to_onnx(clf, tmp_path / "model.onnx")
