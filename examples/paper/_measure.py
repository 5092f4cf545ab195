"""What is measured of a network, on held-out samples: as a whole, and by group."""

import numpy as np
from scipy.special import log_softmax

from skqfair import fairness_violation_observed
from skqfair.diagnostics import group_gradient_norms, group_hessian_eigenvalues
from skqfair.metrics import group_report
from skqfair.quantization import quantizable_weights

__all__ = ["CurvatureSamples", "measure"]


def measure(clf, split, **keys):
    """Return the row of a fitted classifier in the table of models, and its rows by group."""
    z = clf.decision_function(split.X_test)
    z = np.column_stack([np.zeros(len(z)), z]) if z.ndim == 1 else z
    log_p = log_softmax(z, axis=1)
    correct = z.argmax(axis=1) == split.y_test
    samples = {
        "accuracy": correct,
        "loss": -log_p[np.arange(len(z)), split.y_test],
        "logit_variance": z.var(axis=1),
        "boundary_closeness": 1 - np.square(np.exp(log_p)).sum(axis=1),
    }
    groups = {"sensitive_features": split.groups_test}
    report = group_report(split.y_test, z.argmax(axis=1), random_state=0, **groups)
    model = {
        **keys,
        "bytes": int(clf.model_size_),
        "sparsity": _sparsity(clf.module_),
        **{name: float(values.mean()) for name, values in samples.items()},
        "fvo": fairness_violation_observed(split.y_test, z.argmax(axis=1), **groups),
        "fvo_chance": float(report.attrs["fvo_chance"].quantile),
    }
    rows = []
    for group in np.unique(split.groups_test):
        own = split.groups_test == group
        row = {**keys, "group": str(group), "n_train": int(np.sum(split.groups_train == group))}
        row.update({name: float(values[own].mean()) for name, values in samples.items()})
        rows.append(row)
    return model, rows


def _sparsity(module):
    """Return the share of the weights that are 0."""
    parameters = dict(module.named_parameters())
    weights = [parameters[name] for name in quantizable_weights(module)]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


class CurvatureSamples:
    """Held-out samples for gradients and curvature, the same for all versions of a network.

    "plain": all of each group for gradients, up to ``most`` of each for eigenvalues; "matched": as
    many of each group as the smallest has, for both.
    """

    def __init__(self, split, most, seed):
        self.split, rng = split, np.random.default_rng(seed)
        self.names, self.counts = np.unique(split.groups_test, return_counts=True)
        self.drawn = [rng.permutation(np.flatnonzero(split.groups_test == name)) for name in self.names]
        self.matched = min(*self.counts, most)
        self.plain = np.minimum(self.counts, most)
        self.larger = self.plain > self.matched  # the others are the same samples in both
        self.start = {"plain": None, "matched": None}

    def measure(self, module, only_matched=False, **keys):
        """Return the rows of a module; its eigenvectors start the next one's.

        With ``only_matched`` the plain eigenvalues of groups that are larger are NaN, of 0 samples, to
        save time.
        """
        everyone = np.arange(len(self.split.y_test))
        groups = np.arange(len(self.names))
        matched = self._rows(np.full(len(groups), self.matched))
        values = self._eigenvalues(module, matched, "matched")
        plain_values = np.where(self.larger, np.nan, values)
        if self.larger.any() and not only_matched:
            larger = self._rows(np.where(self.larger, self.plain, 0))
            plain_values[self.larger] = self._eigenvalues(module, larger, "plain")
        n_plain = np.where(np.isnan(plain_values), 0, self.plain)
        plain = self._norms(module, everyone), self.counts, plain_values, n_plain
        sizes = np.full(len(groups), self.matched)
        found = []
        for name, (norms, n_norms, eigenvalues, n_eigenvalues) in {
            "plain": plain,
            "matched": (self._norms(module, matched), sizes, values, sizes),
        }.items():
            for g in groups:
                row = {**keys, "sizes": name, "group": str(self.names[g])}
                row["n_train"] = int(np.sum(self.split.groups_train == self.names[g]))
                row.update(n_gradient=int(n_norms[g]), gradient_norm=float(norms[g]))
                row.update(n_hessian=int(n_eigenvalues[g]))
                row.update(hessian_max_eigenvalue=float(eigenvalues[g]))
                found.append(row)
        return found

    def _rows(self, sizes):
        return np.concatenate([rows[:n] for rows, n in zip(self.drawn, sizes, strict=True)])

    def _norms(self, module, rows):
        split = self.split
        return group_gradient_norms(
            module, split.X_test[rows], split.y_test[rows], split.groups_test[rows]
        )

    def _eigenvalues(self, module, rows, sizes):
        split = self.split
        values, self.start[sizes] = group_hessian_eigenvalues(
            module,
            split.X_test[rows],
            split.y_test[rows],
            split.groups_test[rows],
            tol=0.05,
            v0=self.start[sizes],
            return_eigenvectors=True,
        )
        return values[:, 0]
