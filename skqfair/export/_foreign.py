"""A model that something else wrote, read as a classifier."""

import numpy as np

from skqfair.export._inputs import batch_of, feeds, inputs_of, sample_numbers
from skqfair.export._outputs import (
    KINDS,
    choose,
    columns_of,
    comes_from,
    label_output,
    log_scores,
    stored_labels,
)

__all__ = ["ForeignModel", "check_operators"]

_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc")
_NUMBERS = 2**18  # of a batch, as of exported models


def check_operators(model, name):
    """Raise for operators that onnxruntime does not have of itself."""
    own = {function.domain for function in model.functions}
    custom = [n for n in model.graph.node if n.domain not in _DOMAINS and n.domain not in own]
    if custom:
        listed = sorted({f"{node.domain}.{node.op_type}" for node in custom})
        raise ValueError(
            f"{name} cannot be used: it has custom operators, {', '.join(listed[:5])}, which "
            "onnxruntime lacks; export it with standard operators."
        )


class ForeignModel:
    """Inputs and outputs of a model that says nothing of itself.

    Parameters
    ----------
    model : onnx.ModelProto
        The model.
    session : onnxruntime.InferenceSession
        Of it.
    classes : array-like or None
        Labels, where they are said.
    output : str, (str, str) or None
        Name of the output, and its kind, where they are said.
    name : str
        Of the file.
    """

    def __init__(self, model, session, classes, output, name):
        self.session, self.kind = session, None
        if isinstance(output, (tuple, list)):
            output, self.kind = _check_kind(output)
        self.chosen = choose(session, output, name)
        self.operator = comes_from(model, self.chosen.name)
        self.labels = label_output(session, self.chosen)
        self.inputs, self.batch = inputs_of(session, name), None
        self.batch = batch_of(self.inputs)
        self.only_labels = self.kind == "labels" or (
            self.kind is None and not self.chosen.type.startswith(("seq", "tensor(f", "tensor(d"))
        )
        self._stored = stored_labels(model)
        self.classes = _check_classes(classes, self._columns(), name)
        if self.classes is None:
            self.classes = self._stored
        self._said = self.classes is not None
        columns = self._columns()
        if self.classes is None and columns is not None:
            self.classes = np.arange(columns)

    def _columns(self):
        """Return the number of classes that the outputs are of, as far as the file says."""
        if self.only_labels:
            return None
        if self._stored is not None and self.chosen.type.startswith("seq"):
            return len(self._stored)
        columns = columns_of(self.chosen)
        return None if columns is None else max(2, columns)

    @property
    def n_features(self):
        """Features of a sample; None where the model takes other shapes or any number."""
        widths = [each.shape[1] if len(each.shape) > 1 else None for each in self.inputs]
        return None if None in widths else sum(widths)

    def logits(self, X, batch_size):
        """Return logits of samples, shape (n, C) in float64."""
        values = self._run(X, batch_size)
        logits, self.kind = log_scores(values, self.kind, self.operator, self.chosen.name)
        if self.classes is None:
            self.classes = np.arange(logits.shape[1])
        if len(self.classes) != logits.shape[1]:
            raise ValueError(
                f"the output {self.chosen.name!r} has {logits.shape[1]} columns for the classes "
                f"{self.classes.tolist()[:10]}; pass classes=[...], a label for each."
            )
        return logits

    def predicted(self, X, batch_size):
        """Return the labels of samples by an output that holds them."""
        labels = self._run(X, batch_size).reshape(-1)
        if self.operator == "ArgMax" and self._said:
            return self.classes[labels]
        return labels.astype(str) if labels.dtype.kind == "O" else labels

    def _run(self, X, batch_size):
        """Return the chosen output for all samples."""
        arrays = feeds(self.inputs, X)
        n = len(next(iter(arrays.values())))
        size = self.batch or batch_size or max(1, min(256, _NUMBERS // max(1, sample_numbers(arrays))))
        wanted = [self.chosen.name]
        if self.labels is not None and not self._said and not self.only_labels:
            wanted.append(self.labels)  # to tell whether the labels are positions
        parts = []
        for start in range(0, n, size):
            rows = {name: array[start : start + size] for name, array in arrays.items()}
            count = min(size, n - start)
            if self.batch and count < size:
                rows = {
                    name: np.concatenate([array, np.repeat(array[-1:], size - count, 0)])
                    for name, array in rows.items()
                }
            parts.append(self._checked(self.session.run(wanted, rows), count, size))
        return np.concatenate(parts)

    def _checked(self, outputs, count, size):
        values = outputs[0]
        if isinstance(values, list):
            values = self._table(values)
        expected = size if self.batch else count
        if not len(values) == expected:
            raise ValueError(
                f"the output {self.chosen.name!r} has shape {values.shape} for {expected} samples; a "
                "classifier has a row for each. Choose another one by output=..."
            )
        if len(outputs) > 1:
            found = np.unique(outputs[1].astype(str) if outputs[1].dtype.kind == "O" else outputs[1])
            columns = np.arange(2 if values.ndim == 1 else max(2, values.shape[1]))
            if found.dtype.kind not in "iub" or not np.isin(found, columns).all():
                raise ValueError(
                    f"the output {self.labels!r} has the labels {found.tolist()[:5]}, and the file does "
                    f"not say which column of {self.chosen.name!r} is whose; pass classes=[...], in the "
                    "order of the columns."
                )
        return values[:count]

    def _table(self, maps):
        """Return a list of maps, label to score, as an array in the order of the classes."""
        keys = sorted(maps[0]) if self._stored is None else self._stored.tolist()
        if self.classes is None:
            self.classes, self._said = np.array(keys), True
        return np.array([[row[key] for key in keys] for row in maps])


def _check_kind(output):
    if len(output) != 2 or output[1] not in KINDS:
        raise ValueError(
            f"output must be the name of an output, or (name, kind) with a kind of {list(KINDS)}; got "
            f"{output!r}."
        )
    return output


def _check_classes(classes, columns, name):
    if classes is None:
        return None
    classes = np.asarray(classes)
    if classes.ndim != 1 or len(classes) < 2 or len(np.unique(classes)) < len(classes):
        raise ValueError(
            f"classes must be two or more different labels, shape (C,); got {classes.tolist()!r}."
        )
    if columns not in (None, len(classes)):
        raise ValueError(f"classes has {len(classes)} labels, but {name} has {columns} outputs.")
    return classes
