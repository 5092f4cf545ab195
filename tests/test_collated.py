"""Nets that collate their batches, or have workers load them; sequences of unequal length."""

import os

import numpy as np
import pytest
import torch
from items import GROUPS, IMAGES, LABELS, ImagesOnDisk, Samples
from sklearn.metrics import accuracy_score
from torch import nn
from torch.utils.data import default_collate

from skqfair import FairQATClassifier, PrunedClassifier, QuantizationDiagnostics, QuantizedClassifier
from skqfair.exceptions import ExportError
from skqfair.export import to_onnx
from skqfair.metrics import group_report
from skqfair.networks import MLP, ConvNet, make_classifier

pytestmark = [
    pytest.mark.filterwarnings("ignore::skqfair.exceptions.SmallGroupWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # fork beside threads
]

rng = np.random.default_rng(0)
SEQUENCES = [rng.integers(1, 20, n) for n in rng.integers(2, 9, 60)]
TARGETS = np.array(["high" if ids[0] > 10 else "low" for ids in SEQUENCES])
SEXES = np.where(np.arange(60) % 3 > 0, "f", "m")


class Words(nn.Module):
    """Means of embeddings, less those of the padding; the mask may be an input."""

    def __init__(self):
        super().__init__()
        self.words, self.output = nn.Embedding(20, 4, padding_idx=0), nn.Linear(4, 2)

    def forward(self, ids, mask=None):
        mask = (ids > 0 if mask is None else mask)[..., None]
        return self.output((self.words(ids) * mask).sum(1) / mask.sum(1))


def padded(ids):
    return np.pad(ids, (0, 8 - len(ids)))


IDS = np.stack([padded(ids) for ids in SEQUENCES])
WORDS = make_classifier(Words, max_epochs=2, batch_size=16)


def collate(items):
    """Pad to the longest of the batch."""
    ids, labels = zip(*items, strict=True)
    longest = max(map(len, ids))
    ids = [np.pad(row, (0, longest - len(row))) for row in ids]
    return torch.tensor(np.stack(ids)), torch.tensor(labels)


@pytest.mark.parametrize("masked", [False, True])
def test_sequences_that_the_dataset_pads(masked):
    def item(row):
        ids = padded(SEQUENCES[row])
        return ({"ids": ids, "mask": ids > 0} if masked else ids), TARGETS[row]

    items, X = Samples(item, 60), {"ids": IDS, "mask": IDS > 0} if masked else IDS
    options = {"sensitive_features": SEXES}
    for model in (
        QuantizedClassifier(WORDS, weight_bits=4, activation_bits=8, random_state=0),
        FairQATClassifier(WORDS, finetune_epochs=1, gap_penalty=0.1, random_state=0),
    ):
        wanted = model.fit(X, TARGETS, **options).predict_proba(X)
        assert np.array_equal(model.fit(items, **options).predict_proba(items), wanted)
        table = group_report(TARGETS, model.predict(items), random_state=0, **options)
        for sex, accuracy in table["accuracy"].items():
            own = sex == SEXES
            assert accuracy == accuracy_score(TARGETS[own], model.classes_[wanted.argmax(1)][own])
    if not masked:
        diagnostics = QuantizationDiagnostics(WORDS, weight_bits=4, random_state=0)
        wanted = diagnostics.fit(X, TARGETS, **options).group_report_
        assert diagnostics.fit(items, **options).group_report_.equals(wanted)


def test_sequences_that_nobody_pads():
    """With the remedy, also where a collate function would pad them."""
    own = {"iterator_train__collate_fn": collate, "iterator_valid__collate_fn": collate}
    model = QuantizedClassifier(make_classifier(Words, **own), random_state=0)
    ragged = Samples(lambda row: (SEQUENCES[row], TARGETS[row]), 60)
    with pytest.raises(
        ValueError, match=r"item \d .*pad them in the Dataset \(a collate function of the"
    ):
        model.fit(ragged)
    objects = np.empty(60, object)
    objects[:] = SEQUENCES
    for X in (SEQUENCES, objects):
        with pytest.raises(ValueError, match=r"samples of unequal length or shape. Pad them"):
            model.fit(X, TARGETS)
    fitted = QuantizedClassifier(WORDS, random_state=0).fit(IDS, TARGETS)
    with pytest.raises(ValueError, match=r"samples of unequal length or shape. Pad them"):
        fitted.predict(SEQUENCES)


def scale(items):
    x, y = default_collate(items)
    return torch.cat([3 * x - 1, x[:, :2]], 1), y


def keep(items):
    return default_collate(items)


TABLE = rng.normal(size=(60, 5)).astype(np.float32)
COLLATED = np.concatenate([3 * TABLE - 1, TABLE[:, :2]], axis=1)


def net(function=None, n_features=7):
    own = {} if function is None else {f"iterator_{i}__collate_fn": function for i in ("train", "valid")}
    sizes = {"module__n_features": n_features, "module__n_classes": 2, "module__hidden_sizes": (8,)}
    return make_classifier(MLP, max_epochs=2, batch_size=16, **sizes, **own)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (QuantizedClassifier, {"weight_bits": 4, "activation_bits": 8, "rounding": "least_squares"}),
        (QuantizedClassifier, {"weight_bits": 3, "rounding": "gptq", "bias_correction": True}),
        (QuantizedClassifier, {"layer_bits": "auto", "bit_budget": 4}),
        (FairQATClassifier, {"finetune_epochs": 1, "sampling": "balanced", "distillation": 0.3}),
        (PrunedClassifier, {"finetune_epochs": 1}),
    ],
)
def test_a_collate_function_of_samples_of_one_shape(kind, options):
    """As of the samples that it makes."""
    features = {"sensitive_features": SEXES}
    model = kind(net(), random_state=0, **options).fit(COLLATED, TARGETS, **features)
    wanted = model.predict_proba(COLLATED)
    model = kind(net(scale), random_state=0, **options).fit(TABLE, TARGETS, **features)
    assert np.array_equal(model.predict_proba(TABLE), wanted)
    assert np.array_equal(model.predict_proba(Samples(lambda row: TABLE[row], 60)), wanted)


def shift(items):
    x, y = default_collate(items)
    return x + 1, y


def test_what_calls_the_module_itself(tmp_path):
    """Gets what the net gets, or says so."""
    options = {"weight_bits": 4, "n_eigenvalues": 0, "random_state": 0}
    wanted = QuantizationDiagnostics(net(None, 5), **options).fit(TABLE, TARGETS).group_report_
    diagnostics = QuantizationDiagnostics(net(keep, 5), **options)
    found = diagnostics.fit(TABLE, TARGETS).group_report_
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    for function, n_features in ((scale, 7), (shift, 5)):
        diagnostics.set_params(estimator=net(function, n_features))
        with pytest.raises(ValueError, match=r"changes its samples before .* and leave them out of the"):
            diagnostics.fit(TABLE, TARGETS)
    model = QuantizedClassifier(diagnostics.estimator, random_state=0).fit(TABLE, TARGETS)
    with pytest.raises(ExportError, match="a collate function of the net that changes"):
        to_onnx(model, tmp_path / "model.onnx")


class Counted(ImagesOnDisk):
    """Notes in a folder which processes read how many items."""

    def __init__(self, folder):
        self.folder = folder

    def __getitem__(self, row):
        with open(self.folder / str(os.getpid()), "a") as file:
            file.write("x")
        return super().__getitem__(row)


@pytest.mark.parametrize(
    "model",
    [
        QuantizedClassifier(weight_bits=4, activation_bits=8, random_state=0),
        FairQATClassifier(finetune_epochs=1, sampling="balanced", gap_penalty=0.1, random_state=0),
    ],
)
def test_workers_are_used_and_change_nothing(tmp_path, model):
    """Neither results nor the random numbers of others."""
    found, main = [], str(os.getpid())
    for workers in (0, 2):
        own = {f"iterator_{i}__num_workers": workers for i in ("train", "valid")} if workers else {}
        net = make_classifier(ConvNet, module__widths=(4,), max_epochs=1, batch_size=16, **own)
        folder = tmp_path / str(workers)
        folder.mkdir()
        images = Counted(folder)
        torch.manual_seed(3)
        model.set_params(estimator=net).fit(images, sensitive_features=GROUPS, sample_weight=np.ones(40))
        fitting = {file.name: file.stat().st_size for file in folder.iterdir()}
        draws = torch.rand(2)
        logits = model.decision_function(images)
        predicting = {file.name: file.stat().st_size for file in folder.iterdir()}
        assert (len(fitting) > 1) == (len(predicting) > len(fitting)) == bool(workers)
        assert not workers or predicting[main] - fitting[main] < 40
        found.append((logits, model.predict(images), model.score(images), draws, torch.rand(2)))
    for one, two in zip(*found, strict=True):
        assert np.array_equal(one, two)


def test_an_item_that_fails_in_a_worker():
    net = make_classifier(
        ConvNet, module__widths=(4,), max_epochs=1, batch_size=16, iterator_valid__num_workers=1
    )
    model = QuantizedClassifier(net, random_state=0).fit(IMAGES, LABELS)

    def item(row):
        if row == 23:
            raise OSError("truncated file")
        return IMAGES[row]

    with pytest.raises(ValueError, match="item 23 of the Dataset Samples fails with OSError: truncated"):
        model.predict(Samples(item))
