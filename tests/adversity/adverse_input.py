"""What the fuzzing gives to functions: columns of any type and form, odd numbers, arrays, networks."""

import datetime
import decimal

import numpy as np
import pandas as pd
import polars as pl
import torch
from hypothesis import strategies as st
from torch import nn

NAN, INF, TINY = float("nan"), float("inf"), 5e-324

GOOD = {  # labels and groups that are labels and groups
    "integers": [0, 1, 2],
    "negative": [-5, 0, 7],
    "booleans": [False, True],
    "strings": ["a", "b", "", "ä\n", "nan", "None"],
    "bytes": [b"a", b"bb"],
    "whole floats": [0.0, 1.0, -3.0],
    "zeros": [-0.0, 0.0, 1.0],
    "far apart": [2**62, -(2**62), 0],
    "beyond int64": [2**70, 1, -(2**80)],
    "unsigned": [np.uint64(2**64 - 1), np.uint64(0)],
    "bytes of numpy": [np.int8(-128), np.int8(127)],
    "half": [np.float16(1), np.float16(3)],
    "strings of numpy": [np.str_("x"), np.str_("yy")],
    "dates": [np.datetime64("2020-01-01"), np.datetime64("1999-12-31")],
    "days": [datetime.date(2020, 1, 1), datetime.date(1999, 1, 1)],
    "times": [pd.Timestamp("2020"), pd.Timestamp("2021", tz="UTC")],
}
ODD = {  # groups they may be; labels rarely
    "fractions": [0.5, 0.25, 1.0],
    "denormals": [TINY, 0.0, 1e-310],
    "extremes": [1e30, -1e30, 1e-30],
    "infinite": [INF, -INF, 0.0],
    "missing": ["a", None],
    "nan": [0.0, NAN, 1.0],
    "times and none": [pd.Timestamp("2020"), pd.NaT],
    "NA": [pd.NA, 1],
    "mixed": [1, "a", None, 2.5],
    "numbers and text": [1, "a"],
    "complex": [1j, 0j],
    "tuples": [("a", 1), ("b", 2)],
    "lists": [["a"], ["b"]],
    "decimals": [decimal.Decimal("1"), decimal.Decimal("NaN")],
    "things": [object, len],
}
POOLS = {**GOOD, **ODD}
NO_COLUMN = [
    None,
    0,
    3.5,
    NAN,
    "text",
    b"bytes",
    object,
    {},
    {1, 2},
    [],
    [[]],
    (),
    np.array(3),
    range(2),
]


def series(values):
    return pd.Series(values, dtype=object if not values else None)


def moved_index(values):
    return pd.Series(values, index=range(10, 10 + len(values)), dtype=object if not values else None)


def read_only(values):
    array = np.array(values)
    array.flags.writeable = False
    return array


def objects(values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


FORMS = {
    "list": list,
    "tuple": tuple,
    "array": np.array,
    "objects": objects,
    "series": series,
    "series of objects": lambda v: pd.Series(v, dtype=object),
    "moved index": moved_index,
    "categories": lambda v: pd.Series(v, dtype="category"),
    "extension": pd.array,
    "index": pd.Index,
    "polars": lambda v: pl.Series(values=v, strict=False),
    "read only": read_only,
    "strided": lambda v: np.repeat(np.array(v), 2)[::2],
}
ODD_FORMS = {
    "masked": lambda v: np.ma.masked_array(v, np.arange(len(v)) % 2),
    "column": lambda v: np.array(v)[:, None],
    "two columns": lambda v: np.stack([np.array(v)] * 2, 1),
    "frame": lambda v: pd.DataFrame({"s": v, "t": v[::-1]}),
    "frame of polars": lambda v: pl.DataFrame({"s": v}, strict=False),
    "dict": lambda v: {"s": v},
    "set": set,
    "generator": iter,
    "tensor": torch.tensor,
    "cube": lambda v: np.array(v)[None, None],
    "cut short": lambda v: v[:-1],
    "too long": lambda v: list(v) + list(v[:1]),
    "labels twice": lambda v: pd.Series(v, index=[0] * len(v)),
}


def formed(form, values):
    """Values in a form; those that cannot have it stay a list."""
    if "polars" in form and any(isinstance(value, decimal.Decimal) for value in values):
        return values  # which polars ends the process for
    try:
        return {**FORMS, **ODD_FORMS}[form](values)
    except Exception:  # of numpy, pandas, polars or torch, which the package never sees
        return values


def picked(draw, pool, n):
    return [pool[i] for i in draw(st.lists(st.integers(0, len(pool) - 1), min_size=n, max_size=n))]


def good_column(draw, n, pools=tuple(GOOD)):
    """Plain values, and a form of them that every function takes."""
    pool = draw(st.sampled_from(pools))
    values = picked(draw, GOOD[pool], n)
    form = draw(st.sampled_from(list(FORMS)))
    if pool == "beyond int64" and form == "polars":  # numpy has none of its integers of 128 bits
        form = "objects"
    return values, formed(form, values)


def any_column(draw, n):
    """Anything that somebody may take for a column."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from(NO_COLUMN))
    values = picked(draw, POOLS[draw(st.sampled_from(list(POOLS)))], n)
    return formed(draw(st.sampled_from([*FORMS, *ODD_FORMS])), values)


WEIGHTS = [1.0, 0.0, 0.5, 2.0, 3.0, TINY, 1e-310, 1e-200, 1e-30, 1e30, 1e200, 1.7e308]
NUMBERS = [0.0, -0.0, 1.0, -1.0, 0.3, TINY, -1e-310, 1e-38, 1e-30, -1e30, 1e30, 3e38, NAN, INF, -INF]
SCALARS = [
    None,
    True,
    -1,
    0,
    1,
    2,
    3,
    8,
    16,
    17,
    2.5,
    0.5,
    1.0,
    NAN,
    INF,
    1e-320,
    "8",
    "a",
    [],
    (),
    object,
]
SHAPES = [(), (0,), (1,), (3,), (1, 1), (2, 3), (0, 3), (3, 0), (4, 1), (2, 2, 3), (2, 1, 2, 2)]
DTYPES = ["f4", "f8", "f2", ">f4", ">f8", "i1", "i8", "u1", "?", "O", "c8", "U8", "M8[s]", "g"]


def good_weights(draw, n):
    weights = picked(draw, WEIGHTS, n)
    return weights if any(weights) else [1.0] * n


def any_weights(draw, n):
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return None
    if kind == 1:
        return any_column(draw, n)
    values = picked(draw, WEIGHTS if kind == 2 else [*WEIGHTS, *NUMBERS], n)
    return formed(draw(st.sampled_from([*FORMS, *ODD_FORMS])), values)


def numbers(draw, shape, pool=NUMBERS):
    """An array of odd numbers, of float64; of finite ones if asked for."""
    n = int(np.prod(shape))
    return np.array(picked(draw, pool, n), dtype=np.float64).reshape(shape)


FINITE = [value for value in NUMBERS if np.isfinite(value)]


def any_array(draw, shapes=SHAPES):
    """An array, tensor, frame or list of any dtype."""
    if draw(st.integers(0, 14)) == 0:
        return draw(st.sampled_from(NO_COLUMN))
    pool = FINITE if draw(st.booleans()) else NUMBERS
    array = numbers(draw, draw(st.sampled_from(shapes)), pool)
    with np.errstate(all="ignore"):
        try:
            array = array.astype(draw(st.sampled_from(DTYPES)))
        except (TypeError, ValueError):
            return array.tolist()
    form = draw(
        st.sampled_from(["array", "list", "tensor", "masked", "frame", "transposed", "read only"])
    )
    try:
        return {
            "array": lambda a: a,
            "list": lambda a: a.tolist(),
            "tensor": torch.tensor,
            "masked": lambda a: np.ma.masked_array(a, np.zeros(a.shape, bool) | (a == 1)),
            "frame": pd.DataFrame,
            "transposed": lambda a: a.T,
            "read only": read_only,
        }[form](array)
    except Exception:
        return array


WIDTHS = [1, 2, 3]


WITH_WEIGHTS = ["linear", "mlp", "norm", "convolution", "recurrent", "shared"]


def network(draw, pool=FINITE, n_features=3, n_classes=2, kinds=(*WITH_WEIGHTS, "none")):
    """A small network whose weights are odd numbers."""
    kind = draw(st.sampled_from(kinds))
    width = draw(st.sampled_from(WIDTHS))
    first, last = nn.Linear(n_features, width), nn.Linear(width, n_classes)
    if kind == "linear":
        module = nn.Linear(n_features, n_classes)
    elif kind == "convolution":
        layers = nn.Unflatten(1, (1, n_features)), nn.Conv1d(1, width, 1), nn.AdaptiveAvgPool1d(1)
        module = nn.Sequential(*layers, nn.Flatten(), last)
    elif kind == "recurrent":
        module = nn.GRU(n_features, width)
    elif kind == "none":
        module = nn.Sequential(nn.ReLU(), nn.Flatten())
    elif kind == "shared":
        square = nn.Linear(n_features, n_features)
        module = nn.Sequential(square, nn.ReLU(), square, nn.Linear(n_features, n_classes))
    else:
        between = nn.BatchNorm1d(width) if kind == "norm" else nn.ReLU()
        module = nn.Sequential(first, between, last)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.from_numpy(numbers(draw, parameter.shape, pool)))
    return module.eval()
