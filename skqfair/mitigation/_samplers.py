"""Which samples an epoch takes: equally many of every cell."""

import numpy as np

__all__ = ["SAMPLINGS", "CellSampler"]

SAMPLINGS = ("balanced", "oversample", "undersample")


class CellSampler:
    """Draws the order of an epoch, a new one each time, with equally many samples of every cell.

    Parameters
    ----------
    codes : ndarray of int, shape (n,)
        Cell of each sample.
    sampling : {"balanced", "oversample", "undersample"}
        "balanced": n draws, each from a cell drawn with equal chances, with replacement;
        "oversample": every sample, and of each smaller cell further ones, with replacement, up to
        the size of the largest; "undersample": of each cell as many as the smallest has, without
        replacement.
    seed : int
        Seed of the draws.
    """

    def __init__(self, codes: np.ndarray, sampling: str, seed: int):
        self.sampling, self.rng, self.n_draws = sampling, np.random.default_rng(seed), 0
        present, codes = np.unique(codes, return_inverse=True)
        order = np.argsort(codes, kind="stable")
        self.members = np.split(order, np.cumsum(np.bincount(codes, minlength=len(present)))[:-1])

    def __len__(self):
        sizes = [len(rows) for rows in self.members]
        each = {"balanced": None, "oversample": max(sizes), "undersample": min(sizes)}[self.sampling]
        return sum(sizes) if each is None else each * len(sizes)

    def draw(self) -> np.ndarray:
        """Return the positions of an epoch, ndarray of int64, shape (len(self),)."""
        self.n_draws += 1
        sizes = np.array([len(rows) for rows in self.members])
        if self.sampling == "balanced":
            cells = self.rng.integers(len(sizes), size=len(self))
            rows = (self.rng.random(len(self)) * sizes[cells]).astype(np.int64)
            starts = np.cumsum(sizes) - sizes
            return np.concatenate(self.members)[starts[cells] + rows]
        if self.sampling == "oversample":
            more = [self.rng.choice(rows, max(sizes) - len(rows)) for rows in self.members]
            drawn = [*self.members, *more]
        else:
            drawn = [self.rng.choice(rows, min(sizes), replace=False) for rows in self.members]
        return self.rng.permutation(np.concatenate(drawn))

    def __iter__(self):
        return iter(self.draw().tolist())

    @property
    def expected(self) -> float:
        """Expected draws of each cell in an epoch."""
        return len(self) / len(self.members)
