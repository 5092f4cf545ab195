"""Kill a search at random moments until it comes to its end; print what each run did, as JSON lines.

    python killed_search.py FOLDER SEARCHES

Each search has a memory of its own. A run is a forked process, so that torch is imported once.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from nets import counting
from sklearn.model_selection import GridSearchCV

from skqfair import QuantizedClassifier

SIGNALS = [signal.SIGKILL, signal.SIGTERM]


def search(folder, memory):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 6)).astype(np.float32)
    net, _ = counting(folder / "log")
    net.set_params(max_epochs=3)
    clf = QuantizedClassifier(net, memory=memory, random_state=0)
    grid = {"weight_bits": [2, 4], "estimator__lr": [0.1, 0.2]}
    found = GridSearchCV(clf, grid, cv=2, error_score="raise", scoring=_all_outputs)
    return found.fit(X, np.arange(300) % 3).cv_results_["mean_test_score"].tolist()


def _all_outputs(estimator, X, y):
    return float(estimator.decision_function(X).sum())


def run(folder, wait, deadly):
    """Run in a process of its own, and send it a signal; return what is left of it."""
    child = os.fork()
    if not child:
        try:
            (folder / "scores").write_text(json.dumps(search(folder, str(folder / "cache"))))
        finally:
            os._exit(0)
    if deadly:
        time.sleep(wait)
        os.kill(child, deadly)
    _, status = os.waitpid(child, 0)
    begun = len((folder / "log").read_text()) if (folder / "log").exists() else 0
    kept = len([*(folder / "cache").rglob("output.pkl")])
    return {"begun": begun, "kept": kept, "killed": os.WIFSIGNALED(status)}


def main(folder, searches):
    torch.set_num_threads(1)
    draw, whole = random.Random(0), 0.0
    search(folder, None)  # loads what is loaded when first used, once for all processes
    for i in range(-1, searches):
        place = folder / f"search{i}"
        place.mkdir()
        start, runs = time.perf_counter(), []
        while not (place / "scores").exists():
            deadly = None if i < 0 or len(runs) > 5 else SIGNALS[len(runs) % 2]
            runs.append(run(place, draw.random() * whole if deadly else 0, deadly))
        if i < 0:
            whole = time.perf_counter() - start
        print(json.dumps({"runs": runs, "scores": (place / "scores").read_text()}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
