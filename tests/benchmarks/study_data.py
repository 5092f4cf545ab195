"""Memory of fit, predict and diagnose beside the data, for each kind of X.

Each figure is of a process of its own: the largest resident memory less that before the fit, over the
bytes of X. Where a checkout without ``skqfair._rows`` is on PYTHONPATH, that one is measured.

    python tests/benchmarks/study_data.py [--large]   # --large: a sparse file of the shape of 10 GB
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time

KINDS = ("float32", "uint8", "float64", "float16", "read-only", "memmap r", "memmap r+", "stored", "csr")
STEPS = ("fit", "predict", "diagnose")
N, D = 100_000, 784  # samples, features


class Stored:
    """As h5py: shape, dtype and sorted rows."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, index):
        return self.array[index]

    def __array__(self, dtype=None, copy=None):
        return self.array[:].astype(dtype or self.dtype)


def make(kind, path):
    """Return X of a kind."""
    import numpy as np
    from scipy import sparse

    if kind == "large":
        with open(path, "wb") as file:
            file.truncate(10_000_000_000 // (4 * D) * 4 * D)
        return np.memmap(path, np.float32, "r", shape=(10_000_000_000 // (4 * D), D))
    if kind == "csr":
        return sparse.random_array((N, D), density=0.05, format="csr", dtype=np.float32, rng=0)
    dtype = kind if kind[0] in "fu" else "float32"
    if "memmap" not in kind:
        X = np.empty((N, D), dtype)
        X[:] = np.random.default_rng(0).integers(0, 256, (1, D))
        if kind == "read-only":
            X.flags.writeable = False
        return Stored(X) if kind == "stored" else X
    X = np.memmap(path, np.float32, "w+", shape=(N, D))
    for start in range(0, N, 1000):
        X[start : start + 1000] = np.arange(D) % 256
    X.flush()
    del X
    return np.memmap(path, np.float32, kind.split()[1], shape=(N, D))


def resident():
    """Return the bytes of this process in memory: its own, and pages of mapped files."""
    with open("/proc/self/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    return [1024 * int(lines[name].split()[0]) for name in ("RssAnon", "RssFile")]


class Peak(threading.Thread):
    """Watches the resident memory, often."""

    def __enter__(self):
        self.before = self.most = resident()
        self.ends = False
        self.start()
        return self

    def run(self):
        while not self.ends:
            self.most = list(map(max, self.most, resident()))
            time.sleep(0.002)

    def __exit__(self, *error):
        self.ends = True
        self.join()
        self.gained = [most - before for most, before in zip(self.most, self.before, strict=True)]


def measure(kind, path):
    """Print the figures of one kind as JSON."""
    import warnings

    import numpy as np
    import torch
    from sklearn.frozen import FrozenEstimator

    from skqfair import QuantizationDiagnostics, QuantizedClassifier
    from skqfair.networks import make_classifier

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    net = make_classifier(module__hidden_sizes=(8,), max_epochs=1, batch_size=512)
    small = np.random.default_rng(0).normal(size=(2000, D)).astype(np.float32)
    labels = np.arange(2000) % 2
    clf = QuantizedClassifier(net, weight_bits=4, activation_bits=8, random_state=0).fit(small, labels)
    diagnostics = QuantizationDiagnostics(
        FrozenEstimator(clf), weight_bits=4, max_samples=256, random_state=0
    )
    diagnostics.fit(small, labels, sensitive_features=labels)  # what is loaded when first used
    X = make(kind, path)
    n = X.shape[0]
    y, groups = np.arange(n) % 2, np.arange(n) % 3
    n_bytes = X.data.nbytes + X.indices.nbytes if kind == "csr" else n * D * X.dtype.itemsize
    steps = {
        "fit": lambda: clf.fit(X, y, sensitive_features=groups),
        "predict": lambda: clf.predict(X),
        "diagnose": lambda: diagnostics.fit(X, y, sensitive_features=groups),
    }
    found = {}
    for name, step in steps.items():
        before = time.perf_counter()
        try:
            with Peak() as peak:
                step()
        except Exception as error:
            found[name] = repr(error)[:60]
            continue
        seconds = time.perf_counter() - before
        found[name] = sum(peak.gained) / n_bytes, *(gained / 1e9 for gained in peak.gained), seconds
    print(json.dumps(found))


def main():
    """Measure each kind in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--kind", help="this one, in this process")
    parser.add_argument("--path")
    arguments = parser.parse_args()
    if arguments.kind:
        return measure(arguments.kind, arguments.path)
    print(f"{'X':<12}" + "".join(f"{f'{step}: factor, own, file, s':>30}" for step in STEPS))
    for kind in ("large",) if arguments.large else KINDS:
        with tempfile.TemporaryDirectory() as folder:
            options = ["--kind", kind, "--path", os.path.join(folder, "X")]
            run = [sys.executable, __file__, *options]
            done = subprocess.run(run, capture_output=True, text=True)
        if done.returncode:
            print(f"{kind:<12} {done.stderr.splitlines()[-1][:90]}", flush=True)
            continue
        found = json.loads(done.stdout)
        cells = [
            found[s] if isinstance(found[s], str) else "{:.2f}, {:.2f}, {:.2f}, {:.1f}".format(*found[s])
            for s in STEPS
        ]
        print(f"{kind:<12}" + "".join(f"{cell:>30}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
