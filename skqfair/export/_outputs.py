"""The outputs of a model of unknown making: which to take, what it holds, and of which labels."""

import numpy as np

__all__ = ["KINDS", "choose", "columns_of", "comes_from", "label_output", "log_scores", "stored_labels"]

KINDS = ("logits", "logit", "probabilities", "probability", "labels")
"""What an output may hold: of all classes, of the second of two, or the labels alone."""

_FLOATS = ("tensor(float)", "tensor(double)", "tensor(float16)")
_LABELS = ("tensor(string)", "tensor(int64)", "tensor(int32)", "tensor(bool)")
# what changes neither kind nor order of values
_PASSING = {
    *("Cast", "DequantizeLinear", "Flatten", "Identity", "QuantizeLinear", "Reshape", "Squeeze"),
    *("Unsqueeze", "ZipMap"),
}
_SUMS = {"Add", "Conv", "Gemm", "MatMul", "QGemm", "QLinearAdd", "QLinearMatMul", "Sub"}
_LABEL_ATTRIBUTES = ("classlabels_int64s", "classlabels_ints", "classlabels_strings")


def choose(session, output, name):
    """Return the output to take.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        Of the model.
    output : str or None
        Its name; None takes the only one, or of labels and scores the scores.
    name : str
        Of the file.

    Returns
    -------
    onnxruntime.NodeArg

    Raises
    ------
    ValueError
        That lists the outputs, where none or several could be meant.
    """
    outputs = session.get_outputs()
    listed = "; ".join(f"{each.name!r}: {each.type} {each.shape}" for each in outputs)
    if output is not None:
        found = [each for each in outputs if each.name == output]
        if not found:
            raise ValueError(f"output={output!r} is not among the outputs of {name}: {listed}.")
    elif len(outputs) == 1:
        found = outputs
    else:
        found = [each for each in outputs if _has_scores(each)]
        labels = [each for each in outputs if each.type in _LABELS]
        if len(found) != 1 or len(labels) != 1 or len(outputs) > 2:
            raise ValueError(f"{name} has several outputs; choose one by output=...: {listed}.")
    chosen = found[0]
    if not _has_scores(chosen) and chosen.type not in _LABELS:
        raise ValueError(
            f"{name} cannot be used: its output {chosen.name!r} is {chosen.type} {chosen.shape}; a "
            "classifier has scores of float, shape (n, C) or (n, 1), or labels, shape (n,)."
        )
    return chosen


def _has_scores(output):
    if output.type.startswith("seq(map("):
        return True
    return output.type in _FLOATS and (not output.shape or len(output.shape) <= 2)


def label_output(session, chosen):
    """Return the name of the one output of labels beside the chosen one; None where there is none."""
    found = [each for each in session.get_outputs() if each.type in _LABELS]
    return found[0].name if len(found) == 1 and found[0].name != chosen.name else None


def stored_labels(model):
    """Return the labels that the operators of classifiers name; None where they name none or several."""
    found = {}
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name in _LABEL_ATTRIBUTES and (attribute.ints or attribute.strings):
                strings = [text.decode() for text in attribute.strings]
                labels = tuple(strings or attribute.ints)
                found[node.op_type == "ZipMap", labels] = labels
    zipped = [labels for (is_map, _), labels in found.items() if is_map]
    distinct = set(zipped or found.values())
    return np.array(distinct.pop()) if len(distinct) == 1 else None


def comes_from(model, output):
    """Return the kind of operator that makes an output, before casts, reshapes and rounding to codes."""
    makers = {name: node for node in model.graph.node for name in node.output}
    node = makers.get(output)
    while node is not None and node.op_type in _PASSING:
        node = makers.get(node.input[0])
    return None if node is None else node.op_type


def columns_of(chosen):
    """Return how many columns an output has, as far as the file says."""
    if chosen.type.startswith("seq") or not chosen.shape:
        return None
    if len(chosen.shape) == 1:
        return 1
    return chosen.shape[1] if isinstance(chosen.shape[1], int) else None


def log_scores(values, kind, operator, name):
    """Return logits of all classes, and the kind that was found.

    Parameters
    ----------
    values : ndarray of shape (n, C), (n, 1) or (n,)
        Of the output.
    kind : str or None
        One of :data:`KINDS`, or None to find out.
    operator : str or None
        That made them.
    name : str
        Of the output.

    Returns
    -------
    logits : ndarray of float64, shape (n, C)
        For a single output C is 2.
    kind : str
    """
    values = values.astype(np.float64)
    if values.ndim not in (1, 2):
        raise ValueError(
            f"the output {name!r} has shape {values.shape}; a classifier has scores of shape (n, C), "
            "(n, 1) or (n,). Choose another one by output=..."
        )
    if np.isnan(values).any():
        raise ValueError(f"the output {name!r} is NaN for some samples; check the range of X.")
    single = values.ndim == 1 or values.shape[1] == 1
    if kind is None:
        kind = _single(values, operator, name) if single else _several(values, operator)
    if single != (kind in ("logit", "probability")):
        raise ValueError(f"the output {name!r} has shape {values.shape}, which is no {kind}.")
    if single:
        values = values.reshape(-1)
        first = 1 - values if kind == "probability" else np.zeros_like(values)
        values = np.column_stack([first, values])
    if kind.startswith("prob"):
        values = np.log(np.maximum(values, np.finfo(np.float64).tiny))
    return values, kind


def _single(values, operator, name):
    if operator == "Sigmoid":
        return "probability"
    if operator in _SUMS or ((values < 0) | (values > 1)).any():
        return "logit"
    raise ValueError(
        f"the output {name!r} is one number from {values.min():.3g} to {values.max():.3g} for these "
        f"{len(values)} samples, a logit or a probability; say which with output=({name!r}, 'logit') or "
        f"output=({name!r}, 'probability')."
    )


def _several(values, operator):
    if operator == "Softmax":
        return "probabilities"
    sums = (values >= 0).all() and np.allclose(values.sum(1), 1, atol=1e-2)
    return "probabilities" if sums else "logits"
