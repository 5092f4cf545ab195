"""Random changes of training batches: what they do, when they act, and what they may not do."""

import copy
import re

import numpy as np
import pytest
import skops.io
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from torch import nn

from skqfair import FairQATClassifier, PrunedClassifier, QuantizationDiagnostics, QuantizedClassifier
from skqfair.networks import ConvNet, ImageAugmentation, make_classifier

NOTHING = {"flip": 0, "rotation": 0, "scale": 0, "shift": 0, "brightness": 0, "contrast": 0, "cutout": 0}


def largest(self, X, most, *shape):
    """Draw the end of every range."""
    return X.new_full((len(X), *shape), most)


def only(**options):
    return ImageAugmentation(**{**NOTHING, **options})


@pytest.fixture
def images():
    return torch.rand(200, 3, 12, 10, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(160, 1, 8, 8)).astype(np.float32)
    return X, (X[:, 0, :4].mean((1, 2)) > 0).astype(int)


def small(augment=None, **options):
    options = {"module__widths": (4, 6), "max_epochs": 2, **options}
    return make_classifier(ConvNet, augment=augment, **options)


def test_no_range_no_change(images):
    assert only()(images).equal(images)


def test_flips_are_those_of_torch(images):
    torch.manual_seed(0)
    found = only(flip=0.3)(images)
    flipped = torch.tensor([not a.equal(b) for a, b in zip(found, images, strict=True)])
    assert found.equal(torch.where(flipped[:, None, None, None], images.flip(-1), images))
    assert 35 < int(flipped.sum()) < 85
    assert only(flip=1)(images).equal(images.flip(-1))
    # in one sampling with other changes
    moved = only(flip=1, rotation=1e-9)(images)
    torch.testing.assert_close(moved, images.flip(-1), atol=1e-5, rtol=0)


def test_a_quarter_turn(images, monkeypatch):
    monkeypatch.setattr(ImageAugmentation, "_between", largest)
    square = images[..., :10, :]
    found = only(rotation=90)(square)
    torch.testing.assert_close(found, torch.rot90(square, 1, (2, 3)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("pixels", [1, 3])
def test_whole_pixels_are_shifted(images, monkeypatch, pixels):
    monkeypatch.setattr(ImageAugmentation, "_between", largest)
    square = images[..., :10, :]
    found = only(shift=pixels / 10)(square)
    expected = square.roll((-pixels, -pixels), (2, 3))
    torch.testing.assert_close(
        found[..., :-pixels, :-pixels], expected[..., :-pixels, :-pixels], atol=1e-5, rtol=0
    )
    border = square[..., -1:, pixels:].expand(-1, -1, pixels, -1)
    torch.testing.assert_close(found[..., -pixels:, :-pixels], border, atol=1e-5, rtol=0)


def test_larger_images_show_less(monkeypatch):
    monkeypatch.setattr(ImageAugmentation, "_between", largest)
    ramp = torch.linspace(-1, 1, 101).expand(1, 1, 101, 101)
    found = only(scale=0.25)(ramp)
    torch.testing.assert_close(found, ramp / 1.25, atol=1e-4, rtol=0)


def test_brightness_and_contrast(images):
    torch.manual_seed(0)
    mean, spread = images.mean((1, 2, 3)), images.std((1, 2, 3))
    brighter = only(brightness=0.3)(images)
    moved = brighter.mean((1, 2, 3)) - mean
    torch.testing.assert_close(brighter.std((1, 2, 3)), spread)
    assert moved.abs().max() <= 0.3
    assert moved.std() == pytest.approx(0.3 / 3**0.5, rel=0.15)
    sharper = only(contrast=0.4)(images)
    torch.testing.assert_close(sharper.mean((1, 2, 3)), mean)
    ratio = sharper.std((1, 2, 3)) / spread - 1
    assert ratio.abs().max() <= 0.4 + 1e-5
    assert ratio.std() == pytest.approx(0.4 / 3**0.5, rel=0.15)


def test_holes(images):
    torch.manual_seed(0)
    found = only(cutout=0.5, cutout_size=0.3)(images)
    changed = (found != images).any(1)
    sizes = changed.flatten(1).sum(1)
    assert set(sizes.tolist()) == {0, 9}  # 3 of 10 pixels wide
    assert 70 < int((sizes > 0).sum()) < 130
    for image, original, hole in zip(found, images, changed, strict=True):
        rows, columns = hole.any(1).nonzero().flatten(), hole.any(0).nonzero().flatten()
        assert len(rows) == len(columns) == (3 if len(rows) else 0)
        torch.testing.assert_close(image[:, hole], original.mean().expand(3, len(rows) ** 2))
    assert changed.any(0).float().mean() > 0.9  # everywhere
    assert only(cutout=1, cutout_size=1)(images[..., :10, :]).std((1, 2, 3)).max() < 1e-6


def test_each_image_has_its_own(images):
    found = ImageAugmentation()(images[:1].expand(50, -1, -1, -1))
    assert len(found.flatten(1).unique(dim=0)) == 50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip": 2}, "flip must be a number from 0 to 1, got 2"),
        ({"scale": 1}, "scale must be a number from 0 to 1, got 1"),
        ({"rotation": -1}, "rotation must be a number from 0 to 180"),
        ({"cutout": "yes"}, "cutout must be a number"),
        ({"shift": float("nan")}, "shift must be a number"),
    ],
)
def test_bad_ranges(options, message):
    with pytest.raises(ValueError, match=message):
        ImageAugmentation(**options)


@pytest.mark.parametrize(
    "X", [torch.rand(4, 5), torch.rand(4, 8, 8), torch.zeros(4, 3, 8, 8, dtype=torch.uint8)]
)
def test_what_is_no_batch_of_images(X):
    with pytest.raises(
        ValueError, match=re.escape("takes floats of shape (n, channels, height, width)")
    ):
        ImageAugmentation()(X)


class Counting(nn.Module):
    """Says what came, and changes it at random."""

    seen = []

    def forward(self, X):
        Counting.seen.append(X.clone())
        return X + torch.randn_like(X)


@pytest.mark.parametrize("kind", [QuantizedClassifier, FairQATClassifier, PrunedClassifier])
def test_training_batches_only(data, kind):
    X, y = data
    options = {"finetune_epochs": 3} if kind is not QuantizedClassifier else {}
    Counting.seen = []
    clf = kind(small(Counting(), batch_size=40, train_split=None), random_state=0, **options).fit(X, y)
    batches = 4 * (2 + options.get("finetune_epochs", 0))
    assert len(Counting.seen) == batches
    rows = {row.numpy().tobytes() for batch in Counting.seen for row in batch}
    assert rows == {row.tobytes() for row in X}
    clf.predict(X), clf.predict_proba(X), clf.float_classifier_.predict(X)
    QuantizationDiagnostics(FrozenEstimator(clf), random_state=0).fit(X, y)
    QuantizedClassifier(
        FrozenEstimator(clf.estimator_), activation_bits=4, recalibrate_batchnorm=True, random_state=0
    ).fit(X, y)
    assert len(Counting.seen) == batches


def test_validation_samples_are_as_they_are(data):
    from skorch.dataset import ValidSplit

    X, y = data
    Counting.seen = []
    net = small(Counting(), batch_size=32, train_split=ValidSplit(5, stratified=True))
    QuantizedClassifier(net, random_state=0).fit(X, y)
    assert len({row.numpy().tobytes() for batch in Counting.seen for row in batch}) == 128


@pytest.mark.parametrize("kind", [QuantizedClassifier, FairQATClassifier])
def test_seeded(data, kind):
    X, y = data
    net = small(ImageAugmentation())
    fits = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(fits))
        state = torch.get_rng_state()
        fits.append(kind(net, random_state=seed).fit(X, y).predict_proba(X))
        assert torch.get_rng_state().equal(state)
    np.testing.assert_array_equal(fits[0], fits[1])
    assert (fits[0] != fits[2]).any()
    plain = kind(small(), random_state=0).fit(X, y).predict_proba(X)
    assert (plain != fits[0]).any()


def test_weights_and_groups_beside_it(data):
    X, y = data
    groups = np.arange(len(X)) % 3
    clf = FairQATClassifier(
        small(ImageAugmentation()),
        mitigation_weight=1.0,
        gap_penalty=0.1,
        sampling="balanced",
        random_state=0,
    )
    with pytest.warns(match="balance the same cells"):
        clf.fit(X, y, sensitive_features=groups, sample_weight=np.linspace(0.5, 1, len(X)))
    assert np.isfinite(clf.predict_proba(X)).all()


def test_search_clone_copies_and_files(data, tmp_path):
    X, y = data
    clf = QuantizedClassifier(small(ImageAugmentation(rotation=5)), random_state=0)
    copied = clone(clf)
    assert copied.estimator.augment is not clf.estimator.augment
    assert copied.estimator.augment.rotation == 5
    search = GridSearchCV(
        clf, {"estimator__augment": [None, ImageAugmentation()]}, cv=2, error_score="raise"
    ).fit(X, y)
    assert len(search.cv_results_["mean_test_score"]) == 2
    clf.fit(X, y)
    again = copy.deepcopy(clf)
    np.testing.assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
    skops.io.dump(clf, tmp_path / "clf.skops")
    assert skops.io.get_untrusted_types(file=tmp_path / "clf.skops") == ["skqfair.QuantizedClassifier"]
    loaded = skops.io.load(tmp_path / "clf.skops", trusted=["skqfair.QuantizedClassifier"])
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))
    assert loaded.estimator.augment.rotation == 5
    assert "augment=ImageAugmentation(" in repr(loaded)


def brighter(X):
    return X + 0.5


def darker(X):
    return X - 0.5


def test_memory_tells_augmentations_apart(data, tmp_path):
    X, y = data
    kinds = [None, ImageAugmentation(), ImageAugmentation(rotation=3), only(), brighter, darker]
    found = []
    for _ in range(2):
        for augment in kinds:
            clf = QuantizedClassifier(small(augment), memory=str(tmp_path), random_state=0)
            found.append(clf.fit(X, y).predict_proba(X))
    for first, again in zip(found[:6], found[6:], strict=True):
        np.testing.assert_array_equal(first, again)
    assert len({f.tobytes() for f in found}) == len(kinds)


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (lambda X: X[:, :, 1:], r"must keep shape.* torch\.float32 of \(\d+, 1, 7, 8\)"),
        (lambda X: X.double(), "must keep shape, dtype and device: it made torch.float64"),
        (lambda X: X / 0, "augment made values that are not finite"),
        (lambda X: None, "augment must return a tensor, got NoneType"),
    ],
)
def test_what_it_may_not_do(data, augment, message):
    with pytest.raises(ValueError, match=message):
        QuantizedClassifier(small(augment), random_state=0).fit(*data)


def test_not_callable():
    with pytest.raises(TypeError, match=r"augment must be a function or module.* got 'flip'"):
        small("flip")


def test_in_place_changes_stay_in_the_batch(data):
    X, y = data
    before = X.copy()
    QuantizedClassifier(small(lambda X: X.mul_(0)), random_state=0).fit(X, y)
    np.testing.assert_array_equal(X, before)
