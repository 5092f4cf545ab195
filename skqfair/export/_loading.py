"""A model file that is loaded: its content, what it says of itself, a session that runs it."""

import os
from pathlib import Path

import onnx
from onnx.external_data_helper import load_external_data_for_model, uses_external_data

from skqfair.export._foreign import ForeignModel, check_operators
from skqfair.export._metadata import is_intact, read
from skqfair.export._session import open_session

__all__ = ["Loaded"]


class Loaded:
    """The content of a file, its metadata, and a session that is opened when it is needed."""

    def __init__(self, path, n_threads, classes=None, output=None, *, content=None):
        self.path, self.n_threads, self.classes, self.output = path, n_threads, classes, output
        self.is_one_file = content is not None or isinstance(path, (bytes, bytearray))
        self.content, name = _read(path) if content is None else (content, "the saved model")
        self._open(name)

    def is_of(self, path, n_threads, classes, output):
        own = self.path == path and self.n_threads == n_threads and self.output == output
        return own and self.classes is classes

    def _open(self, name):
        try:
            model = onnx.load_from_string(self.content)
        except Exception as error:
            raise _not_loaded(name, error) from error
        entries = {entry.key: entry.value for entry in model.metadata_props}
        own = model.producer_name == "skqfair" or any(key.startswith("skqfair.") for key in entries)
        if not own:
            model = self._take_external(model, name)
            check_operators(model, name)
        self.metadata = self._own_metadata(entries, name) if own else None  # another format says so
        _check_content(model, name)
        try:
            self.session = open_session(self.content, self.n_threads)
        except Exception as error:
            raise _not_loaded(name, error) from error
        self.foreign = None
        if own:
            self._check_columns(name)
        else:
            options = self.classes, self.output, name
            self.foreign = ForeignModel(model, self.session, *options)

    def _take_external(self, model, name):
        """Return the model with the weights that are in other files of its folder."""
        outside = [tensor for tensor in _tensors(model.graph) if uses_external_data(tensor)]
        if not outside or self.is_one_file:
            return model
        try:
            load_external_data_for_model(model, str(Path(self.path).parent))
            self.content = model.SerializeToString()
        except Exception as error:  # a missing file, one outside the folder, more than 2 GB
            raise ValueError(
                f"{name} cannot be used: its weights {[t.name for t in outside[:3]]} are in another "
                f"file, which cannot be read ({error}). Keep it in the folder of the model, or save one "
                "file: onnx.save(onnx.load(path), path)."
            ) from error
        return model

    def _own_metadata(self, entries, name):
        if self.classes is not None or self.output is not None:
            raise ValueError(
                f"{name} was written by skqfair and says itself which classes and output it has; leave "
                "classes and output None."
            )
        try:
            return read(entries)
        except ValueError as error:
            raise ValueError(f"{name} cannot be used: {error}") from error

    def _check_columns(self, name):
        columns, n_classes = self.session.get_outputs()[0].shape[-1], len(self.metadata.classes)
        if isinstance(columns, int) and columns != n_classes:
            raise ValueError(
                f"{name} cannot be used: it has {columns} outputs for {n_classes} classes; export the "
                "estimator again."
            )


def _not_loaded(name, error):
    return ValueError(
        f"{name} cannot be loaded: it is truncated or no ONNX model ({error}). Export the estimator "
        "again."
    )


def _check_content(model, name):
    """Raise for a model whose weights are in other files, or are not those that were written."""
    outside = [tensor.name for tensor in _tensors(model.graph) if uses_external_data(tensor)]
    if outside:
        raise ValueError(
            f"{name} cannot be used: the weights {outside[:3]} are in another file, of which nothing is "
            "known here. Save it as one file: onnx.save(onnx.load(path), path)."
        )
    if not is_intact(model):
        raise ValueError(
            f"{name} is damaged or was changed: its digest is not that of what it computes. Export the "
            "estimator again."
        )


def _tensors(graph):
    """Yield all tensors that a graph holds."""
    yield from graph.initializer
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        yield from [*([attribute.t] if attribute.HasField("t") else ()), *attribute.tensors]
        for inner in [*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs]:
            yield from _tensors(inner)


def _read(path):
    if isinstance(path, (bytes, bytearray)):
        return bytes(path), "the model"
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(
            f"path must be the path of an ONNX file or its bytes; got {type(path).__name__}."
        )
    if not Path(path).is_file():
        raise FileNotFoundError(f"path: there is no file {str(path)!r}; write it with to_onnx.")
    return Path(path).read_bytes(), repr(str(path))
