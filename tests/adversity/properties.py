"""What must hold of any call: an answer, or an error that names the argument; nothing else."""

import inspect
import re
import warnings

import numpy as np
import pandas as pd
import polars as pl
import torch
from sklearn.exceptions import NotFittedError, UndefinedMetricWarning

import skqfair.exceptions as own

OWN_WARNINGS = tuple(
    found
    for name in own.__all__
    if isinstance(found := getattr(own, name), type) and issubclass(found, Warning)
)
REFUSALS = (ValueError, TypeError)
OF_SKLEARN = re.compile(  # its own words, which name no argument and which its checks demand
    r"Found array with 0 (sample|feature)|Expected 2D array|Reshape your data|0 feature|least one array"
    r"|Complex data not supported|is expecting \d+ features|should be a 1d array|Found input variables"
    r"|one class|Unknown label type|Found unknown|could not convert string to float|dtype='numeric'"
)


class Refused(Exception):
    """A call ended in an error that is allowed; it says why."""


def snapshot(value):
    """What a value holds, to be compared after a call."""
    if isinstance(value, np.ma.MaskedArray):
        return snapshot(value.data), snapshot(np.ma.getmaskarray(value))
    if isinstance(value, np.ndarray):
        held = repr(value.tolist()) if value.dtype == object else value.tobytes()
        return str(value.dtype), value.shape, value.flags.writeable, held
    if isinstance(value, torch.Tensor):
        return str(value.dtype), value.shape, value.requires_grad, repr(value.tolist())
    if isinstance(value, torch.nn.Module):
        held = {**dict(value.named_parameters()), **dict(value.named_buffers())}
        training = [module.training for module in value.modules()]
        return repr(value), training, {name: snapshot(tensor) for name, tensor in held.items()}
    if isinstance(value, (pd.Series, pd.Index)):
        index = value.index.tolist() if isinstance(value, pd.Series) else None
        return str(value.dtype), repr(value.tolist()), repr(index), value.name
    if isinstance(value, pd.DataFrame):
        return [snapshot(value[name]) for name in value.columns], list(value.columns)
    if isinstance(value, (pl.Series, pl.DataFrame)):
        return repr(value.rows() if isinstance(value, pl.DataFrame) else value.to_list())
    if isinstance(value, dict):
        return [(repr(key), snapshot(held)) for key, held in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [snapshot(part) for part in value]
    return type(value).__name__ if hasattr(value, "__next__") else repr(value)


def named(function, *more):
    """Names of the arguments that a message may speak of."""
    return {name for name in inspect.signature(function).parameters if name != "self"} | set(more)


def call(function, *args, names=None, ignore=(), **kwargs):
    """Call a function; raise Refused for an error that is allowed, and let any other through.

    Warnings of numpy and of anybody but the package are errors; the arguments must not be changed.
    """
    names = named(function) if names is None else set(names)
    before = snapshot([args, kwargs])

    def note(error):
        with warnings.catch_warnings(action="ignore"):  # pandas writes denormals with a warning
            error.add_note(f"{function} of {args!r:.1500} {kwargs!r:.1500}")

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for category in (*OWN_WARNINGS, UndefinedMetricWarning, *ignore):
                warnings.simplefilter("ignore", category)
            found = function(*args, **kwargs)
    except REFUSALS as error:
        note(error)
        text = str(error)
        words = set(re.findall(r"\w+", text))
        if not (names & words or OF_SKLEARN.search(text) or isinstance(error, NotFittedError)):
            raise AssertionError(f"{text!r} names none of {sorted(names)}") from error
        assert len(text) < 2000
        raise Refused(text) from error
    except Exception as error:
        note(error)
        raise
    finally:
        assert snapshot([args, kwargs]) == before, "an argument was changed"
    return found


def answer(function, *args, **kwargs):
    """The result of a call, or None where it was refused."""
    try:
        return call(function, *args, **kwargs)
    except Refused:
        return None


def finite(values):
    return bool(np.isfinite(np.asarray(values, dtype=np.float64)).all())
