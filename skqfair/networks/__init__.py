"""Small built-in torch modules and the skorch net that trains them."""

from skqfair.networks._batches import BatchLoader, TensorData
from skqfair.networks._convnet import ConvNet
from skqfair.networks._mlp import MLP
from skqfair.networks._net import TensorNetClassifier, make_classifier
from skqfair.networks._training import TensorTraining, prediction_view, tensor_training

__all__ = [
    "MLP",
    "BatchLoader",
    "ConvNet",
    "TensorData",
    "TensorNetClassifier",
    "TensorTraining",
    "make_classifier",
    "prediction_view",
    "tensor_training",
]
