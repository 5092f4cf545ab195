"""Teachers of a distillation: the own float net, or fitted classifiers of the same classes."""

import numpy as np
import pandas as pd
import torch
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet

from skqfair._losses import log_probabilities
from skqfair._seeding import preserved
from skqfair._validation import positions
from skqfair.classifiers._base import NetworkClassifier
from skqfair.networks import Distillation, Network, TorchClassifier

__all__ = ["build_distillation", "check_teacher"]

_FIRST = 256  # samples


def check_teacher(clf):
    """Raise unless the teachers are frozen, fitted classifiers with probabilities."""
    if clf.teacher is None:
        return
    if isinstance(clf.teacher, (list, tuple)) and not clf.teacher:
        raise ValueError("teacher is an empty list; give at least one, or None for the own float net.")
    for teacher in _listed(clf.teacher):
        name = type(teacher).__name__
        if not isinstance(teacher, (FrozenEstimator, TorchClassifier)):
            raise ValueError(
                f"teacher must be a FrozenEstimator of a fitted classifier, a TorchClassifier, or a "
                f"list of them, got {name}; wrap it, FrozenEstimator(teacher): clone, which searches "
                "use, would unfit it."
            )
        inner = _inner(teacher)
        if not hasattr(inner, "predict_proba"):
            raise ValueError(
                f"teacher must have predict_proba, which {type(inner).__name__} has not; choose one "
                "that gives probabilities."
            )
        try:
            check_is_fitted(inner)
        except NotFittedError as error:
            raise NotFittedError(
                f"teacher is a FrozenEstimator of a {type(inner).__name__} that is not fitted; fit it "
                "before it is frozen."
            ) from error


def build_distillation(clf, trained):
    """Return the soft part of the loss, None where there is none."""
    if clf.distillation == 0:
        return None
    network = trained.network
    if clf.teacher is None:
        teachers, key = [_OwnNet(network)], ()
    else:
        names = getattr(clf, "feature_names_in_", None)
        inner = [_inner(teacher) for teacher in _listed(clf.teacher)]
        teachers = [_Teacher(each, trained.classes, names, trained.X) for each in inner]
        key = [teacher.key for teacher in teachers]

    def log_mean(X):
        with preserved():
            found = [teacher(X) for teacher in teachers]
        return torch.as_tensor(log_probabilities(np.mean(found, 0)), dtype=torch.float32)

    def teach(batch):
        return log_mean(batch.detach().cpu().numpy())

    augments = getattr(network.net, "augment", None) is not None
    logs = None
    if augments:
        log_mean(trained.X[:2])  # a teacher of another kind is found before the time is spent
    else:
        logs = trained.cached(("teacher", trained.X, key), lambda: log_mean(trained.X))
    return Distillation(
        clf.distillation, clf.temperature, teach, logs, returns_logits=network.returns_logits
    )


def _listed(teacher):
    return list(teacher) if isinstance(teacher, (list, tuple)) else [teacher]


def _inner(teacher):
    """Return the classifier itself; a TorchClassifier counts as frozen."""
    return teacher if isinstance(teacher, TorchClassifier) else teacher.estimator


class _OwnNet:
    """Probabilities of the float net that the fine-tuning starts from."""

    def __init__(self, network):
        self.network = network

    def __call__(self, X):
        outputs = self.network.outputs(X).double()
        return (outputs.softmax(1) if self.network.returns_logits else outputs).numpy()


class _Teacher:
    """Probabilities of a fitted classifier, columns in the order of the student's classes."""

    def __init__(self, fitted, classes, names, X):
        if isinstance(fitted, TorchClassifier):
            fitted.predict_proba(X[:_FIRST])  # after which its classes are known
        own = np.asarray(fitted.classes_)
        if not np.array_equal(np.sort(own), np.sort(classes)):
            raise ValueError(
                f"teacher must have the classes of y, {list(classes)}; the {type(fitted).__name__} has "
                f"{list(own)}. Fit it on the same labels."
            )
        self.fitted, self.order = fitted, positions(classes, own)
        self.names = names if hasattr(fitted, "feature_names_in_") else None

    def __call__(self, X):
        rows = X if self.names is None else pd.DataFrame(X, columns=self.names)
        try:
            found = np.asarray(self.fitted.predict_proba(rows), dtype=np.float64)
        except Exception as error:
            raise ValueError(
                f"teacher: the {type(self.fitted).__name__} fails on samples of shape {X.shape[1:]}, "
                f"those of the student: {error} Give one that takes the same X."
            ) from error
        if found.shape != (len(X), len(self.order)) or not np.isfinite(found).all():
            raise ValueError(
                f"teacher: predict_proba of the {type(self.fitted).__name__} must give finite numbers "
                f"of shape {(len(X), len(self.order))}, got shape {found.shape}."
            )
        return found[:, self.order]

    @property
    def key(self):
        """What its probabilities depend on."""
        if isinstance(self.fitted, NetworkClassifier):
            net = self.fitted.estimator_
            return type(self.fitted), type(net), self.fitted.module_, self.fitted.classes_
        if isinstance(self.fitted, NeuralNet):
            network = Network.of_trained(self.fitted)
            return *network.recipe(), network.module
        return self.fitted
