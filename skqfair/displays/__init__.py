"""Pictures of results, in matplotlib; made from tables, never from the insides of estimators."""

from skqfair.displays._bit_width import BitWidthDisplay

__all__ = ["BitWidthDisplay"]
