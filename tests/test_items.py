"""Samples of torch Datasets, and of several inputs: equal results of all forms, and errors."""

import numpy as np
import pytest
import torch
from items import GROUPS, IMAGES, INPUTS, LABELS, NET, TWO, ImagesOnDisk, Samples, named
from nets import TwoInputs
from sklearn.model_selection import GridSearchCV
from skorch.helper import SliceDataset, SliceDict
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from skqfair import FairQATClassifier, PrunedClassifier, QuantizationDiagnostics, QuantizedClassifier
from skqfair._row_sketch import sketch
from skqfair._rows import rows_of
from skqfair.export import OnnxClassifier, to_onnx
from skqfair.networks import ConvNet, TorchClassifier, make_classifier
from skqfair.storage._cache_key import fingerprint


def models(net):
    quantized = {"weight_bits": 4, "activation_bits": 8, "rounding": "least_squares"}
    tuned = {"sampling": "balanced", "gap_penalty": 0.1, "distillation": 0.3}
    return [
        QuantizedClassifier(net, **quantized, random_state=0),
        FairQATClassifier(
            net, finetune_epochs=1, validation_fraction=0.3, **tuned, balance="group", random_state=0
        ),
        PrunedClassifier(net, finetune_epochs=1, random_state=0),
    ]


@pytest.mark.parametrize("which", range(3))
def test_equal_results_of_datasets(which):
    """As of the array in memory, bit for bit."""
    model = models(NET)[which]
    X = IMAGES.astype(np.float32)
    wanted = model.fit(X, LABELS, sensitive_features=GROUPS).predict_proba(X)
    score, known = model.score(X, LABELS), model._training_rows
    pairs = ImagesOnDisk()
    numbers = Samples(lambda row: (IMAGES[row].astype(np.float64), LABELS[row]))
    for X in (pairs, numbers):
        model.fit(X, sensitive_features=GROUPS)
        assert np.array_equal(model.predict_proba(X), wanted)
        assert np.array_equal(model.predict(X), model.classes_[wanted.argmax(1)])
        assert model.score(X) == model.score(X, LABELS) == score
        assert np.array_equal(model._training_rows, known)
    for X in (
        SliceDataset(pairs),
        Samples(lambda row: IMAGES[row]),
        TensorDataset(torch.tensor(IMAGES)),
    ):
        model.fit(X, LABELS, sensitive_features=GROUPS)
        assert np.array_equal(model.predict_proba(X), wanted)


@pytest.mark.parametrize("which", range(3))
def test_equal_results_of_several_inputs(which):
    """Of a dict of arrays, and of Datasets of dicts and of tuples."""
    model = models(TWO)[which]
    weights = np.arange(40) + 1.0
    options = {"sensitive_features": GROUPS, "sample_weight": weights}
    wanted = model.fit(INPUTS, LABELS, **options).predict_proba(INPUTS)
    assert model.input_shape_ == {"image": (3, 8, 8), "table": (2,), "mask": (1,)}
    dicts = Samples(lambda row: (named(row), LABELS[row]))
    tuples = Samples(lambda row: (tuple(named(row).values()), LABELS[row]))
    for X in (dicts, tuples):
        model.fit(X, **options)
        assert np.array_equal(model.predict_proba(X), wanted)
        assert np.array_equal(model.predict_proba(INPUTS), wanted)
        assert model.score(X) == model.score(INPUTS, LABELS)


def test_the_net_trains_on_what_it_gets():
    """Several inputs give the outputs of the module that is called by hand."""
    model = QuantizedClassifier(TWO, weight_bits=None, random_state=0).fit(INPUTS, LABELS)
    image, table = torch.tensor(IMAGES).float(), torch.tensor(INPUTS["table"]).float()
    with torch.no_grad():
        logits = model.module_(image, table, torch.tensor(INPUTS["mask"]))
    found = model.decision_function(INPUTS)
    np.testing.assert_allclose(found, (logits[:, 1] - logits[:, 0]).numpy(), rtol=1e-4, atol=1e-5)


def test_a_trained_module():
    tuples = Samples(lambda row: (tuple(named(row).values()), row % 2))
    clf = TorchClassifier(TwoInputs())
    wanted = clf.predict_proba(INPUTS)
    assert np.array_equal(clf.predict_proba(tuples), wanted)
    model = QuantizedClassifier(clf, weight_bits=None).fit(tuples)
    np.testing.assert_allclose(model.predict_proba(INPUTS), wanted, rtol=1e-6)


def test_searches():
    X = IMAGES.astype(np.float32)
    grid = {"weight_bits": [2, 8]}
    model = QuantizedClassifier(NET, random_state=0)
    wanted = GridSearchCV(model, grid, cv=2).fit(X, LABELS).cv_results_["mean_test_score"]
    for y in (LABELS, SliceDataset(ImagesOnDisk(), 1)):
        search = GridSearchCV(model, grid, cv=2).fit(SliceDataset(ImagesOnDisk()), y)
        assert np.array_equal(search.cv_results_["mean_test_score"], wanted)
    model = QuantizedClassifier(TWO, random_state=0)
    tuples = SliceDataset(Samples(lambda row: (tuple(named(row).values()), LABELS[row])))
    one = GridSearchCV(model, grid, cv=2).fit(SliceDict(**INPUTS), LABELS)
    two = GridSearchCV(model, grid, cv=2).fit(tuples, LABELS)
    assert np.array_equal(one.cv_results_["mean_test_score"], two.cv_results_["mean_test_score"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork beside threads
def test_workers():
    own = make_classifier(
        ConvNet,
        module__widths=(4,),
        max_epochs=1,
        batch_size=16,
        iterator_train__num_workers=1,
        iterator_valid__num_workers=1,
    )
    X = IMAGES.astype(np.float32)
    wanted = QuantizedClassifier(NET, random_state=0).fit(X, LABELS).predict_proba(X)
    model = QuantizedClassifier(own, random_state=0).fit(ImagesOnDisk())
    assert np.array_equal(model.predict_proba(ImagesOnDisk()), wanted)


@pytest.mark.filterwarnings("ignore::skqfair.exceptions.SmallGroupWarning")
def test_diagnostics():
    diagnostics = QuantizationDiagnostics(NET, weight_bits=4, n_eigenvalues=0, random_state=0)
    X = IMAGES.astype(np.float32)
    wanted = diagnostics.fit(X, LABELS, sensitive_features=GROUPS).group_report_
    found = diagnostics.fit(ImagesOnDisk(), None, sensitive_features=GROUPS).group_report_
    assert found.equals(wanted)
    with pytest.raises(TypeError, match=r"inputs \['image', 'table', 'mask'\], but the diagnostics"):
        QuantizationDiagnostics(TWO, weight_bits=4).fit(INPUTS, LABELS)


def test_one_key_for_all_forms():
    """So that what was trained on an array is found again for a Dataset of the same values."""
    X = IMAGES.astype(np.float32)
    items = rows_of(ImagesOnDisk()).astype(np.float32)
    assert fingerprint(items) == fingerprint(X)
    assert np.array_equal(sketch(items), sketch(X))
    one, two = rows_of(INPUTS), rows_of(Samples(named))
    assert fingerprint(one) == fingerprint(two) == fingerprint(one[np.arange(40)])
    assert fingerprint(one) != fingerprint(one.only(np.arange(40)[::-1]))
    assert len(sketch(one)) == 40
    changed = {**INPUTS, "mask": 1 - INPUTS["mask"]}
    assert fingerprint(rows_of(changed)) != fingerprint(one)


def test_rows_of_several_inputs():
    X = rows_of(INPUTS)
    found = X.only(np.array([3, 1]))[1:].read([0])
    assert {name: values.dtype.str for name, values in found.items()} == {
        "image": "<f4",
        "table": "<f4",
        "mask": "<i8",
    }
    for name, values in INPUTS.items():
        np.testing.assert_array_equal(found[name][0], values[1].astype(found[name].dtype))
    assert X[2]["mask"] == INPUTS["mask"][2]
    with pytest.raises(TypeError, match="not one array"):
        np.asarray(X)


def test_saved(tmp_path):
    skops = pytest.importorskip("skops.io")
    model = QuantizedClassifier(TWO, weight_bits=4, random_state=0).fit(INPUTS, LABELS)
    skops.dump(model, tmp_path / "model.skops")
    trusted = skops.get_untrusted_types(file=tmp_path / "model.skops")
    loaded = skops.load(tmp_path / "model.skops", trusted=trusted)
    assert np.array_equal(loaded.predict_proba(INPUTS), model.predict_proba(INPUTS))


# ------------------------------------------------------------ bad input


class Endless(IterableDataset):
    def __iter__(self):
        return iter([(IMAGES[0], 0)])


class Uncounted(Dataset):
    def __getitem__(self, row):
        return IMAGES[row], 0


@pytest.mark.parametrize("X", [Endless(), Uncounted()])
def test_a_dataset_without_length(X):
    with pytest.raises(TypeError, match=r"cannot be counted.*one of map style, with __len__"):
        QuantizedClassifier(NET).fit(X)


def test_a_loader():
    with pytest.raises(TypeError, match="X is a DataLoader; pass its dataset"):
        QuantizedClassifier(NET).fit(DataLoader(ImagesOnDisk()))


def test_an_empty_dataset():
    with pytest.raises(ValueError, match="the Dataset is empty"):
        QuantizedClassifier(NET).fit(Samples(named, 0))


def test_labels_twice_or_not_at_all():
    with pytest.raises(ValueError, match="y is given twice"):
        QuantizedClassifier(NET).fit(ImagesOnDisk(), LABELS)
    with pytest.raises(ValueError, match=r"requires y to be passed.*only the items \(x, label\)"):
        QuantizedClassifier(NET).fit(SliceDataset(ImagesOnDisk()))
    with pytest.raises(ValueError, match="requires y to be passed"):
        QuantizedClassifier(NET).fit(IMAGES)
    with pytest.raises(ValueError, match="one label for each row of X"):
        QuantizedClassifier(NET).fit(SliceDataset(ImagesOnDisk()), LABELS[1:])


def second_time(first, later, row):
    """Return items of which one is another when it is read again."""
    seen = set()

    def item(i):
        again = i in seen
        seen.add(i)
        return later if i == row and again else first(i)

    return Samples(item)


def pair(row):
    return IMAGES[row], int(LABELS[row] == "yes")


@pytest.mark.parametrize(
    ("later", "message"),
    [
        (
            (IMAGES[7][:2], pair(7)[1]),
            r"item 7 of the Dataset Samples is uint8 of shape \(2, 8, 8\), but",
        ),
        ((IMAGES[7] * 1.0, pair(7)[1]), r"item 7 .* is float64 of shape \(3, 8, 8\), but the first was"),
        ((IMAGES[7], 1 - pair(7)[1]), r"item 7 .* has the label \d, but had \d when it was read before"),
        (IMAGES[7], "item 7 .* has no label, but the first has"),
    ],
)
def test_items_that_change(later, message):
    model = QuantizedClassifier(NET, random_state=0)
    with pytest.raises(ValueError, match=message):
        model.fit(second_time(pair, later, 7))
    assert not hasattr(model, "module_")


def test_items_that_fail():
    def item(row):
        if row == 23:
            raise OSError("truncated file face_23.png")
        return pair(row)

    with pytest.raises(ValueError, match=r"item 23 .* fails with OSError: truncated file face_23.png"):
        QuantizedClassifier(NET).fit(Samples(item))


def test_missing_values_in_items():
    X = IMAGES.astype(float)
    X[30, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="Input X contains NaN"):
        QuantizedClassifier(NET).fit(Samples(lambda row: (X[row], row % 2)))
    model = QuantizedClassifier(NET, random_state=0).fit(IMAGES, LABELS)
    with pytest.raises(ValueError, match="Input X contains NaN"):
        model.predict(Samples(lambda row: X[row].astype(np.float32)))
    with pytest.raises(ValueError, match="y has 1 missing"):
        QuantizedClassifier(NET).fit(Samples(lambda row: (IMAGES[row], [None, "a", "b"][min(row, 2)])))


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ({**INPUTS, "table": INPUTS["table"][1:]}, "must be of equal length; got .*'table': 39"),
        ({**INPUTS, "age": INPUTS["table"]}, r"forward of TwoInputs takes \['image', 'table', 'mask'\]"),
        ({"image": IMAGES}, r"inputs \['image'\], but forward of TwoInputs requires \['table'\] too"),
        ({**INPUTS, "group": INPUTS["mask"]}, "an input 'group', a name that batches have in use"),
        ({**INPUTS, "mask": np.array(["a"] * 40)}, "must hold numbers"),
        ({}, "empty dict"),
    ],
)
def test_inputs_that_do_not_fit(X, message):
    with pytest.raises(ValueError, match=message):
        QuantizedClassifier(TWO).fit(X, LABELS)


def test_inputs_of_another_shape_or_none():
    model = QuantizedClassifier(TWO, random_state=0).fit(INPUTS, LABELS)
    with pytest.raises(ValueError, match=r"X has samples of shape .*'table': .1,"):
        model.predict({**INPUTS, "table": INPUTS["table"][:, :1]})
    with pytest.raises(ValueError, match="X has samples of shape"):
        model.predict({name: INPUTS[name] for name in ("image", "table")})
    with pytest.raises(ValueError, match=r"was fitted on samples of shape .*'image'"):
        model.predict(IMAGES)
    with pytest.raises(ValueError, match="but files are written of networks with one"):
        to_onnx(model, "model.onnx")


def test_exported(tmp_path):
    model = QuantizedClassifier(NET, weight_bits=4, random_state=0).fit(ImagesOnDisk())
    to_onnx(model, tmp_path / "model.onnx", X_example=ImagesOnDisk())
    clf = OnnxClassifier(tmp_path / "model.onnx")
    assert np.array_equal(clf.predict_proba(ImagesOnDisk()), clf.predict_proba(IMAGES))
    with pytest.raises(ValueError, match=r"X has samples of shape .*'image'"):
        clf.predict(INPUTS)


def test_a_network_with_names_of_its_own():
    """Those who take any names get the names that were given."""

    class Any(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, **inputs):
            return self.layer(torch.cat([inputs["table"], inputs["mask"].float()], 1))

    X = {name: INPUTS[name] for name in ("table", "mask")}
    model = QuantizedClassifier(make_classifier(Any, max_epochs=1), random_state=0).fit(X, LABELS)
    swapped = {name: X[name] for name in ("mask", "table")}
    assert np.array_equal(model.predict_proba(swapped), model.predict_proba(X))
