"""What a search costs on a small cluster: seconds, trainings, bytes moved; prints the guide's table.

    python tests/benchmarks/study_cluster.py

Adult, 3 folds, 4 bit widths, workers of one thread each. Bytes are those that ``TCP.write`` of
distributed returns, summed over client, scheduler and workers.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import tempfile
import time
from pathlib import Path

import distributed
import joblib
import numpy as np
import pandas as pd
from distributed import Client, LocalCluster
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler

from skqfair import QuantizedClassifier, make_fairness_scorer
from skqfair.datasets import load_adult
from skqfair.networks import make_classifier
from skqfair.parallel import warm_up


def count_bytes():
    """Count what this process sends from now on."""
    from distributed.comm import tcp

    write = tcp.TCP.write

    async def counted(self, *args, **options):
        n = await write(self, *args, **options)
        distributed.bytes_sent += n or 0
        return n

    distributed.bytes_sent = 0
    tcp.TCP.write = counted


def bytes_sent():
    return distributed.bytes_sent


def data():
    adult = load_adult()
    X = pd.get_dummies(adult.data.drop(columns=["race", "sex"])).astype(np.float32)
    X = pd.DataFrame(StandardScaler().fit_transform(X).astype(np.float32), columns=X.columns)
    return X, adult.target, adult.sensitive_features["sex"]


def main():
    X, y, sex = data()
    net = make_classifier(max_epochs=4)
    scorer = make_fairness_scorer(sensitive_features=sex)

    def search(memory, **options):
        clf = QuantizedClassifier(net, memory=memory, random_state=0)
        options = {"cv": 3, "scoring": scorer, "error_score": "raise", **options}
        return GridSearchCV(clf, {"weight_bits": [2, 3, 4, 8]}, **options)

    print(f"X: {X.shape}, {X.to_numpy().nbytes / 1e6:.1f} MB")
    rows, scores = [], []

    def timed(name, workers, run):
        with tempfile.TemporaryDirectory() as memory:
            start = time.perf_counter()
            found = run(memory)
            seconds = time.perf_counter() - start
            kept = list(Path(memory).rglob("output.pkl"))
        scores.append(found.cv_results_["mean_test_score"])
        rows.append({"search": name, "workers": workers, "seconds": seconds, "kept": len(kept)})
        print(rows[-1], flush=True)

    def warm(memory):
        prepared = search(memory)
        start = time.perf_counter()
        warm_up(prepared, X, y)
        print(f"  of this the warm-up: {time.perf_counter() - start:.1f} s", flush=True)
        return prepared.fit(X, y)

    for _ in range(2):
        timed("serial, no memory", 0, lambda _: search(None).fit(X, y))
        timed("serial, memory", 0, lambda memory: search(memory).fit(X, y))
    for workers in (1, 2, 4):
        options = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": ":0"}
        with LocalCluster(**options) as cluster, Client(cluster) as client:
            client.run(count_bytes)
            if not hasattr(distributed, "bytes_sent"):
                count_bytes()
            client.run(warm_imports)
            for _ in range(2):
                for backend in ("dask", "dask_resilient"):
                    distributed.bytes_sent = 0
                    before = sum(client.run(bytes_sent).values())
                    with joblib.parallel_config(backend=backend):
                        timed(backend, workers, lambda memory: search(memory).fit(X, y))
                    moved = distributed.bytes_sent + sum(client.run(bytes_sent).values()) - before
                    print(f"  {moved / 1e6:.1f} MB moved", flush=True)
                with joblib.parallel_config(backend="dask_resilient"):
                    timed("dask_resilient, warm-up", workers, warm)
    assert all(np.array_equal(found, scores[0]) for found in scores)
    print(pd.DataFrame(rows).groupby(["search", "workers"], sort=False).min().round(1))


def warm_imports():
    import skqfair.parallel  # noqa: F401


if __name__ == "__main__":
    main()
