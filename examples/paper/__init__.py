"""The parts of ``reproduce_paper.py``. ``OwnTask`` is the base of a study of your own data."""

from paper._tasks import OwnTask

__all__ = ["OwnTask"]
