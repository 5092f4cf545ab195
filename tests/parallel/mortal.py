"""Networks, classifiers and scorers that kill their process, once, at a stage of their work."""

import os
import signal
from pathlib import Path

from nets import skorch_net
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier

from skqfair import QuantizedClassifier

STAGES = "training", "quantizing", "scoring"


def order(folder, stage):
    """Have the next process that comes to a stage killed."""
    (Path(folder) / stage).touch()


def reach(folder, stage):
    """Write down that a stage is reached, and die if that is ordered."""
    with open(Path(folder) / "log", "a") as log:
        log.write(f"{stage} {os.getpid()}\n")
    try:
        (Path(folder) / stage).unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def reached(folder, stage):
    """Return how often a stage was reached."""
    return (Path(folder) / "log").read_text().count(stage)


class MortalNet(NeuralNetClassifier):
    def __init__(self, *args, folder=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.folder = folder

    def fit(self, X, y, **fit_params):
        reach(self.folder, "training")
        return super().fit(X, y, **fit_params)


class MortalClassifier(QuantizedClassifier):
    def _say(self, stage):
        if stage == "quantization":
            reach(self.estimator.folder, "quantizing")


class MortalScorer:
    def __init__(self, folder):
        self.folder = folder

    def __call__(self, estimator, X, y):
        reach(self.folder, "scoring")
        return estimator.decision_function(X).sum()  # tells one network from another


def mortal_search(folder, memory=None, **options):
    """A search over three bit widths and three folds for the fixture `problem`."""
    folder.mkdir(exist_ok=True)
    (folder / "log").touch()
    net = skorch_net(MortalNet, module__hidden_sizes=(8,), folder=str(folder))
    clf = MortalClassifier(net, memory=memory, random_state=0)
    options = {"cv": 3, "error_score": "raise", "scoring": MortalScorer(str(folder)), **options}
    return GridSearchCV(clf, {"weight_bits": [2, 4, 8]}, **options)
