"""Classifiers: a skorch network, trained, then compressed."""

from skqfair.classifiers._quantized import QuantizedClassifier

__all__ = ["QuantizedClassifier"]
