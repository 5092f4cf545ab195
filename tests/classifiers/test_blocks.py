"""A row's prediction does not depend on the rows beside it, and one row costs little."""

import contextlib

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from skqfair import QuantizedClassifier
from skqfair.classifiers import _base
from skqfair.networks import make_classifier


class BatchStatistics(nn.Module):
    """Normalised by its batch also in prediction."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(6, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.ReLU(), nn.Linear(8, 2)
        )

    def forward(self, X):
        return self.layers(X)


class RowsAttend(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, X):
        hidden = self.layer(X)
        return self.head(hidden + torch.softmax(hidden @ hidden.T / 3, 1) @ hidden)


class Other(np.ndarray):
    """An array of another class."""


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 2)

    def forward(self, X):
        return nn.functional.dropout(self.layer(X), 0.1)


@pytest.fixture(scope="module")
def data():
    X = np.random.default_rng(0).normal(size=(700, 6)).astype(np.float32)
    return X, (X[:, 0] > 0).astype(int)


@pytest.mark.parametrize("batch_size", [4096, 128, 20, 1])
@pytest.mark.parametrize("hidden", [(8,), (300, 300), (1100, 1100)])
def test_rows_do_not_depend_on_each_other(data, hidden, batch_size):
    X, y = data
    net = make_classifier(module__hidden_sizes=hidden, max_epochs=0, batch_size=batch_size)
    clf = QuantizedClassifier(net, weight_bits=4, random_state=0).fit(X[:200], y[:200])
    whole = clf.predict_proba(X)
    for rows in (slice(3, 4), slice(100, 117), slice(0, 699)):
        np.testing.assert_array_equal(clf.predict_proba(X[rows]), whole[rows])
    assert clf._block <= min(batch_size, 128)


def test_one_row_is_one_call_of_the_module_and_no_more_checks(data, monkeypatch):
    X, y = data
    clf = QuantizedClassifier(make_classifier(max_epochs=1), random_state=0).fit(X, y)
    expected, calls = clf.predict_proba(X)[:1], []
    clf.module_.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    checked = []
    monkeypatch.setattr(_base, "validate_rows", lambda *args, **options: checked.append(1) or args[1])
    np.testing.assert_array_equal(clf.predict_proba(X[:1]), expected)
    assert calls == [clf._block]
    assert not checked
    for other in (X[:1].astype(float), X[:1].tolist(), pd.DataFrame(X[:1]), X[:1].view(Other)):
        with contextlib.suppress(AttributeError, TypeError):
            clf.predict_proba(other)
    for wrong in (X[:0], X[:1, :5], X[0], X[:1] * np.nan, np.full((1, 6), np.inf, np.float32)):
        with contextlib.suppress(ValueError, IndexError, TypeError):
            clf.predict_proba(wrong)
    assert len(checked) == 9  # what scikit-learn has to check still is


def test_names_of_columns_are_still_asked_for(data):
    X, y = data
    clf = QuantizedClassifier(make_classifier(max_epochs=1), random_state=0)
    clf.fit(pd.DataFrame(X, columns=list("abcdef")), y)
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        clf.predict(X[:1])


@pytest.mark.parametrize("module", [BatchStatistics, RowsAttend, Noisy])
def test_where_rows_see_each_other_nothing_is_filled_up(data, module):
    X, y = data
    clf = QuantizedClassifier(make_classifier(module, max_epochs=3), weight_bits=None, random_state=0)
    clf.fit(X, y)
    assert clf._block is None
    if module is not Noisy:
        for n in (700, 300, 5):
            expected = clf.estimator_.predict_proba(X[:n])
            np.testing.assert_array_equal(clf.predict_proba(X[:n]).argmax(1), expected.argmax(1))
            with torch.no_grad():
                logits = torch.cat([clf.module_(batch) for batch in torch.as_tensor(X[:n]).split(128)])
            np.testing.assert_allclose(
                clf.decision_function(X[:n]), logits[:, 1] - logits[:, 0], atol=1e-5
            )


def test_nets_with_their_own_loop_go_in_blocks_too(data):
    X, y = data

    class Own(type(make_classifier())):
        def infer(self, x, **params):
            sizes.append(len(x))
            return super().infer(x, **params)

    sizes = []
    net = make_classifier(max_epochs=1, batch_size=256).get_params(deep=False)
    net = Own(**{name: value for name, value in net.items() if not name.startswith("_")})
    clf = QuantizedClassifier(net, random_state=0).fit(X, y)
    whole = clf.predict_proba(X)
    sizes.clear()
    np.testing.assert_array_equal(clf.predict_proba(X[5:6]), whole[5:6])
    assert sizes == [clf._block] == [128]
    np.testing.assert_array_equal(clf.float_classifier_.predict_proba(X[:3]).shape, (3, 2))


@pytest.mark.parametrize("module", [BatchStatistics, RowsAttend])
def test_the_exported_model_has_the_same_batches(data, module, tmp_path):
    pytest.importorskip("onnxscript")
    from skqfair.export import OnnxClassifier, to_onnx

    X, y = data
    net = make_classifier(module, max_epochs=3, batch_size=50)
    clf = QuantizedClassifier(net, weight_bits=8, random_state=0).fit(X, y)
    exported = OnnxClassifier(to_onnx(clf, tmp_path / "model.onnx"))
    for n in (700, 130, 7):
        np.testing.assert_allclose(exported.predict_proba(X[:n]), clf.predict_proba(X[:n]), atol=1e-5)


def test_a_frozen_net_with_a_callback_that_has_no_copy(data):
    import threading

    from sklearn.frozen import FrozenEstimator
    from skorch.callbacks import Callback

    class Locked(Callback):
        def initialize(self):
            self.lock_ = threading.Lock()
            return self

    X, y = data
    net = make_classifier(max_epochs=1, callbacks=[("locked", Locked())]).fit(X, y)
    before = [p.detach().clone() for p in net.module_.parameters()]
    clf = QuantizedClassifier(FrozenEstimator(net), weight_bits=2, random_state=0).fit(X, y)
    assert clf.estimator_ is not net
    assert clf.estimator_.module_ is not net.module_
    trained = clf.estimator_.optimizer_.param_groups[0]["params"]
    assert all(p is q for p, q in zip(trained, clf.estimator_.module_.parameters(), strict=True))
    assert all(p.equal(q) for p, q in zip(net.module_.parameters(), before, strict=True))
