import importlib
import subprocess
import sys
import textwrap
import threading
import warnings

import joblib
import numpy as np
import pytest
import torch
from filelock import FileLock
from nets import counting, small, weights_of
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from torch import nn

from skqfair import QuantizedClassifier
from skqfair.exceptions import CacheBypassWarning
from skqfair.networks import MLP, make_classifier
from skqfair.storage._cache import _held

GRID = {"quantizedclassifier__weight_bits": [2, 3, 4, 6, 8]}


def search(net, memory, **options):
    clf = QuantizedClassifier(net, memory=memory, random_state=0)
    pipeline = make_pipeline(StandardScaler(), clf)
    return GridSearchCV(pipeline, GRID, cv=3, error_score="raise", **options)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_grid_trains_once_for_each_fold_and_the_refit(problem, tmp_path, n_jobs):
    X, y, _ = problem
    net, count = counting(tmp_path / "log")
    cached = search(net, str(tmp_path / "cache"), n_jobs=n_jobs).fit(X, y)
    assert count() == 4
    again = search(net, tmp_path / "cache").fit(X, y)
    assert count() == 4
    plain = search(net, None).fit(X, y)
    assert count() == 4 + 16
    for other in (again, plain):
        np.testing.assert_array_equal(
            cached.cv_results_["mean_test_score"], other.cv_results_["mean_test_score"]
        )


def test_what_acts_after_the_training_shares_it(problem, tmp_path):
    X, y, groups = problem
    net, count = counting(tmp_path / "log")
    base = QuantizedClassifier(net, memory=joblib.Memory(tmp_path, verbose=0), random_state=0)
    for change in (
        {},
        {"weight_bits": None},
        {"activation_bits": 4},
        {"granularity": "per_tensor", "calibration": "minmax"},
        {"layer_bits": {"output": 2}, "calibration_size": 10},
        {"recalibrate_batchnorm": True},
        {"estimator__verbose": 1},
    ):
        clone(base).set_params(**change).fit(X, y, sensitive_features=groups)
    assert count() == 1


def test_what_changes_the_training_does_not_share_it(problem, tmp_path):
    X, y, _ = problem
    net, count = counting(tmp_path / "log")
    base = QuantizedClassifier(net, memory=str(tmp_path), random_state=0)
    changed = X.copy()
    changed[:, 0] += 1e-3
    fits = [
        (base, X, y, None),
        (clone(base).set_params(random_state=1), X, y, None),
        (clone(base).set_params(estimator__lr=0.5), X, y, None),
        (clone(base).set_params(estimator__module__hidden_sizes=(9,)), X, y, None),
        (base, changed, y, None),
        (base, X, y[::-1], None),
        (base, X, y, np.linspace(1, 2, 400)),
    ]
    results = [clone(c).fit(X, y, sample_weight=w) for c, X, y, w in fits]
    assert count() == len(fits)
    assert len({weights_of(r).tobytes() for r in results}) == len(fits)


def test_cached_networks_are_copies(problem, tmp_path):
    X, y, _ = problem
    base = QuantizedClassifier(small(), memory=str(tmp_path), random_state=0)
    first = clone(base).fit(X, y)
    expected = weights_of(first)
    first.estimator_.module_.output.weight.data.zero_()
    np.testing.assert_array_equal(weights_of(clone(base).fit(X, y)), expected)


class Scaled(NeuralNetClassifier):
    def infer(self, x, **fit_params):
        return super().infer(x * 10, **fit_params)


def test_activation_ranges_of_one_frozen_net_do_not_serve_another(problem, tmp_path):
    """Equal weights, but other inputs to the layers."""
    X, y, _ = problem
    codes = np.unique(y, return_inverse=True)[1]
    net, _ = counting(tmp_path / "log")
    net.fit(X, codes)
    other = Scaled(
        MLP, **{k: v for k, v in net.get_params(deep=False).items() if k.startswith("module__")}
    )
    other.set_params(criterion=nn.CrossEntropyLoss, verbose=0, max_epochs=0)
    other.fit(X, codes)
    other.module_.load_state_dict(net.module_.state_dict())
    other.history_ = net.history_
    found = {}
    for memory in (None, str(tmp_path / "cache")):
        for name, frozen in (("net", net), ("other", other)):
            clf = QuantizedClassifier(
                FrozenEstimator(frozen), activation_bits=4, memory=memory, random_state=0
            )
            found[memory, name] = clf.fit(X, codes).decision_function(X)
    for name in ("net", "other"):
        np.testing.assert_array_equal(found[None, name], found[str(tmp_path / "cache"), name])


MODULE = """
from torch import nn
{helper}
WIDTH = {width}

class Inner(nn.Linear):
    pass

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = Inner(6, WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, x):
        return self.last(shape(self.first(x)){twist})
"""


@pytest.mark.parametrize(
    "change",
    [
        {"twist": " * 2"},
        {"helper": "def shape(x): return x.tanh()"},
        {"width": 5},
    ],
    ids=["forward", "helper function", "constant"],
)
def test_a_changed_network_is_trained_again(problem, tmp_path, monkeypatch, change):
    """Classes pickle by name: without the source in the key the old network would be served."""
    X, y, _ = problem
    monkeypatch.syspath_prepend(tmp_path)
    original = {"helper": "def shape(x): return x.relu()", "width": 4, "twist": ""}
    found = []
    for version in (original, original | change, original):
        (tmp_path / "my_network.py").write_text(MODULE.format(**version))
        sys.modules.pop("my_network", None)
        importlib.invalidate_caches()
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        module = importlib.import_module("my_network").Net
        sys.dont_write_bytecode = before
        net = NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss, max_epochs=2, verbose=0)
        clf = QuantizedClassifier(net, memory=str(tmp_path / "cache"), random_state=0).fit(X, y)
        found.append(clf.decision_function(X))
    assert not np.array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    sys.modules.pop("my_network", None)


SCRIPT = """
import sys
import numpy as np
from skorch import NeuralNetClassifier
from torch import nn
from sklearn.model_selection import GridSearchCV
from skqfair import QuantizedClassifier

class Net(nn.Module):  # as in a notebook: workers cannot import it
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 2)
    def forward(self, x):
        return self.layer(x)

class Counting(NeuralNetClassifier):
    fits = 0
    def fit(self, X, y, **fit_params):
        Counting.fits += 1
        print("trained", flush=True)
        return super().fit(X, y, **fit_params)

if __name__ == "__main__":
    X = np.random.default_rng(0).normal(size=(200, 6)).astype("float32")
    net = Counting(Net, criterion=nn.CrossEntropyLoss, max_epochs=2, verbose=0)
    clf = QuantizedClassifier(net, memory=sys.argv[1], random_state=0)
    for n_jobs in (2, 1):
        s = GridSearchCV(clf, {"weight_bits": [2, 4, 8]}, cv=2, n_jobs=n_jobs, error_score="raise")
        s.fit(X, X[:, 0] > 0)
        assert type(s.best_estimator_.estimator_) is Counting
        assert type(s.best_estimator_.module_) is Net
    assert Counting.fits <= 3, Counting.fits
"""


def test_classes_of_a_script_are_cached_across_workers(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error::UserWarning:skqfair",
            str(tmp_path / "script.py"),
            str(tmp_path / "cache"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("trained") == 3  # two folds and the refit
    assert "Exception" not in done.stderr


@pytest.mark.parametrize("other", ["store", "link"])
def test_two_processes_train_once(tmp_path, other):
    """Also where the folder of one is the store of the other by another name, as on two hosts."""
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "store")
    code = textwrap.dedent("""
        import os, sys
        import numpy as np
        sys.path.insert(0, {tests!r})
        from pathlib import Path
        from nets import counting
        from skqfair import QuantizedClassifier
        net, _ = counting(Path({log!r}))
        net.set_params(max_epochs=10)
        child = os.fork()  # both begin at once
        X = np.random.default_rng(0).normal(size=(400, 6)).astype("float32")
        cache = {cache!r} if child else {other!r}
        QuantizedClassifier(net, memory=cache, random_state=0).fit(X, np.arange(400) % 3)
        assert not child or os.waitpid(child, 0)[1] == 0
    """).format(
        tests=str(__import__("pathlib").Path(__file__).parents[1]),
        log=str(tmp_path / "log"),
        cache=str(tmp_path / "store"),
        other=str(tmp_path / other),
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
    assert (tmp_path / "log").read_text() == "x"


def test_a_damaged_cache_is_computed_again(problem, tmp_path):
    X, y, _ = problem
    net, count = counting(tmp_path / "log")
    base = QuantizedClassifier(net, memory=str(tmp_path), random_state=0)
    clone(base).fit(X, y)
    files = list(tmp_path.rglob("output.pkl"))
    assert len(files) == 1
    whole = files[0].read_bytes()
    files[0].write_bytes(whole[:100])
    with pytest.warns(CacheBypassWarning, match="is damaged; it is trained anew and replaced"):
        clone(base).fit(X, y)
    clone(base).fit(X, y)
    assert count() == 2
    files[0].write_bytes(whole.replace(b"skqfair", b"skqfoul", 1))
    with pytest.warns(CacheBypassWarning, match="is damaged; it is trained anew and replaced"):
        clone(base).fit(X, y)
    clone(base).fit(X, y)
    assert count() == 3


def test_flipped_bits_are_noticed(problem, tmp_path):
    """Wherever the bit is: in joblib's own bytes, the digest, or the network."""
    X, y, _ = problem
    base = QuantizedClassifier(small(), memory=str(tmp_path), random_state=0)
    expected = weights_of(clone(base).fit(X, y))
    (file,) = tmp_path.rglob("output.pkl")
    whole = file.read_bytes()
    for place in np.random.default_rng(0).integers(0, 8 * len(whole), 20):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        file.write_bytes(flipped)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            np.testing.assert_array_equal(weights_of(clone(base).fit(X, y)), expected)
        np.testing.assert_array_equal(weights_of(clone(base).fit(X, y)), expected)  # replaced, a hit


def test_the_version_is_in_every_key(problem, tmp_path, monkeypatch):
    X, y, _ = problem
    net, count = counting(tmp_path / "log")
    base = QuantizedClassifier(net, memory=str(tmp_path), random_state=0)
    clone(base).fit(X, y)
    monkeypatch.setattr("skqfair.storage._cache.__version__", "9.9")
    clone(base).fit(X, y)
    assert count() == 2


def test_a_lock_that_another_holds_is_spoken_of(tmp_path, monkeypatch):
    monkeypatch.setattr("skqfair.storage._cache._PATIENCE", 0.01)
    path, held, free = tmp_path / "net.lock", threading.Event(), threading.Event()

    def hold():
        with FileLock(path):
            held.set()
            free.wait()

    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    threading.Timer(0.3, free.set).start()
    with (
        pytest.warns(UserWarning, match=r"waiting for it\. If there is none, remove .*net\.lock"),
        _held(FileLock(path)),
    ):
        assert free.is_set()
    other.join()


class Held:
    """Holds something that can be neither copied, hashed nor stored."""

    def __init__(self, **held):
        self.__dict__.update(held)

    def __deepcopy__(self, memo):
        return self


class Holder(Callback):
    def __init__(self, held):
        self.held = held


def test_networks_that_cannot_be_hashed_are_trained_with_a_warning(problem, tmp_path):
    X, y, _ = problem
    net = small(callbacks=[Holder(Held(lock=threading.Lock()))])
    clf = QuantizedClassifier(net, memory=str(tmp_path), random_state=0)
    with pytest.warns(CacheBypassWarning, match=r"cannot be hashed.*lock.*replace"):
        clf.fit(X, y)
    assert clf.score(X, y) > 0.4


def test_networks_that_cannot_be_stored_are_trained_once_with_a_warning(problem, tmp_path):
    X, y, _ = problem
    net, count = counting(tmp_path / "log")
    net.set_params(callbacks=[Holder(Held(one=lambda: 1, two=lambda: 2))])  # two functions of one name
    clf = QuantizedClassifier(net, memory=str(tmp_path), random_state=0)
    with pytest.warns(CacheBypassWarning, match=r"cannot be stored.*lambda"):
        clf.fit(X, y)
    assert count() == 1
    assert clf.score(X, y) > 0.2


def test_memory_without_a_place_is_no_cache(problem, tmp_path):
    X, y, _ = problem
    net, count = counting(tmp_path / "log")
    for _ in range(2):
        QuantizedClassifier(net, memory=joblib.Memory(None), random_state=0).fit(X, y)
    assert count() == 2


def test_no_moments_are_stored(tmp_path):
    """Adam's are twice the weights; a net from the cache trains on as the one that was stored."""
    X = np.random.default_rng(0).normal(size=(80, 20)).astype(np.float32)
    y = (X[:, 0] > 0).astype(int)
    net = make_classifier(module__hidden_sizes=(400, 400), max_epochs=1)
    clf = QuantizedClassifier(net, memory=str(tmp_path), random_state=0)
    trained = []
    for _ in range(2):
        estimator = clf.fit(X, y).estimator_
        torch.manual_seed(0)
        estimator.partial_fit(X, y)
        trained.append(torch.cat([p.detach().flatten() for p in estimator.module_.parameters()]))
    assert trained[0].equal(trained[1])
    stored = sum(file.stat().st_size for file in tmp_path.rglob("*.pkl"))
    assert 4 * len(trained[0]) < stored < 1.3 * 4 * len(trained[0])
