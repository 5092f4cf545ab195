"""Folders made here in the layout of UTKFace, with files that are wrong in every way."""

import os
import tracemalloc

import numpy as np
import pytest

from skqfair.datasets import load_utkface

Image = pytest.importorskip("PIL.Image")
GOOD = ["8_0_1_20170101.jpg", "17_1_2_20170101123.jpg.chip.jpg", "18_1_0_1.JPG", "60_0_4_2.jpg"]


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(GOOD):
        image = Image.new("L" if i == 0 else "RGB", (20 + i, 30), 40 * i if i == 0 else (40 * i,) * 3)
        image.save(tmp_path / name, "JPEG")
    (tmp_path / "61_1_20170109.jpg").write_bytes((tmp_path / GOOD[0]).read_bytes())  # no race
    (tmp_path / "30_0_0_3.jpg").write_bytes((tmp_path / GOOD[1]).read_bytes()[:200])  # truncated
    (tmp_path / "31_0_0_4.jpg").write_text("not an image")
    (tmp_path / "README.txt").write_text("faces")
    (tmp_path / "more").mkdir()
    return tmp_path


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_reads_what_can_be_read_and_says_what_cannot(folder, n_jobs):
    faces = load_utkface(folder, image_size=16, n_jobs=n_jobs)
    assert list(faces.filenames) == sorted(GOOD)
    assert faces.data.shape == (4, 3, 16, 16)
    assert faces.data.dtype == np.uint8
    for name, image in zip(faces.filenames, faces.data, strict=True):
        np.testing.assert_allclose(image, 40 * GOOD.index(name), atol=3)
    labels = faces.sensitive_features.set_axis(faces.filenames)
    assert labels.loc[GOOD[0]].tolist() == ["Black", "male", "0-17"]
    assert labels.loc[GOOD[1]].tolist() == ["Asian", "female", "0-17"]
    assert labels.loc[GOOD[2]].tolist() == ["White", "female", "18-34"]
    assert labels.loc[GOOD[3]].tolist() == ["Others", "male", "60+"]
    assert list(faces.target) == list(faces.sensitive_features["ethnicity"])
    reasons = faces.skipped.set_index("filename")["reason"]
    assert reasons.index.tolist() == [
        "61_1_20170109.jpg",
        "README.txt",
        "30_0_0_3.jpg",
        "31_0_0_4.jpg",
    ]
    assert reasons.iloc[0].startswith("the name is not [age]_[gender]_[race]")
    assert reasons.iloc[2].startswith("the image cannot be read")


def test_targets_and_draws(folder):
    assert list(load_utkface(folder, target="gender").target) == ["female", "female", "male", "male"]
    one, two = (load_utkface(folder, max_samples=3, random_state=0) for _ in range(2))
    assert len(one.filenames) + len(one.skipped) - 2 == 3
    np.testing.assert_array_equal(one.filenames, two.filenames)


@pytest.fixture
def many(tmp_path):
    """300 files, every 50th of them cut off."""
    for i in range(300):
        file = tmp_path / f"{i % 100}_{i % 2}_{i % 5}_{i:03}.jpg"
        Image.new("RGB", (8, 8), (i % 256,) * 3).save(file, "JPEG", quality=100)
        if i % 50 == 7:
            file.write_bytes(file.read_bytes()[:100])
    return tmp_path


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_images_stay_with_their_names_over_many_tasks(many, n_jobs):
    faces = load_utkface(many, image_size=8, n_jobs=n_jobs)
    numbers = np.array([int(name.split("_")[3][:3]) for name in faces.filenames])
    assert len(faces.data) == len(numbers) == 294
    np.testing.assert_allclose(faces.data[:, 0, 4, 4], numbers % 256, atol=2)
    skipped = [int(name.split("_")[3][:3]) for name in faces.skipped["filename"]]
    assert sorted(skipped) == [7, 57, 107, 157, 207, 257]


def test_memory_is_little_more_than_the_images(many):
    tracemalloc.start()
    try:
        faces = load_utkface(many, image_size=128)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert faces.data.nbytes == 294 * 3 * 128 * 128
    assert peak < 1.5 * faces.data.nbytes  # twice, if parts were kept and put together in the end


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "nowhere"}, "there is no folder 'nowhere'"),
        ({"target": "age"}, "target must be 'ethnicity', 'gender' or 'age_group'; got 'age'"),
        ({"image_size": 0}, "image_size must be a positive number"),
        ({"max_samples": 0}, "max_samples must be at least 1"),
    ],
)
def test_bad_input(folder, options, message):
    with pytest.raises(ValueError, match=message):
        load_utkface(**{"path": folder, **options})


def test_a_folder_without_images(tmp_path):
    with pytest.raises(ValueError, match="has no image that can be read: of 0 files none is there"):
        load_utkface(tmp_path)
    (tmp_path / "1_1_1_1.jpg").write_text("x")
    with pytest.raises(ValueError, match="of 1 files the first fails because the image cannot"):
        load_utkface(tmp_path)


@pytest.mark.skipif("SKQFAIR_UTKFACE" not in os.environ, reason="SKQFAIR_UTKFACE names no folder")
def test_a_real_folder():
    faces = load_utkface(os.environ["SKQFAIR_UTKFACE"], image_size=24, n_jobs=2)
    assert len(faces.data) > 1000
    assert set(faces.target) == {"White", "Black", "Asian", "Indian", "Others"}
