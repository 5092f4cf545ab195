"""Classifiers: a skorch network, trained, then compressed."""

from skqfair.classifiers._base import NetworkClassifier
from skqfair.classifiers._fair_offset import FairOffsetClassifier
from skqfair.classifiers._fair_qat import FairQATClassifier
from skqfair.classifiers._pruned import PrunedClassifier
from skqfair.classifiers._quantized import QuantizedClassifier

__all__ = [
    "FairOffsetClassifier",
    "FairQATClassifier",
    "NetworkClassifier",
    "PrunedClassifier",
    "QuantizedClassifier",
]

for _class in (FairOffsetClassifier, FairQATClassifier, PrunedClassifier, QuantizedClassifier):
    _class.__module__ = "skqfair"  # the name in saved files, which no move of a file changes
