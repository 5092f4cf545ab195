"""Networks and nets that the tests of the classifiers share."""

import numpy as np
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from torch import nn

from skqfair.networks import MLP, make_classifier

CODES = {"high": 0, "low": 1, "mid": 2}  # labels of the fixture `problem`, sorted


def small(**options):
    """A small default net."""
    options = {"module__hidden_sizes": (8,), "max_epochs": 3, "lr": 0.02, **options}
    return make_classifier(**options)


def skorch_net(kind=NeuralNetClassifier, module=MLP, **options):
    """A skorch net of any class for the fixture `problem`."""
    sizes = {"module__n_features": 6, "module__n_classes": 3}
    options = {"criterion": nn.CrossEntropyLoss, "max_epochs": 1, "verbose": 0, **sizes, **options}
    return kind(module, **options)


class WithSoftmax(nn.Sequential):
    """Returns probabilities, as skorch's default criterion wants."""

    def __init__(self, n_features=6, n_classes=3):
        super().__init__(nn.Linear(n_features, 8), nn.ReLU(), nn.Linear(8, n_classes), nn.Softmax(1))


class CountingNet(NeuralNetClassifier):
    """Counts its trainings in a file, so that other processes count too."""

    def __init__(self, *args, log=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.log = log

    def fit(self, X, y, **fit_params):
        with open(self.log, "a") as file:
            file.write("x")
        return super().fit(X, y, **fit_params)


class Sizes(Callback):
    """Sets the sizes of the module when training begins, as skorch's documentation suggests."""

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        net.set_params(module__n_features=X.shape[1], module__n_classes=len(np.unique(y)))


class Resized(MLP):
    """Has sizes of its own, wrong ones, until something sets them."""

    def __init__(self, n_features=1, n_classes=5):
        super().__init__(n_features, n_classes, hidden_sizes=(8,))


def counting(log):
    """A counting net for the fixture `problem`, and a function that returns the count."""
    net = skorch_net(CountingNet, module__hidden_sizes=(8,), max_epochs=2, log=str(log))
    return net, lambda: len(log.read_text()) if log.exists() else 0


def weights_of(classifier):
    """All float weights of a fitted classifier as one array."""
    return np.concatenate(
        [p.detach().numpy().ravel() for p in classifier.estimator_.module_.parameters()]
    )


class TwoInputs(nn.Module):
    """An image, a table, and a mask that may be left out."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear, self.out = nn.Conv2d(3, 4, 3), nn.Linear(2, 4), nn.Linear(4, 2)

    def forward(self, image, table, mask=None):
        hidden = self.conv(image).mean((2, 3)) + self.linear(table)
        hidden = hidden if mask is None else hidden * mask.float()
        return self.out(hidden.relu())
