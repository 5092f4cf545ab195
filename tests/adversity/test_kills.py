"""Writers killed at random moments: the old file or the new one is there whole, and no parts pile up.

Searches that are killed are in tests/storage/test_killed_searches.py, Ctrl-C in
tests/classifiers/test_random_interrupts.py, Dask's workers in tests/parallel.
"""

import os
import random
import signal
import time

import pytest
from killed_writer import contents, writer

from skqfair.storage._entry import Entry

FILES = {"entry": "output.pkl", "export": "model.onnx", "page": "page.html"}


def killed(kind, folder, wait):
    """Write in a process of its own until it is killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            write, both = writer(kind, folder), contents()
            write(both[0])
            os.write(writing, b"x")
            while True:
                write(both[1])
                write(both[0])
        finally:
            os._exit(1)
    os.close(writing)
    assert os.read(reading, 1) == b"x"
    os.close(reading)
    time.sleep(wait)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


def content_of(kind, folder):
    if kind == "entry":
        entry = Entry(str(folder))
        found = entry.read()
        assert entry.fault is None
        return found
    return (folder / FILES[kind]).read_bytes()


@pytest.mark.parametrize(
    ("kind", "kills"),
    [
        *((kind, 4) for kind in FILES),
        *(
            pytest.param(kind, n, marks=pytest.mark.slow)
            for kind, n in (("entry", 200), ("export", 50), ("page", 50))
        ),
    ],
)
def test_a_killed_writer_leaves_a_whole_file(tmp_path, kind, kills):
    draw, whole = random.Random(0), contents()
    for _ in range(kills):
        killed(kind, tmp_path, draw.uniform(0, 0.03))
        assert content_of(kind, tmp_path) in whole
    parts = [path for path in tmp_path.iterdir() if path.name != FILES[kind]]
    if kind == "entry":
        assert len(parts) <= 1  # each writer removes what the one before it left
    an_hour_ago = time.time() - 4000
    for path in parts:
        os.utime(path, (an_hour_ago, an_hour_ago))
    writer(kind, tmp_path)(whole[0])
    assert [path.name for path in tmp_path.iterdir()] == [FILES[kind]]
    assert content_of(kind, tmp_path) == whole[0]
