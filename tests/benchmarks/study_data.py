"""Memory of fit, predict and diagnose beside the data, for each kind of X, and their time.

Each figure is of a process of its own: the largest resident memory less that before, its own pages
(RssAnon) and those of mapped files (RssFile, which the system takes back when it wants) apart, and the
sum over the bytes of X. With --time: processor seconds of a small ConvNet on images, in turns, over
those of a float32 array, and whether the probabilities are equal bit for bit. The checkout on PYTHONPATH
is measured.

    python tests/benchmarks/study_data.py [--large | --time]   # --large: a sparse file of 10 GB
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time

KINDS = (
    *("float32", "uint8", "float64", "float16", "read-only", "memmap r", "memmap r+", "stored"),
    *("Dataset", "csr"),
)
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
        if kind == "Dataset":
            return items(X)
        return Stored(X) if kind == "stored" else X
    X = np.memmap(path, np.float32, "w+", shape=(N, D))
    for start in range(0, N, 1000):
        X[start : start + 1000] = np.arange(D) % 256
    X.flush()
    del X
    return np.memmap(path, np.float32, kind.split()[1], shape=(N, D))


def items(X, y=None):
    """Return a Dataset of the rows, with labels if they are given."""
    from torch.utils.data import Dataset

    class Items(Dataset):
        shape, dtype = X.shape, X.dtype

        def __len__(self):
            return len(X)

        def __getitem__(self, row):
            return X[row] if y is None else (X[row], int(y[row]))

    return Items()


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


def compare_times(path, rounds=4):
    """Print the time of fit and predict for each form of some images, over that of an array."""
    import numpy as np
    import torch

    from skqfair import QuantizedClassifier
    from skqfair.networks import ConvNet, make_classifier

    torch.set_num_threads(1)
    X = np.random.default_rng(0).integers(0, 256, (1000, 3, 32, 32)).astype(np.float32)
    y = (X[:, 0, 0, 0] > 127).astype(int)
    np.save(path, X)
    mapped = np.load(path, mmap_mode="r")
    net = make_classifier(ConvNet, module__widths=(8, 16), max_epochs=1, batch_size=64)
    clf = QuantizedClassifier(net, weight_bits=4, activation_bits=8, random_state=0)
    forms = {
        "float32": (X, y),
        "uint8": (X.astype(np.uint8), y),
        "float64": (X.astype(np.float64), y),
        "memmap": (mapped, y),
        "stored": (Stored(X), y),
        "Dataset": (items(X, y), None),
        "Dataset of a memmap": (items(mapped, y), None),
    }
    times, wanted = {}, None
    for turn in range(rounds + 1):
        for name, (values, labels) in forms.items():
            spent = [time.process_time()]
            clf.fit(values, labels)
            spent.append(time.process_time())
            found = clf.predict_proba(values)
            spent.append(time.process_time())
            wanted = found if wanted is None else wanted
            if turn:  # the first one loads
                times.setdefault(name, []).append((*np.diff(spent), np.array_equal(found, wanted)))
    medians = {name: np.median(found, 0) for name, found in times.items()}
    print(f"{'X':<22}{'fit':>8}{'predict':>10}  equal")
    for name, median in medians.items():
        fit, predict, _ = median / medians["float32"]
        equal = all(equal for *_, equal in times[name])
        print(f"{name:<22}{fit:>8.2f}{predict:>10.2f}  {equal}", flush=True)


def main():
    """Measure each kind in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--kind", help="this one, in this process")
    parser.add_argument("--path")
    arguments = parser.parse_args()
    if arguments.kind:
        return measure(arguments.kind, arguments.path)
    if arguments.time:
        with tempfile.TemporaryDirectory() as folder:
            return compare_times(os.path.join(folder, "X.npy"))
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
