"""Rows of tables, intervals over seeds, and interleaved timing: medians of ratios within a round."""

import gc
import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

torch.set_num_threads(1)


@dataclass
class Row:
    """One line of a table: what was compared, the ratio, what was asked for, and the peer's ratio."""

    what: str
    ratio: str
    target: str
    peers: str = ""


class Times(dict):
    """Seconds of each contender, round by round."""

    def median(self, name):
        """Median seconds."""
        return statistics.median(self[name])

    def ratio(self, name, base):
        """Median over the rounds of the ratio within a round: what slows a round slows both."""
        return statistics.median(a / b for a, b in zip(self[name], self[base], strict=True))


def mean_and_half(values):
    """Return the mean over the first axis, the seeds, and half of its 95 % t interval."""
    values = np.asarray(values)
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(0, ddof=1) / np.sqrt(len(values))
    return values.mean(0), half


def with_intervals(values):
    """Return the mean of each column over the seeds with its 95 % t interval, as text."""
    pairs = zip(*np.atleast_1d(*mean_and_half(values)), strict=True)
    return "; ".join(f"{mean:+.3f} ± {half:.3f}" for mean, half in pairs)


def show(tables):
    """Print tables, a row a line."""
    for title, rows in tables:
        print(f"\n{title}")
        for row in rows:
            print(f"{row.what:<48}{row.ratio}   {row.peers}", flush=True)


def interleaved(contenders, rounds):
    """Time each contender once a round, in an order that moves on each round, after a warm-up."""
    names, times = list(contenders), Times({name: [] for name in contenders})
    for i in range(rounds + 1):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            gc.collect()
            start = time.perf_counter()
            contenders[name]()
            if i:
                times[name].append(time.perf_counter() - start)
    return times
