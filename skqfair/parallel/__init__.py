"""Searches on many machines. Importing this registers ``backend="dask_resilient"`` with joblib."""

from skqfair.parallel._dask_backend import register
from skqfair.parallel._warm_up import warm_up

__all__ = ["warm_up"]

register()
