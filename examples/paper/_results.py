"""The tables of a study, by what was measured: arrays over seeds, in the same order everywhere."""

import warnings

import numpy as np
from scipy.stats import rankdata

from paper._stages import FLOAT, QUANTIZERS, mitigated_bits

__all__ = ["Results"]

_FEW = 4  # bits up to which the claims expect an effect that can be seen


class Results:
    """Arrays out of the tables; the last axis has the seeds.

    Parameters
    ----------
    tables : dict of DataFrame
        "models", "groups" and "curvature".

    Attributes
    ----------
    bits, few : list of int
        All widths, and those of at most 4 bits, the most bits first.
    fewest, mitigated : int
        The fewest bits, and those of the mitigations.
    """

    def __init__(self, tables):
        keys = ["task", "method", "weights", "activations"]
        self.models = tables["models"].set_index([*keys, "seed"]).unstack("seed")
        self.groups = tables["groups"].set_index([*keys, "group", "seed"]).unstack("seed")
        keys = ["task", "method", "weights", "sizes", "group", "seed"]
        self._curvature = tables["curvature"].set_index(keys).unstack("seed")
        self.models, self.groups, self._curvature = (
            frame.sort_index() for frame in (self.models, self.groups, self._curvature)
        )
        self.tasks = list(dict.fromkeys(tables["models"]["task"]))
        self.quantizers = list(QUANTIZERS)
        widths = set(tables["models"]["weights"]) - {FLOAT}
        self.bits = sorted(widths, reverse=True)
        self.fewest = self.bits[-1]
        self.few = [b for b in self.bits if b <= _FEW] or [self.fewest]
        self.mitigated = mitigated_bits(self.bits)

    def model(self, column, task, method, weights=None, activations=None):
        """Return a column of the models, shape (seeds,); None is float."""
        key = (task, method, weights or FLOAT, activations or FLOAT)
        return self.models[column].loc[key].to_numpy()

    def fvo(self, task, method, weights=None, activations=None):
        """Return FVO, shape (seeds,)."""
        return self.model("fvo", task, method, weights, activations)

    def by_group(self, column, task, method, weights=None, activations=None):
        """Return a column by group, shape (groups, seeds), groups sorted by name."""
        key = (task, method, weights or FLOAT, activations or FLOAT)
        return self.groups[column].loc[key].to_numpy()

    def group_names(self, task):
        """Return the names of the groups, sorted."""
        return self.groups.loc[(task, "float", FLOAT, FLOAT)].index.to_list()

    def sizes(self, task):
        """Return how many of each group are trained on, shape (groups, seeds)."""
        return self.by_group("n_train", task, "float")

    def curvature(self, column, sizes, task, method, weights=None):
        """Return a column of the curvature by group, shape (groups, seeds); None is float."""
        return self._curvature[column].loc[(task, method, weights or FLOAT, sizes)].to_numpy()

    @staticmethod
    def correlation(x, y):
        """Return Spearman's correlation along the first axis, NaN where there is nothing to rank."""
        x = np.broadcast_to(x if np.ndim(x) > 1 else np.reshape(x, (-1, 1)), y.shape)
        x, y = (rankdata(v, axis=0) - (len(y) + 1) / 2 for v in (x, y))
        with np.errstate(invalid="ignore"):
            return (x * y).sum(axis=0) / np.sqrt(np.square(x).sum(axis=0) * np.square(y).sum(axis=0))

    @staticmethod
    def mean(arrays):
        """Return the mean over the first axis of what is not NaN."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # all NaN: there is no mean
            return np.nanmean(np.stack(arrays), axis=0)
