"""Small built-in torch modules, and all that knows skorch: batches, training, fine-tuning."""

from skqfair.networks._augmentation import ImageAugmentation
from skqfair.networks._batches import BatchLoader, TensorData
from skqfair.networks._convnet import ConvNet, ResidualBlock
from skqfair.networks._distillation import Distillation
from skqfair.networks._fine_tuning import LEARNING_RATE_RATIO, Tuning, fine_tune
from skqfair.networks._make_classifier import TensorNetClassifier, make_classifier
from skqfair.networks._mlp import MLP
from skqfair.networks._module_outputs import BothProbabilities, read_weights
from skqfair.networks._torch_classifier import TorchClassifier
from skqfair.networks._training import TensorTraining, prediction_view, tensor_training
from skqfair.networks._wrapped import SKORCH_CLASSIFIERS, Network

__all__ = [
    "LEARNING_RATE_RATIO",
    "MLP",
    "SKORCH_CLASSIFIERS",
    "BatchLoader",
    "ConvNet",
    "Distillation",
    "ImageAugmentation",
    "Network",
    "TensorData",
    "TensorNetClassifier",
    "TensorTraining",
    "TorchClassifier",
    "Tuning",
    "fine_tune",
    "make_classifier",
    "prediction_view",
    "read_weights",
    "tensor_training",
]

for _class in (
    BatchLoader,
    BothProbabilities,
    ConvNet,
    ImageAugmentation,
    MLP,
    ResidualBlock,
    TensorData,
    TensorNetClassifier,
    TorchClassifier,
):
    _class.__module__ = "skqfair.networks"  # the name in saved files, which no move of a file changes
