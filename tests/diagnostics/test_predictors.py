"""Models that only predict: exported ones."""

import numpy as np
import pandas as pd
import pytest
from sklearn.frozen import FrozenEstimator

from skqfair import QuantizationDiagnostics, QuantizedClassifier
from skqfair.exceptions import NoCurvatureWarning
from skqfair.export import OnnxClassifier, to_onnx
from skqfair.networks import make_classifier

FORWARD = ["count", "accuracy", "loss", "logit_variance", "margin", "boundary_closeness", "confidence"]


@pytest.fixture(scope="module")
def estimator(people):
    net = make_classifier(module__hidden_sizes=(8,), max_epochs=3)
    return QuantizedClassifier(net, weight_bits=4, random_state=0).fit(*people[:2])


@pytest.fixture(scope="module")
def deployed(estimator, tmp_path_factory):
    return OnnxClassifier(to_onnx(estimator, tmp_path_factory.mktemp("model") / "model.onnx"))


@pytest.fixture(scope="module")
def people():
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(300, 4)), columns=list("abcd"))
    y = np.where(X["a"] + 0.5 * rng.normal(size=300) > 0, "yes", "no")
    return X, y, np.where(X["b"] > 0.5, "few", "many")


def diagnosed(estimator, people):
    X, y, groups = people
    diagnostics = QuantizationDiagnostics(FrozenEstimator(estimator), random_state=0)
    with pytest.warns(NoCurvatureWarning, match=f"{type(estimator).__name__} only predicts"):
        return diagnostics.fit(X, y, sensitive_features=groups)


def test_exported_model_has_the_forward_columns_of_its_estimator(people, estimator, deployed):
    X, y, groups = people
    found = diagnosed(deployed, people)
    whole = QuantizationDiagnostics(FrozenEstimator(estimator), random_state=0)
    whole.fit(X, y, sensitive_features=groups)
    assert list(found.group_report_.index) == [(4, "few"), (4, "many")]
    wanted = whole.group_report_.loc[[(4, "few"), (4, "many")]]
    pd.testing.assert_frame_equal(found.group_report_[FORWARD].loc[4], wanted[FORWARD].loc[4], rtol=1e-5)
    assert list(found.group_report_.columns) == list(wanted.columns)
    assert found.group_report_.drop(columns=[*FORWARD, "n_matched"]).isna().all(axis=None)
    names = ["logit_variance", "margin", "boundary_closeness", "confidence"]
    assert list(found.get_feature_names_out()) == [f"{name}_4bit" for name in names]
    wanted = whole.transform(X)[
        :, [list(whole.get_feature_names_out()).index(f"{n}_4bit") for n in names]
    ]
    np.testing.assert_allclose(found.transform(X), wanted, atol=1e-5)
    for table in (found.layer_report_, found.attribution_, found.hessian_eigenvalues_):
        assert table.empty
