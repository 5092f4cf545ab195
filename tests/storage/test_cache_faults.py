"""Folders that are full, read-only, of another user, without locks: work goes on, with one warning."""

import builtins
import errno
import os
import warnings
from pathlib import PurePath

import joblib
import numpy as np
import pytest
from filelock import FileLock
from nets import counting, weights_of
from sklearn.base import clone

from skqfair import QuantizedClassifier
from skqfair.exceptions import CacheBypassWarning


@pytest.fixture
def cached(problem, tmp_path):
    """A function that fits with a memory, and one that counts trainings."""
    X, y, _ = problem
    net, count = counting(tmp_path / "log")
    clf = QuantizedClassifier(net, activation_bits=8, memory=str(tmp_path / "cache"), random_state=0)
    return (lambda **params: weights_of(clone(clf).set_params(**params).fit(X, y))), count


def refuse(monkeypatch, folder, code, *, reading=False):
    """Let the system refuse to write below a folder, as it does for a disk or a user."""

    def guarded(function, writes):
        def call(path, *args, **options):
            below = isinstance(path, (str, os.PathLike)) and str(path).startswith(str(folder))
            if below and writes(path, *args, **options):
                raise OSError(code, os.strerror(code), str(path))
            return function(path, *args, **options)

        return call

    def to_write(path, mode="r", *args, **options):
        return reading or mode[0] != "r"

    monkeypatch.setattr(builtins, "open", guarded(open, to_write))
    monkeypatch.setattr(os, "open", guarded(os.open, lambda path, flags, *a, **k: flags & os.O_CREAT))
    for name in ("mkdir", "makedirs", "unlink", "replace"):
        known = (lambda path, *a, **k: not os.path.isdir(path)) if name == "makedirs" else None
        monkeypatch.setattr(os, name, guarded(getattr(os, name), known or (lambda *a, **k: True)))


def test_a_read_only_folder_that_has_the_network_is_a_hit(cached, tmp_path, monkeypatch):
    fit, count = cached
    expected = fit()
    refuse(monkeypatch, tmp_path / "cache", errno.EROFS)
    np.testing.assert_array_equal(fit(), expected)
    assert count() == 1


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_a_folder_that_takes_no_files_is_told_once(cached, tmp_path, monkeypatch, code):
    fit, count = cached
    expected = fit()
    refuse(monkeypatch, tmp_path / "cache", code)
    with pytest.warns(CacheBypassWarning) as told:
        weights = fit(estimator__lr=0.02)
    assert len(told) == 1  # although the activations are to be kept too
    assert os.strerror(code) in str(told[0].message)
    assert "takes no files" in str(told[0].message)
    assert count() == 2
    assert not np.array_equal(weights, expected)


def test_a_folder_that_cannot_be_made_is_told_once(cached, tmp_path, monkeypatch):
    fit, count = cached
    (tmp_path / "cache").write_text("a file")
    with pytest.warns(CacheBypassWarning, match="cannot be made.*give one on a disk") as told:
        fit()
    assert len(told) == 1
    assert count() == 1


def test_a_disk_that_is_full_amid_the_writing_keeps_nothing_half(cached, tmp_path, monkeypatch):
    fit, count = cached

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.warns(CacheBypassWarning, match="No space left on device"):
            expected = fit()
    assert not [path for path in (tmp_path / "cache").rglob("output*") if path.is_file()]
    np.testing.assert_array_equal(fit(), expected)
    assert count() == 2


def test_a_file_of_another_user_is_told_once(cached, tmp_path, monkeypatch):
    fit, count = cached
    expected = fit()
    refuse(monkeypatch, tmp_path / "cache", errno.EACCES, reading=True)
    with pytest.warns(CacheBypassWarning, match="Permission denied") as told:
        np.testing.assert_array_equal(fit(), expected)
    assert len(told) == 1
    assert count() == 2


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "none"), NotImplementedError("no")])
def test_a_folder_without_locks_is_told_and_used(cached, monkeypatch, error):
    fit, count = cached

    def refuse_lock(*args, **options):
        raise error

    monkeypatch.setattr(FileLock, "acquire", refuse_lock)
    with pytest.warns(CacheBypassWarning, match="no locks.*may train the same network"):
        expected = fit(activation_bits=None)
    np.testing.assert_array_equal(fit(activation_bits=None), expected)
    assert count() == 1


def test_what_a_killed_process_left_is_removed(cached, tmp_path):
    fit, count = cached
    fit(activation_bits=None)
    (entry,) = (tmp_path / "cache").rglob("output.pkl")
    left = entry.with_name("output.pkl.0123")
    left.write_bytes(entry.read_bytes()[:1000])
    entry.unlink()
    fit(activation_bits=None)
    assert count() == 2
    assert not left.exists()


@pytest.mark.parametrize("content", [b"", b"x" * 19, b"x" * 500])
def test_whatever_else_lies_there_is_replaced(cached, tmp_path, content):
    fit, count = cached
    expected = fit(activation_bits=None)
    (entry,) = (tmp_path / "cache").rglob("output.pkl")
    entry.write_bytes(content)
    with pytest.warns(CacheBypassWarning, match="is damaged; it is trained anew and replaced"):
        np.testing.assert_array_equal(fit(activation_bits=None), expected)
    np.testing.assert_array_equal(fit(activation_bits=None), expected)
    assert count() == 2


def test_joblib_reduces_and_clears(cached, tmp_path):
    fit, count = cached
    memory = joblib.Memory(tmp_path / "cache", verbose=0)
    fit(memory=memory)
    memory.reduce_size(items_limit=10)
    fit(memory=memory)
    assert count() == 1
    memory.reduce_size(items_limit=0)
    fit(memory=memory)
    assert count() == 2
    memory.clear(warn=False)
    fit(memory=memory)
    assert count() == 3


def test_a_print_that_was_replaced_is_stored_by_its_name(cached, monkeypatch):
    """As in the driver of a Ray cluster; a net of skorch has print in its callbacks."""
    fit, count = cached
    monkeypatch.setattr(builtins, "print", lambda *args, **options: None)
    expected = fit(estimator__verbose=0)
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(fit(), expected)
    assert count() == 1


@pytest.mark.parametrize("memory", ["s3://bucket/networks", PurePath("gs://bucket"), "file:///tmp/x"])
def test_an_address_is_no_folder(cached, tmp_path, monkeypatch, memory):
    """Rather than a folder of that name."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    fit, count = cached
    with pytest.raises(ValueError, match=r"memory is '.*', an address: .*Mount the store as such"):
        fit(memory=memory)
    assert count() == 0
    assert not list((tmp_path / "here").iterdir())
