"""
One search, two workers: who trains, who waits, and what is lost with a worker
==============================================================================

A search over bits needs few trainings and many cheap quantizations: one training for each fold, and one
for the refit. Where there are more workers than folds, as here, the first fits that are handed out want
the same training, so that one waits for the other; and the refit trains at the end, when the cluster is
idle. ``warm_up`` trains each network once, all at once, and leaves the search nothing to train. With as
many folds as workers it saves the training of the refit only. Importing ``skqfair.parallel``
also gives joblib the backend ``"dask_resilient"``, where a worker that is killed costs its task only.

The cluster is of this machine, two processes of one thread; with ``Client("scheduler:8786")`` the
same lines run on many machines. The folder of ``memory`` must then be one that all of them see.
"""

# sphinx_gallery_thumbnail_path = "_static/thumbs/distributed_search.png"

import os
import signal
import tempfile
import threading
import time

import joblib
import matplotlib.pyplot as plt
import numpy as np
from distributed import Client, LocalCluster, get_task_stream
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit

from skqfair import QuantizedClassifier
from skqfair.networks import ConvNet, make_classifier
from skqfair.parallel import warm_up

X, y = load_digits(return_X_y=True)
X, y = X[:1000].reshape(-1, 1, 8, 8).astype(np.float32) / 16, y[:1000]


def make_search(memory):
    """Six widths, one split and the refit: 7 fits, 2 trainings."""
    net = make_classifier(ConvNet, module__widths=(8,), max_epochs=25, lr=0.02)
    cv = StratifiedShuffleSplit(1, random_state=0)
    clf = QuantizedClassifier(net, memory=memory, random_state=0)
    return GridSearchCV(clf, {"weight_bits": [2, 3, 4, 5, 6, 8]}, cv=cv, error_score="raise")


# %%
# Three searches
# --------------
# As it comes, warmed up, and with a worker killed amid the work. Dask writes down which worker did
# what and when.


def run(client, memory, *, warm=False, kill=None):
    """Run a search on the cluster; return it, what was done (worker, start, seconds), and its end."""
    search = make_search(memory)
    if kill is not None:
        threading.Timer(1.0, os.kill, (kill, signal.SIGKILL)).start()
    with get_task_stream(client=client) as stream, joblib.parallel_config(backend="dask_resilient"):
        start = time.time()
        if warm:
            print(warm_up(search, X, y))
        search.fit(X, y)
        end = time.time() - start
    work = [
        (task["worker"], part["start"] - start, part["stop"] - part["start"])
        for task in stream.data
        for part in task["startstops"]
        if part["action"] == "compute"
    ]
    return search, (work, end)


def first_fit():
    """Import torch and whatever else a first fit imports, which takes seconds."""
    clf = QuantizedClassifier(make_classifier(ConvNet, max_epochs=1), random_state=0)
    clf.fit(X[:50], y[:50])


def draw(runs):
    """Draw a line for each worker, a bar for each task."""
    fig, axes = plt.subplots(len(runs), sharex=True, figsize=(7, 5), layout="constrained")
    for ax, (name, (work, end)) in zip(axes, runs.items(), strict=True):
        workers = sorted({worker for worker, _, _ in work})
        for worker, start, seconds in work:
            ax.broken_barh([(start, seconds)], (workers.index(worker) - 0.4, 0.8), edgecolor="white")
        ax.axvline(end, color="black", linestyle="dashed")
        ax.set(
            title=name,
            yticks=range(len(workers)),
            yticklabels=[f"worker {i}" for i in range(len(workers))],
        )
    axes[-1].set_xlabel("seconds")
    return fig


def main():
    """Start a cluster, search three times, draw."""
    os.environ["OMP_NUM_THREADS"] = "1"
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    scores, runs = [], {}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        client.run(first_fit)
        for name in ("as it comes", "warmed up", "a worker killed after 1 second"):
            kill = next(iter(client.run(os.getpid).values())) if "killed" in name else None
            with tempfile.TemporaryDirectory() as memory:
                search, runs[name] = run(client, memory, warm=name == "warmed up", kill=kill)
            scores.append(search.cv_results_["mean_test_score"])
            print(f"{name}: accuracies {scores[-1].round(3)}")
    print("equal, bit for bit:", all(np.array_equal(s, scores[0]) for s in scores))
    draw(runs)
    plt.show()


# %%
# What was done
# -------------
# A bar is a task of a worker, waiting included; the dashed line is the end of the search, after its
# refit in this process. The warm-up's short bars find out which trainings there are. A worker that was
# killed comes back when it has imported torch again. The scores are the same, bit for bit: what a fit
# computes depends on its data and its seed, not on where or how often it runs.

if __name__ == "__main__":  # workers import this file
    main()
