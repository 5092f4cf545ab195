"""What the file says about itself: labels, input, bits, version and the audit."""

import hashlib
import json
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from skqfair._version import __version__

__all__ = ["Metadata", "describe", "is_intact", "read", "sign"]

_FORMAT = 1
_PREFIX = "skqfair."
_DIGEST = _PREFIX + "digest"


@dataclass(frozen=True)
class Metadata:
    """The metadata of an exported model.

    Attributes
    ----------
    version : str
        Of the package that wrote the file.
    estimator : str
        Name of the class that was exported.
    classes : ndarray of shape (C,)
        Labels.
    input_shape : tuple of int
        Shape of one sample.
    input_dtype : str
        Dtype of the samples in ``fit``.
    returns_logits : bool
        Whether the outputs are logits, else probabilities.
    layer_bits : dict of str to (int or list of int)
        Bits of the weights, 32 for float.
    activation_bits : dict of str to int
        Bits of the inputs of layers.
    model_size : int
        ``model_size_`` of the estimator.
    feature_names : list of str, or None
        Column names in ``fit``.
    batch_size : int or None
        Of the estimator, where the rows of a batch see each other; else None.
    report : dict, or None
        ``fvo``, ``fvo_interval``, ``fvo_chance`` and ``groups``, of the audit.
    """

    version: str
    estimator: str
    classes: np.ndarray
    input_shape: tuple
    input_dtype: str
    returns_logits: bool
    layer_bits: dict
    activation_bits: dict = field(default_factory=dict)
    model_size: int = 0
    feature_names: list | None = None
    report: dict | None = None
    batch_size: int | None = None


def describe(estimator, network, report):
    """Return the metadata of an estimator as strings, for the file.

    Parameters
    ----------
    estimator : NetworkClassifier
        Fitted.
    network : Network
        Its own.
    report : DataFrame or None
        From :func:`skqfair.metrics.group_report`.

    Returns
    -------
    dict of str to str
    """
    from skqfair.quantization import input_quantizers  # with torch, which reading does without

    names = getattr(estimator, "feature_names_in_", None)
    quantizers = input_quantizers(estimator.module_)
    entries = {
        "format": _FORMAT,
        "version": __version__,
        "estimator": type(estimator).__name__,
        "classes": _encode_labels(estimator.classes_),
        "input_shape": [int(size) for size in estimator.input_shape_],
        "input_dtype": str(estimator._input_dtype),
        "n_features_in": int(estimator.n_features_in_),
        "returns_logits": network.returns_logits,
        "layer_bits": {name: np.asarray(bits).tolist() for name, bits in estimator.layer_bits_.items()},
        "activation_bits": {name: int(found.bits) for name, found in quantizers.items()},
        "model_size": int(estimator.model_size_),
        "feature_names": None if names is None else [str(name) for name in names],
        "batch_size": _batch_size(estimator, network),
        "report": None if report is None else _encode_report(report),
    }
    return {_PREFIX + name: json.dumps(entry) for name, entry in entries.items()}


def _batch_size(estimator, network):
    """Return the batches in which rows see each other as in the estimator, None where they do not."""
    together = estimator._block is None and len(estimator.input_shape_) == 1
    return int(network.batch_size(1)) if together else None


def sign(model):
    """Add a digest of all that an onnx.ModelProto computes, and of what it says, to its metadata."""
    entry = model.metadata_props.add()
    entry.key, entry.value = _DIGEST, json.dumps(_digest(model))


def is_intact(model):
    """Tell whether the digest of an onnx.ModelProto is that of its content; True where it has none."""
    found = {entry.key: entry.value for entry in model.metadata_props}
    return _DIGEST not in found or found[_DIGEST] == json.dumps(_digest(model))


def _digest(model):
    """Return the digest of graph, operators and our own entries: a changed label is no other's model."""
    entries = sorted((entry.key, entry.value) for entry in model.metadata_props)
    own = [entry for entry in entries if entry[0].startswith(_PREFIX) and entry[0] != _DIGEST]
    opsets = sorted((opset.domain, opset.version) for opset in model.opset_import)
    said = json.dumps([own, opsets, model.ir_version])
    graph = model.graph.SerializeToString(deterministic=True)
    return hashlib.sha256(said.encode() + b"\0" + graph).hexdigest()


def read(entries):
    """Return the :class:`Metadata` in the strings of a file.

    Parameters
    ----------
    entries : dict of str to str
        Metadata of an ONNX model.

    Returns
    -------
    Metadata

    Raises
    ------
    ValueError
        If they are not of this package, or of another format.
    """
    own = {name.removeprefix(_PREFIX): e for name, e in entries.items() if name.startswith(_PREFIX)}
    try:
        found = {name: json.loads(entry) for name, entry in own.items()}
    except ValueError as error:
        raise ValueError(f"its metadata are damaged: {error}; export the estimator again.") from error
    if "format" not in found:
        raise ValueError("it has no metadata of skqfair; write it with skqfair.export.to_onnx.")
    if found["format"] != _FORMAT:
        raise ValueError(
            f"skqfair {found.get('version')} wrote it in format {found['format']}, and skqfair "
            f"{__version__} reads format {_FORMAT}; export the estimator again with this one."
        )
    found.setdefault("batch_size", None)
    missing = set(Metadata.__dataclass_fields__) - set(found)
    if missing:
        raise ValueError(f"its metadata lack {sorted(missing)}; export the estimator again.")
    try:
        classes = _decode_labels(found["classes"])
    except (KeyError, TypeError) as error:
        raise ValueError(
            "the labels in its metadata are damaged; export the estimator again."
        ) from error
    return Metadata(
        classes=classes,
        input_shape=tuple(found["input_shape"]),
        **{
            name: found[name]
            for name in Metadata.__dataclass_fields__
            if name not in ("classes", "input_shape")
        },
    )


def _encode_labels(classes):
    classes = np.asarray(classes)
    values = classes.tolist()
    kind = classes.dtype.kind
    if kind in "biufU" or (kind == "O" and all(isinstance(value, str) for value in values)):
        return {"dtype": classes.dtype.str if kind != "O" else "O", "values": values}
    raise ValueError(
        f"classes_ have dtype {classes.dtype} and the values {values[:3]}; the metadata of ONNX "
        "can hold strings, numbers and booleans. Train on labels of one of these types."
    )


def _decode_labels(found):
    return np.array(found["values"], dtype=found["dtype"])


def _encode_report(report):
    if not isinstance(report, pd.DataFrame) or "fvo" not in report.attrs:
        raise ValueError(
            "report must be the frame that skqfair.metrics.group_report returned, with its attrs; got "
            f"{type(report).__name__}."
        )
    attrs = {name: np.asarray(value).tolist() for name, value in report.attrs.items()}
    groups = report.reset_index().astype(object).to_dict("records")
    rows = [{str(k): v if isinstance(v, (int, float)) else str(v) for k, v in r.items()} for r in groups]
    return {**attrs, "groups": rows}
