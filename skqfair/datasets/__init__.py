"""Data to start with."""

from skqfair.datasets._adult import load_adult
from skqfair.datasets._utkface import load_utkface

__all__ = ["load_adult", "load_utkface"]
