"""Ctrl-C while a net trains: skorch ends the training there and returns as if it were done."""

import signal
import threading
from contextlib import contextmanager

__all__ = ["raised_interrupts"]


@contextmanager
def raised_interrupts():
    """Raise KeyboardInterrupt at the end of the block if SIGINT came in it and was swallowed.

    A callback that ends its training, as skorch's ``EarlyStopping``, raises KeyboardInterrupt too,
    but sends no signal: that training is done. Threads other than the main one get no signals.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    seen = []

    def handler(number, frame):
        seen.append(number)
        return before(number, frame)

    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if seen:
        raise KeyboardInterrupt
