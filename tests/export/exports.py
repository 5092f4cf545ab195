"""Networks that the tests of the export share, and looks into the files that it writes."""

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch
from torch import nn

from skqfair import QuantizedClassifier
from skqfair.export import OnnxClassifier, to_onnx
from skqfair.networks import make_classifier


def rows(n=64, n_features=5, seed=0):
    """Samples of a table."""
    return np.random.default_rng(seed).standard_normal((n, n_features)).astype(np.float32)


def images(n=32, channels=2, size=8, seed=0):
    """Samples of noise in two dimensions."""
    shape = (n, channels, size, size)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def seeded(make, seed=0):
    """What a function makes of torch's generator, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().eval()


def mlp(n_classes=3):
    return seeded(lambda: nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, n_classes)))


def fitted(module, X, y=None, *, kind=QuantizedClassifier, **options):
    """A classifier around a module as it is."""
    y = np.arange(len(X)) % 3 if y is None else y
    return kind(make_classifier(module, max_epochs=0), random_state=0, **options).fit(X, y)


def compare(classifier, path, X, **options):
    """Largest difference of logits between a classifier and its export, and their size."""
    wanted = classifier.decision_function(X)
    got = OnnxClassifier(to_onnx(classifier, path, **options)).decision_function(X)
    return np.abs(got - wanted).max(), max(1.0, np.abs(wanted).max())


def operations(path):
    """Count what onnxruntime really computes, by the name of the operation."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(path.with_suffix(".optimized"))
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    model = onnx.load(options.optimized_model_filepath, format="protobuf")
    return Counter(node.op_type for node in model.graph.node)


def codes(path, name):
    """The integers that a file stores for a parameter, and the name of their type."""
    (value,) = (
        value for key, value in ir.load(path).graph.initializers.items() if key == f"{name}.codes"
    )
    tensor = value.const_value
    return tensor.numpy().astype(np.int64), tensor.dtype.name


def constants(path, ending):
    """The arrays of a file whose names end so."""
    return [
        value.const_value.numpy()
        for key, value in ir.load(path).graph.initializers.items()
        if key.endswith(ending)
    ]
