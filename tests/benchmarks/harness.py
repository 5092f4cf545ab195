"""Interleaved timing: every contender in every round, medians of ratios within a round."""

import gc
import statistics
import time
from dataclasses import dataclass

import torch

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
