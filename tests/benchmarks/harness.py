"""Interleaved timing: every contender in turn, many rounds, medians; so that noise hits all alike."""

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


def interleaved(contenders, rounds):
    """Median seconds of each contender, called in turn ``rounds`` times after one warm-up."""
    times = {name: [] for name in contenders}
    for i in range(rounds + 1):
        for name, call in contenders.items():
            gc.collect()
            start = time.perf_counter()
            call()
            if i:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}
