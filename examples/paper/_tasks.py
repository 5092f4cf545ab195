"""What is learned, and whose accuracy is compared: faces, or data that ship."""

from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_digits
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from skorch.callbacks import LRScheduler

from skqfair.datasets import load_adult, load_utkface
from skqfair.networks import MLP, ConvNet, make_classifier

__all__ = ["FACES", "SHIPPED", "OwnTask", "Split", "Task", "load_split", "make_net", "skipped_files"]

FACES = ("ethnicity", "gender")  # what is predicted; the groups are ethnicities
SHIPPED = ("adult", "digits")
_EPOCHS = {"ethnicity": 8, "gender": 8, "adult": 4, "digits": 20}
_QAT_EPOCHS = {"ethnicity": 3, "gender": 3, "adult": 1, "digits": 5}


@dataclass(frozen=True)
class Task:
    """A name, and the choices that change its data or its networks; None is the default of the task."""

    name: str
    data: str | None = None
    image_size: int = 32
    max_samples: int | None = None
    epochs: int | None = None
    finetune_epochs: int | None = None

    def __post_init__(self):
        if self.name not in (*FACES, *SHIPPED):
            raise ValueError(
                f"no task {self.name!r}; there are {', '.join((*FACES, *SHIPPED))}, and your own by a "
                "subclass of OwnTask."
            )
        for name, defaults in (("epochs", _EPOCHS), ("finetune_epochs", _QAT_EPOCHS)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, defaults[self.name])

    @property
    def recipe(self):
        """All choices but the folder, which says nothing about its content."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "data"}


class OwnTask:
    """Data and network of your own: subclass it, and give ``--own FILE.py:CLASS``.

    Parameters
    ----------
    max_samples, epochs, finetune_epochs : int or None
        From the command line; None is what the class says.

    Attributes
    ----------
    name, description : str
        For tables and report.
    epochs, finetune_epochs : int
        Of the float training and of the fine-tuning.
    test_size : float
        Share of the samples that are kept for the measurements.
    """

    name = description = None
    epochs, finetune_epochs, test_size = 8, 2, 0.3
    data = None

    def __init__(self, max_samples=None, epochs=None, finetune_epochs=None):
        if not self.name:
            raise ValueError(f"{type(self).__name__} needs a name, that of its rows in the tables.")
        self.max_samples = max_samples
        self.epochs = self.epochs if epochs is None else epochs
        self.finetune_epochs = self.finetune_epochs if finetune_epochs is None else finetune_epochs

    def load(self, seed):
        """Return X (an array, or a frame to be encoded), y and the group of each sample."""
        raise NotImplementedError(f"{type(self).__name__} needs a method load(self, seed).")

    def make_net(self):
        """Return the float network, a skorch classifier of ``self.epochs`` epochs, not trained."""
        raise NotImplementedError(f"{type(self).__name__} needs a method make_net(self).")

    @property
    def recipe(self):
        """What was chosen."""
        names = ("name", "description", "max_samples", "epochs", "finetune_epochs", "test_size")
        return {name: getattr(self, name) for name in names}

    def __eq__(self, other):  # what was loaded serves all pieces
        return type(other) is type(self) and other.recipe == self.recipe

    def __hash__(self):
        return hash((type(self), *self.recipe.values()))


@dataclass(frozen=True, eq=False)
class Split:
    """Samples to train on, and samples that nothing but the measurements ever sees."""

    X_train: np.ndarray
    y_train: np.ndarray
    groups_train: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    groups_test: np.ndarray


class _FastConvNet(ConvNet):
    """The same network, in the memory format that is faster on a CPU."""

    def forward(self, x):
        return super().forward(x.contiguous(memory_format=torch.channels_last))


def make_net(task):
    """Return the float network of a task, not trained."""
    if isinstance(task, OwnTask):
        return task.make_net()
    if task.name == "adult":
        return make_classifier(MLP, module__hidden_sizes=(64, 32), max_epochs=task.epochs, lr=0.002)
    if task.name == "digits":
        return make_classifier(
            ConvNet, module__widths=(12,), max_epochs=task.epochs, lr=0.005, batch_size=64
        )
    schedule = ("lr", LRScheduler("CosineAnnealingLR", T_max=task.epochs))
    return make_classifier(
        _FastConvNet,
        module__widths=(8, 24, 48, 96),
        max_epochs=task.epochs,
        lr=0.005,
        batch_size=64,
        callbacks=[schedule],
    )


@lru_cache(maxsize=2)
def load_split(task, seed):
    """Return the data of a task, split as the seed says: 70 % to train on (digits: half)."""
    load = (
        _own
        if isinstance(task, OwnTask)
        else {"adult": _adult, "digits": _digits}.get(task.name, _faces)
    )
    X, y, groups = load(task, seed)
    cells = np.char.add(np.char.add(y.astype(str), " "), groups.astype(str))
    test_size = 0.5 if task.name == "digits" else getattr(task, "test_size", 0.3)
    train, test = train_test_split(
        np.arange(len(y)), test_size=test_size, stratify=cells, random_state=seed
    )
    if isinstance(X, pd.DataFrame):
        encode = _encoder(X).fit(X.iloc[train])
        X = encode.transform(X).astype(np.float32)
    return Split(X[train], y[train], groups[train], X[test], y[test], groups[test])


def _own(task, seed):
    """Own data: labels as positions, groups as words, every class of every group at least twice."""
    X, y, groups = task.load(seed)
    X = X if isinstance(X, pd.DataFrame) else np.asarray(X, dtype=np.float32)
    y, groups = np.asarray(y), np.asarray(groups).astype(str)
    if not len(X) == len(y) == len(groups):
        raise ValueError(
            f"load of {type(task).__name__} must return X, y and groups of one length, got {len(X)}, "
            f"{len(y)} and {len(groups)}."
        )
    if task.max_samples is not None:
        rows = np.random.default_rng(0).permutation(len(y))[: task.max_samples]
        X, y, groups = X.iloc[rows] if isinstance(X, pd.DataFrame) else X[rows], y[rows], groups[rows]
    counts = pd.crosstab(groups, y)
    if (counts < 2).any(axis=None):
        group, label = counts.stack().idxmin()
        raise ValueError(
            f"{task.name}: the group {group!r} has {counts.loc[group, label]} sample(s) of the class "
            f"{label}, too few to train and to measure on; merge or drop groups in load."
        )
    return X, np.unique(y, return_inverse=True)[1].astype(np.int64), groups


@lru_cache(maxsize=1)
def _read_faces(data, image_size, max_samples):
    return load_utkface(data, image_size=image_size, max_samples=max_samples, random_state=0)


def skipped_files(task, n=5):
    """Return what is to be said about files that cannot be used, the first ``n`` by name."""
    if task.data is None:
        return ""
    skipped = _read_faces(task.data, task.image_size, task.max_samples).skipped
    if skipped.empty:
        return ""
    lines = [f"{name!r}: {reason}" for name, reason in skipped.head(n).itertuples(index=False)]
    more = ["..."] if len(skipped) > n else []
    return f"{len(skipped)} files are skipped: " + "; ".join(lines + more)


def _faces(task, _):
    faces = _read_faces(task.data, task.image_size, task.max_samples)
    X = faces.data.astype(np.float32)
    X -= 127.5
    X /= 64
    groups = faces.sensitive_features["ethnicity"].astype(str).to_numpy()
    target = faces.sensitive_features[task.name].astype(str)
    return X, np.unique(target, return_inverse=True)[1].astype(np.int64), groups.astype(str)


def _adult(task, _):
    adult = load_adult()
    people = np.arange(len(adult.target))
    if task.max_samples is not None:
        people = np.random.default_rng(0).permutation(people)[: task.max_samples]
    groups = adult.sensitive_features["race"].to_numpy(dtype=str)[people]
    y = (adult.target == ">50K").to_numpy().astype(np.int64)[people]
    return adult.data.drop(columns=["race", "sex"]).iloc[people], y, groups


def _encoder(frame):
    words = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
    numbers = [name for name in frame if name not in words]
    encode = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=50, sparse_output=False)
    fill = SimpleImputer(strategy="constant", fill_value="unknown")
    return make_column_transformer((StandardScaler(), numbers), (make_pipeline(fill, encode), words))


def _digits(task, seed):
    """Digits, some rare: a digit keeps between a quarter and all of its images; which, the seed says."""
    images, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    shares = dict(enumerate(rng.permutation(np.linspace(0.25, 1, 10))))
    kept = np.concatenate(
        [(rows := np.flatnonzero(y == d))[: round(share * len(rows))] for d, share in shares.items()]
    )
    if task.max_samples is not None:
        kept = rng.permutation(kept)[: task.max_samples]
    kept = np.sort(kept)
    X = (images[kept].reshape(-1, 1, 8, 8) / 16 - 0.3).astype(np.float32)
    return X, y[kept].astype(np.int64), y[kept].astype(str)
