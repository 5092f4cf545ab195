"""Small built-in torch modules, and all that knows skorch: batches, training, fine-tuning."""

from skqfair.networks._augmentation import ImageAugmentation
from skqfair.networks._batches import BatchLoader, TensorData
from skqfair.networks._convnet import ConvNet, ResidualBlock
from skqfair.networks._distillation import Distillation
from skqfair.networks._fine_tuning import LEARNING_RATE_RATIO, Tuning, fine_tune
from skqfair.networks._make_classifier import TensorNetClassifier, make_classifier
from skqfair.networks._mlp import MLP
from skqfair.networks._training import TensorTraining, prediction_view, tensor_training
from skqfair.networks._wrapped import Network

__all__ = [
    "LEARNING_RATE_RATIO",
    "MLP",
    "BatchLoader",
    "ConvNet",
    "Distillation",
    "ImageAugmentation",
    "Network",
    "TensorData",
    "TensorNetClassifier",
    "TensorTraining",
    "Tuning",
    "fine_tune",
    "make_classifier",
    "prediction_view",
    "tensor_training",
]

for _class in (
    BatchLoader,
    ConvNet,
    ImageAugmentation,
    MLP,
    ResidualBlock,
    TensorData,
    TensorNetClassifier,
):
    _class.__module__ = "skqfair.networks"  # the name in saved files, which no move of a file changes
