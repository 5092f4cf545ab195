"""Write a fitted classifier to an ONNX file that is complete or not there."""

import os
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from sklearn.utils.validation import check_is_fitted

from skqfair._files import write_whole
from skqfair._version import __version__
from skqfair.classifiers import FairOffsetClassifier, NetworkClassifier
from skqfair.exceptions import ExportError
from skqfair.export._integer import (
    float_quantizers,
    quantize_biases,
    quantize_outputs,
    unquantized_outputs,
)
from skqfair.export._metadata import describe, sign
from skqfair.export._opsets import TRACED, check_opset, ir_version, lowered
from skqfair.export._session import measure, open_session, run
from skqfair.export._traced_graph import trace
from skqfair.export._weights import StoredWeight, fold_batchnorm, fold_transposes, store
from skqfair.networks import Network, TorchClassifier
from skqfair.quantization import input_quantizers

__all__ = ["to_onnx"]

_CHECKED_ROWS = 5
_EXACT = 1e-4  # largest difference of outputs, times their size
_ROUNDED, _TYPICAL = 0.25, 0.05  # largest and median, times their range, where inputs are quantized


def to_onnx(estimator, path, *, X_example=None, opset=None, report=None):
    """Write a fitted classifier as an ONNX model with integer weights.

    The codes of the weights are those of the fitted ``module_``, in INT2, INT4, INT8 or INT16, the
    smallest that holds them. BatchNorm is folded into their scales. Inputs of layers are quantized as in
    ``module_``. Before the file is put into its place, it is loaded with onnxruntime and compared with
    the module on a few samples.

    Where weights and inputs have at most 8 bits, Linear and Conv layers are written so that onnxruntime
    computes them in integers. A convolution that feeds an addition needs its output quantized for that,
    which the module does not do: this is done only if ``X_example`` is given, to measure the range.

    Parameters
    ----------
    estimator : QuantizedClassifier, FairQATClassifier, PrunedClassifier or FairOffsetClassifier of one
        Fitted. The last step of a pipeline is to be passed alone.
    path : str or path
        File to write; its folder must exist. A file that is there is replaced at the end, or not at
        all.
    X_example : array-like of shape (n, ...), optional
        Samples as in ``fit``, a few hundred that represent the data. Their ranges let residual networks
        with inputs of at most 8 bits run in integers throughout, with one more rounding to 8 bits at
        each addition; see :func:`parity_report` for what that does to the groups. Without it the
        graph computes what ``module_`` computes.
    opset : int, optional
        Version of the ONNX operators: at least 25 for weights of 2 bits, 21 for those of 3, 4 and 9 to
        16 bits and for scales of groups of columns, else 13. The default is 21, or 25 where it is
        needed. Below 18 not all operations can be written.
    report : DataFrame, optional
        What :func:`skqfair.metrics.group_report` returned for the audited model, to be kept in the
        metadata of the file, with its FVO.

    Returns
    -------
    path
        As it came.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    TypeError
        If it is no classifier of this package.
    ValueError
        If the net predicts by code of its own, for labels that JSON cannot hold, or an ``opset``
        too low for the weights.
    OSError
        If ``path`` cannot be written.
    skqfair.exceptions.ExportError
        If the module cannot be expressed in ONNX; the message names the operation. Or if the written
        model computes something else than the module.

    See Also
    --------
    OnnxClassifier : Runs the file.
    parity_report : Compares it with the estimator, by group.

    References
    ----------
    Jacob, B. et al. (2018). Quantization and training of neural networks for efficient
    integer-arithmetic-only inference. CVPR.

    Examples
    --------
    >>> import os, tempfile
    >>> from sklearn.datasets import load_iris
    >>> from skqfair import QuantizedClassifier
    >>> from skqfair.export import OnnxClassifier, to_onnx
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> clf = QuantizedClassifier(weight_bits=4, random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     deployed = OnnxClassifier(to_onnx(clf, os.path.join(folder, "iris.onnx")))
    ...     bool((deployed.predict(X) == clf.predict(X)).all())
    True
    """
    if isinstance(estimator, FairOffsetClassifier):
        estimator = _with_offsets(estimator)
    network = _check_estimator(estimator)
    target = _check_path(path)
    weights = {
        name: StoredWeight.of(tensor)
        for name, tensor in getattr(estimator, "quantized_weights_", {}).items()
    }
    opset = check_opset(opset, weights)
    metadata = describe(estimator, network, report)
    if X_example is None:
        X = _made_up(estimator)
    else:
        X = estimator._prediction_input(X_example)[1]
    example = torch.as_tensor(np.resize(X[:2], (2, *X.shape[1:])))
    columns = network.class_logits if network.has_one_logit else None
    model, parameters = trace(estimator.module_, example, max(opset, TRACED), columns)
    _use_integers(model, parameters, weights, None if X_example is None else X)
    model.ir_version = ir_version(opset)
    model.producer_name, model.producer_version = "skqfair", __version__
    model.metadata_props.update(metadata)
    written = ir.to_proto(model)
    if opset < TRACED:
        written = lowered(written, opset)
    sign(written)
    content = written.SerializeToString()
    _check_outputs(content, estimator, network, X)
    write_whole(target, content)
    return path


def _with_offsets(estimator):
    """Return the classifier with the offsets in its network."""
    check_is_fitted(estimator)
    if not hasattr(estimator, "folded_classifier_"):
        raise TypeError(
            f"estimator is a FairOffsetClassifier around a {type(estimator.estimator_).__name__}, whose "
            "offsets are in no network: it must be around a QuantizedClassifier, FairQATClassifier or "
            "PrunedClassifier whose network ends in a linear layer. In a pipeline let it be the last."
        )
    return estimator.folded_classifier_


def _check_estimator(estimator):
    if isinstance(estimator, TorchClassifier):
        raise TypeError(
            "estimator is a TorchClassifier, whose weights are not quantized; pass "
            "QuantizedClassifier(estimator, weight_bits=None).fit(X, y), or fewer bits."
        )
    if not isinstance(estimator, NetworkClassifier):
        raise TypeError(
            "estimator must be a fitted QuantizedClassifier, FairQATClassifier or PrunedClassifier; got "
            f"{type(estimator).__name__}. Of a pipeline pass the last step, of a search best_estimator_."
        )
    check_is_fitted(estimator)
    if isinstance(estimator.input_shape_, dict):
        raise ValueError(
            f"estimator takes the inputs {list(estimator.input_shape_)}, but files are written of "
            "networks with one; put them into one array, which the module takes apart."
        )
    network = Network.of_trained(estimator.estimator_)
    for name in ("predict", "predict_proba"):
        if network.overrides(name):
            raise ValueError(
                f"estimator predicts by {type(network.net).__name__}.{name}, which is Python: the file "
                "would hold another model. Put that computation into the module."
            )
    if network.has_own_probabilities:
        raise ValueError(
            "estimator has a net with a predict_nonlinearity of its own, which is Python: the file "
            "would hold another model. Put that computation into the module."
        )
    return network


def _check_path(path):
    """Return the file to write, after the errors that writing it would end in."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be the path of the file to write; got {type(path).__name__}.")
    target = Path(os.path.realpath(path))  # a link stays a link
    if target.is_dir():
        raise IsADirectoryError(f"path must be a file, but {str(path)!r} is a folder.")
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"path: the folder {str(target.parent)!r} does not exist; create it first."
        )
    if not os.access(target.parent, os.W_OK):
        raise PermissionError(f"path: the folder {str(target.parent)!r} cannot be written to.")
    return target


def _made_up(estimator):
    """Return samples of the shape that the module takes; numbers that all its embeddings know."""
    shape, dtype = (_CHECKED_ROWS, *estimator.input_shape_), estimator._input_dtype
    rng = np.random.default_rng(0)
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    sizes = [getattr(m, "num_embeddings", None) for m in estimator.module_.modules()]
    return rng.integers(0, min((size for size in sizes if size), default=1), shape).astype(dtype)


def _use_integers(model, parameters, weights, X):
    """Put codes into the graph in the place of weights, and prepare it for integer kernels."""
    graph = model.graph
    stored = {}
    for name, weight in weights.items():
        first, *others = parameters.get(name, [None])
        for other in others:  # a shared parameter is stored once
            ir.convenience.replace_all_uses_with(other, first)
            del graph.initializers[other.name]
        if first is not None:
            stored[first] = weight
    fold_transposes(graph, stored)
    fold_batchnorm(graph, stored)
    store(graph, stored)
    float_quantizers(graph)
    if X is not None:
        values = unquantized_outputs(graph)
        quantize_outputs(graph, measure(model, values, X) if values else {})
    quantize_biases(graph)
    RemoveUnusedNodesPass()(model)


def _check_outputs(content, estimator, network, X):
    """Raise if the written model computes something else than the module."""
    X = X[:_CHECKED_ROWS]
    wanted = network.outputs(X, estimator.module_).double().numpy()
    if not np.isfinite(wanted).all():
        raise ExportError(
            f"{type(estimator.module_).__name__} gives outputs that are not finite for the samples that "
            "the export is checked on; pass some of yours as X_example."
        )
    try:
        got = run(open_session(content, 1), X)
    except Exception as error:
        raise ExportError(f"onnxruntime cannot run the exported model: {error}") from error
    different = np.abs(got - wanted) if got.shape == wanted.shape else np.full_like(wanted, np.inf)
    least = _EXACT * max(1.0, np.abs(wanted).max())
    rounded = bool(input_quantizers(estimator.module_)) * np.ptp(wanted)
    for which, found, share in (
        ("the largest", different.max(), _ROUNDED),
        ("half of the", np.median(different), _TYPICAL),
    ):
        limit = max(least, share * rounded)
        if not found <= limit:
            raise ExportError(
                f"the exported model computes something else than module_: {which} differences of "
                f"outputs are {found:.3g} or more where {limit:.3g} is allowed, on {len(X)} samples. "
                "Usual causes are a method infer or a collate function of the net that changes the "
                "input, and operations that torch exports wrongly."
            )
