"""Data to start with."""

from skqfair.datasets._adult import load_adult

__all__ = ["load_adult"]
