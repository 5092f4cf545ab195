"""What all estimators offer beside fit and predict."""

import numpy as np
import pandas as pd
import pytest
from nets import skorch_net, small
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.preprocessing import LabelEncoder

from skqfair import FairQATClassifier, PrunedClassifier, QuantizationDiagnostics, QuantizedClassifier
from skqfair.networks import make_classifier

KINDS = {
    "quantized": QuantizedClassifier(small(), weight_bits=2, activation_bits=3, random_state=0),
    "qat": FairQATClassifier(small(), weight_bits=2, random_state=0),
    "pruned": PrunedClassifier(small(), amount=0.9, random_state=0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_float_classifier_is_the_float_net_with_labels(problem, kind):
    X, y, _ = problem
    frame = pd.DataFrame(X, columns=list("abcdef"))
    clf = clone(KINDS[kind]).fit(frame, y)
    whole = clf.float_classifier_
    np.testing.assert_allclose(whole.predict_proba(frame), clf.estimator_.predict_proba(X), atol=1e-6)
    positions = clf.estimator_.predict(X)
    np.testing.assert_array_equal(whole.predict(frame), clf.classes_[positions])
    assert whole.score(frame, y) == np.mean(clf.classes_[positions] == y)
    assert whole.decision_function(frame).shape == (400, 3)
    assert list(whole.feature_names_in_) == list("abcdef")
    assert set(whole.layer_bits_.values()) == {32}
    assert whole.model_size_ > clf.model_size_
    assert (whole.predict_proba(frame) != clf.predict_proba(frame)).any()
    again = QuantizedClassifier(clf.estimator, weight_bits=None, random_state=0).fit(frame, y)
    np.testing.assert_array_equal(again.predict_proba(frame), whole.predict_proba(frame))
    assert not hasattr(clone(clf), "float_classifier_")


def test_the_float_classifier_of_a_frozen_net(problem):
    X, y, _ = problem
    codes = LabelEncoder().fit_transform(y)
    net = skorch_net(max_epochs=2).fit(X, codes)
    clf = QuantizedClassifier(FrozenEstimator(net), weight_bits=2).fit(X, codes)
    np.testing.assert_array_equal(clf.float_classifier_.predict(X), net.predict(X))


@pytest.mark.parametrize("names", ["group", ["group"], ["group", "b"]])
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_groups_are_columns_of_X(problem, names, library):
    X, y, groups = problem
    frame = pd.DataFrame(X, columns=list("abcdef")).assign(group=pd.factorize(groups)[0])
    frame["b"] = (frame["b"] > 0).astype(np.float32)
    features = frame[names]
    if library == "polars":
        frame = pytest.importorskip("polars").from_pandas(frame)
    clf = FairQATClassifier(small(), sampling="balanced", finetune_epochs=1, random_state=0)
    named = clone(clf).fit(frame, y, sensitive_features=names)
    given = clf.fit(frame, y, sensitive_features=features)
    assert named.n_features_in_ == 7
    pd.testing.assert_frame_equal(named.cell_weights_, given.cell_weights_, check_names=False)
    np.testing.assert_array_equal(named.predict_proba(frame), given.predict_proba(frame))
    diagnostics = QuantizationDiagnostics(FrozenEstimator(named), n_eigenvalues=0, random_state=0)
    with pytest.warns(UserWarning, match="fewer than 64 samples"):
        diagnostics.fit(frame, y, sensitive_features=names)
    assert len(diagnostics.group_report_.loc["float"]) == len(given.cell_weights_)


def test_names_that_are_no_columns(problem):
    X, y, groups = problem
    clf = QuantizedClassifier(small(), random_state=0)
    with pytest.raises(ValueError, match=r"X has no column .'race'.; its columns are"):
        clf.fit(pd.DataFrame(X), y, sensitive_features="race")
    with pytest.raises(ValueError, match="names columns, so X must be a frame; got ndarray"):
        clf.fit(X, y, sensitive_features="race")
    with pytest.raises(ValueError, match=r"X has no column .'sax'.; its columns are"):
        clf.fit(pd.DataFrame(X, columns=list("abcdef")), y, sensitive_features=["a", "sax"])
    clf.fit(pd.DataFrame(X), y, sensitive_features=list(groups))  # a list of labels stays one


def test_weights_in_another_order_are_refused(problem):
    X, y, _ = problem
    weights = pd.Series(np.arange(1.0, 401.0)).iloc[::-1]
    with pytest.raises(ValueError, match="sample_weight has the index of X in another order"):
        QuantizedClassifier(small()).fit(pd.DataFrame(X), y, sample_weight=weights)


@pytest.mark.parametrize("kind", KINDS)
def test_stages_are_printed_if_asked_for(problem, capsys, kind):
    X, y, _ = problem
    clf = clone(KINDS[kind]).fit(X, y)
    assert capsys.readouterr().out == ""
    clf.set_params(verbose=1).fit(X, y)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"[{type(clf).__name__}] float training on 400 samples"
    assert len(lines) == 2


def test_representations_show_parameters_only():
    clf = QuantizedClassifier(make_classifier(module__hidden_sizes=(8,)))
    for text in (repr(clf), clf._repr_html_()):
        assert "_params_to_validate" not in text
        assert "module__hidden_sizes" in text
    assert clone(clf.estimator).get_params(deep=False) == clf.estimator.get_params(deep=False)
    with pytest.raises(ValueError, match="modul__hidden"):
        make_classifier(modul__hidden_sizes=(8,), module__n_features=2, module__n_classes=2).initialize()
