"""Samples that are read by batch: equal results of all kinds of X, and little memory."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import skqfair._rows as rows_module
from skqfair import FairQATClassifier, PrunedClassifier, QuantizationDiagnostics, QuantizedClassifier
from skqfair._row_sketch import sketch
from skqfair._rows import Rows, cast_rows, only, validate_rows
from skqfair.networks import ConvNet, TorchClassifier, make_classifier
from skqfair.storage._cache_key import fingerprint

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (60, 3, 8, 8)).astype(np.uint8)
LABELS = (IMAGES[:, 0, 0, 0] > 127).astype(int)


class Stored:
    """As h5py has it: sorted rows without repeats, one list among slices."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.most = array, array.shape, array.dtype, 0

    def __getitem__(self, index):
        rows = index[0]
        assert index[1:] == (slice(None),) * (len(self.shape) - 1)
        if not isinstance(rows, slice):
            assert (np.diff(rows) > 0).all()
        found = self.array[rows]
        self.most = max(self.most, len(found))
        return found


@pytest.fixture
def lazy(monkeypatch):
    """Read by batch also what is small."""
    monkeypatch.setattr(rows_module, "AT_ONCE", 0)
    monkeypatch.setattr("skqfair.networks._batches.AT_ONCE", 0)
    monkeypatch.setattr(rows_module, "_CHUNK", 2**10)


def kinds(array, path):
    """Yield names and forms of the same values."""
    np.save(path, array)
    yield "uint8", array
    yield "float64", array.astype(np.float64)
    yield "float16", array.astype(np.float16)
    yield "int64", array.astype(np.int64)
    yield "big endian", array.astype(">f4")
    yield "strided", np.asfortranarray(array.astype(np.float32))
    frozen = array.astype(np.float32)
    frozen.flags.writeable = False
    yield "read-only", frozen
    for mode in ("r", "r+", "c"):
        yield f"memmap {mode}", np.load(path, mmap_mode=mode)
    yield "stored", Stored(array)


@settings(max_examples=40)
@given(st.data())
def test_rows_are_those_of_an_array(data):
    array = np.arange(12).reshape(6, 2).astype(np.uint8)
    for X in (Rows(array), Rows(Stored(array)), Rows(sparse.csr_array(array))):
        some = data.draw(st.lists(st.integers(-6, 5), max_size=8))
        part = data.draw(st.slices(6))
        mask = np.array(data.draw(st.lists(st.booleans(), min_size=6, max_size=6)))
        for index in (np.array(some, int), part, mask, 3):
            np.testing.assert_array_equal(X[index], array[index])
            if not isinstance(index, int):
                inner = data.draw(st.slices(len(array[index])))
                np.testing.assert_array_equal(X.only(index)[inner], array[index][inner])


def test_a_batch_is_a_new_array(tmp_path):
    for name, values in kinds(IMAGES, tmp_path / "X.npy"):
        batch = Rows(values, np.float32)[2:5]
        assert batch.dtype == np.float32, name
        batch[:] = 0
        assert np.asarray(values[2:5] if name != "stored" else values.array[2:5]).any(), name


def test_equal_results_of_all_kinds(tmp_path, lazy):
    """As of float32 in memory, bit for bit, with a part held out and activations quantized."""
    groups = np.where(IMAGES[:, 1, 0, 0] > 99, "a", "b")
    net = make_classifier(ConvNet, module__widths=(4,), max_epochs=1, batch_size=16)
    models = {
        "quantized": QuantizedClassifier(net, weight_bits=4, activation_bits=8, random_state=0),
        "qat": FairQATClassifier(
            net, finetune_epochs=1, sampling="balanced", validation_fraction=0.3, random_state=0
        ),
    }
    X = IMAGES.astype(np.float32)
    for model in models.values():
        wanted = model.fit(X, LABELS, sensitive_features=groups).decision_function(X)
        for name, values in kinds(IMAGES, tmp_path / "X.npy"):
            model.fit(values, LABELS, sensitive_features=groups)
            assert np.array_equal(model.decision_function(values), wanted), name
            assert np.array_equal(model._training_rows, sketch(X)) or model is models["qat"], name


@pytest.mark.filterwarnings("ignore::skqfair.exceptions.SmallGroupWarning")
def test_equal_diagnostics(tmp_path, lazy):
    X, y = load_iris(return_X_y=True)
    net = make_classifier(module__hidden_sizes=(4,), max_epochs=2)
    diagnostics = QuantizationDiagnostics(net, weight_bits=4, random_state=0)
    wanted = diagnostics.fit(X.astype(np.float32), y, sensitive_features=y > 0).group_report_
    features = diagnostics.transform(X)
    np.save(tmp_path / "X.npy", X)
    for values in (X, np.load(tmp_path / "X.npy", mmap_mode="r"), Stored(X)):
        found = diagnostics.fit(values, y, sensitive_features=y > 0).group_report_
        assert found.equals(wanted)
        assert np.array_equal(diagnostics.transform(values), features)


def test_one_key_for_all_kinds(tmp_path):
    """So that a memmap finds what was cached for the array."""
    wanted = fingerprint(IMAGES.astype(np.float32))
    for name, values in kinds(IMAGES, tmp_path / "X.npy"):
        assert fingerprint(Rows(values, np.float32)) == wanted, name
    assert fingerprint(Rows(IMAGES, np.float32).only(slice(1, None))) != wanted


def test_reads_by_batch_alone(lazy):
    stored = Stored(rng.normal(size=(500, 4)).astype(np.float32))
    y = (stored.array[:, 0] > 0).astype(int)
    net = make_classifier(module__hidden_sizes=(4,), max_epochs=1, batch_size=20)
    model = PrunedClassifier(net, random_state=0).fit(stored, y)
    model.predict(stored)
    assert stored.most == 2**10 // 32  # a chunk


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_memory_of_fit_and_predict(dtype):
    """Beside the data no more than 0.15 of their size."""
    X = rng.integers(0, 256, (30_000, 768)).astype(dtype)
    X = np.tile(X, (4 if dtype == "uint8" else 1, 1))
    y = (np.arange(len(X)) % 3 == 0).astype(int)
    net = make_classifier(module__hidden_sizes=(1,), max_epochs=0, batch_size=512)
    model = QuantizedClassifier(net, random_state=0)
    tracemalloc.start()
    try:
        model.fit(X, y)
        model.predict(X)
        assert tracemalloc.get_traced_memory()[1] < 0.15 * X.nbytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_missing_values_are_found(tmp_path, bad):
    X = rng.normal(size=(4000, 300)).astype(np.float32)
    X[3000, 7] = bad
    np.save(tmp_path / "X.npy", X)
    y = np.arange(4000) % 2
    for values in (np.load(tmp_path / "X.npy", mmap_mode="r"), Stored(X)):
        with pytest.raises(ValueError, match="Input X contains"):
            QuantizedClassifier(random_state=0).fit(values, y)


def test_values_beyond_float32_are_found_before_the_training(lazy):
    X = np.ones((50, 3))
    X[40] = 1e300
    with pytest.raises(ValueError, match="too large for dtype"):
        QuantizedClassifier(random_state=0).fit(X, np.arange(50) % 2)


def test_a_memmap_that_shrank(tmp_path):
    path = tmp_path / "X.npy"
    np.save(path, rng.normal(size=(5000, 20)).astype(np.float32))
    X, y = np.load(path, mmap_mode="r"), np.arange(5000) % 2
    model = QuantizedClassifier(make_classifier(max_epochs=1), random_state=0).fit(X, y)
    with open(path, "r+b") as file:
        file.truncate(5000)
    with pytest.raises(ValueError, match=r"memmap of .*X.npy that shrank: 400128 bytes"):
        model.predict(X)


def test_stored_data_that_changed():
    stored = Stored(np.ones((10, 2), np.float32))
    X = Rows(stored)
    stored.array = stored.array[:6]
    with pytest.raises(ValueError, match=r"returned shape \(2, 2\) for 6 rows; it has changed"):
        X[4:10]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.empty((0, 3), np.float32), "0 sample"),
        (np.array([["a", "b"]]), "must hold numbers"),
        (np.ones(4, np.float32), "two or more dimensions"),
    ],
)
def test_stored_data_that_do_not_fit(values, message):
    with pytest.raises(ValueError, match=message):
        QuantizedClassifier().fit(Stored(values), np.arange(len(values)))


def test_labels_of_another_number():
    with pytest.raises(ValueError, match="one label for each row of X"):
        QuantizedClassifier().fit(Stored(np.ones((10, 2), np.float32)), np.arange(9) % 2)


def test_a_trained_module_takes_them(tmp_path, lazy):
    import torch

    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
    wanted = TorchClassifier(module).predict_proba(IMAGES.astype(np.float32))
    for name, values in kinds(IMAGES, tmp_path / "X.npy"):
        assert np.array_equal(TorchClassifier(module).predict_proba(values), wanted), name


def test_small_arrays_are_cast_at_once():
    assert isinstance(cast_rows(IMAGES, np.dtype(np.float32)), np.ndarray)
    assert isinstance(only(IMAGES, LABELS == 0), np.ndarray)
    large = np.zeros((2**22, 1), np.uint8)
    assert isinstance(cast_rows(large, np.dtype(np.float32)), Rows)
    assert isinstance(validate_rows(QuantizedClassifier(), large), np.ndarray)


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "dok"])
def test_sparse_samples(form):
    """As the dense ones, bit for bit, in all that take them."""
    X = sparse.random(120, 9, density=0.3, format=form, random_state=0)
    dense, y = X.toarray(), np.arange(120) % 2
    net = make_classifier(module__hidden_sizes=(4,), max_epochs=1)
    for model in (
        QuantizedClassifier(net, weight_bits=4, activation_bits=8, rounding="gptq", random_state=0),
        FairQATClassifier(net, finetune_epochs=1, validation_fraction=0.2, random_state=0),
        PrunedClassifier(net, finetune_epochs=1, random_state=0),
    ):
        wanted = model.fit(dense, y).predict_proba(dense)
        assert np.array_equal(model.fit(X, y).predict_proba(X), wanted)


def test_the_default_encoder():
    frame = pd.DataFrame({"job": list("abcd") * 30, "home": list("xyz") * 40})
    y = (frame["job"] == "a").to_numpy()
    found = []
    for out in (True, False):
        steps = OneHotEncoder(sparse_output=out), QuantizedClassifier(random_state=0)
        found.append(make_pipeline(*steps).fit(frame, y).predict_proba(frame))
    assert np.array_equal(*found)


def test_missing_values_in_sparse_samples():
    X = sparse.csr_array(np.array([[0.0, np.nan], [1.0, 0.0]] * 10))
    with pytest.raises(ValueError, match="Input X contains NaN"):
        QuantizedClassifier().fit(X, np.arange(20) % 2)


def test_sparse_samples_for_a_convolution():
    X = sparse.csr_array(IMAGES.reshape(60, -1))
    with pytest.raises(ValueError, match=r"sparse matrix of shape \(60, 192\), but .* convolutions"):
        QuantizedClassifier(make_classifier(ConvNet, module__in_channels=3)).fit(X, LABELS)
