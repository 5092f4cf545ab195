"""Audits as JSON, and back."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd

__all__ = ["dump", "load"]

FORMAT = 3


def dump(tables, context):
    """Return tables and context as text."""
    content = {
        "format": FORMAT,
        "reference": _plain(tables["models"].attrs["reference"]),
        "confidence": tables["models"].attrs["confidence"],
        "pos_label": _plain(tables["models"].attrs.get("pos_label")),
        "context": context,
        "tables": {name: _encode(table) for name, table in tables.items()},
    }
    return json.dumps({**content, "digest": _digest(content)}, indent=1, allow_nan=False)


def load(source):
    """Return tables and context from text or a path."""
    text = str(source)
    if not text.lstrip().startswith("{"):
        text = Path(source).read_text(encoding="utf-8")
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"source is no JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(
            f"source must be an audit of format {FORMAT}, written by CompressionAudit.to_json; got "
            f"{content.get('format') if isinstance(content, dict) else type(content).__name__!r}."
        )
    if content.pop("digest", None) != _digest(content):
        raise ValueError(
            "source is damaged or was changed: its digest is not that of its tables; write the audit "
            "again."
        )
    try:
        tables = {name: _decode(table) for name, table in content["tables"].items()}
        names = ("reference", "confidence", "pos_label")
        tables["models"].attrs.update({name: content[name] for name in names})
        return tables, content["context"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"source is damaged: {error!r}; write the audit again.") from error


def _digest(content):
    """Return a digest of all values, however they are laid out."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _encode(table):
    index = table.index
    keys = index if index.nlevels > 1 else [(key,) for key in index]
    return {
        "index_names": [_plain(name) for name in index.names],
        "index_dtype": None if index.nlevels > 1 else str(index.dtype),
        "index": [[_plain(value) for value in key] for key in keys],
        "columns": {
            str(name): {"dtype": str(column.dtype), "values": [_plain(v) for v in column]}
            for name, column in table.items()
        },
    }


def _decode(encoded):
    names, keys = encoded["index_names"], encoded["index"]
    if not encoded["columns"]:
        return pd.DataFrame()
    if len(names) > 1:
        index = pd.MultiIndex.from_tuples([tuple(key) for key in keys], names=names)
    else:
        labels = [tuple(label) if isinstance(label, list) else label for (label,) in keys]
        dtype = encoded["index_dtype"]
        index = pd.Index(labels, name=names[0], dtype=_known(dtype), tupleize_cols=False)
    columns = {}
    for name, column in encoded["columns"].items():
        values = column["values"]
        if column["dtype"].startswith("float"):
            values = [np.nan if value is None else value for value in values]
        columns[name] = pd.Series(values, index=index, dtype=_known(column["dtype"]))
    return pd.DataFrame(columns, index=index)


def _known(dtype):
    """Return a dtype whose values are in JSON as they are; dates and intervals are text there."""
    return dtype if re.fullmatch(r"u?int\d+|float\d+|str|bool|object", dtype) else None


def _plain(value):
    """Return a value that JSON knows; NaN becomes null, what it does not know text."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
