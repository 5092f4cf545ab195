"""What a search varied: bit widths, and whatever else; accuracy and FVO of its candidates by both."""

import numpy as np
import pandas as pd

__all__ = ["FIGURES", "last_part", "plain_params", "searched_table"]

FIGURES = {"accuracy": "accuracy", "fvo": "FVO"}
"""What is drawn of a candidate, and what an axis calls it."""


def plain_params(search):
    """Return the parameters of each candidate as JSON has them.

    A parameter that not all candidates set has its value in the estimator for the others.
    """
    params = search.cv_results_["params"]
    keys = dict.fromkeys(key for candidate in params for key in candidate)
    own = search.estimator.get_params()
    return [{key: _plain(candidate.get(key, own.get(key))) for key in keys} for candidate in params]


def searched_table(audit):
    """Return figures by (what else was varied, bits), from the widest to the narrowest.

    Returns
    -------
    DataFrame or None
        Accuracy and FVO with their bounds, bytes where known, and the name of the ``model``; NaN where
        no candidate was. None unless two bit widths were searched.
    """
    params = audit.context.get("searched", {})
    key = next(
        (key for each in params.values() for key in each if last_part(key) == "weight_bits"), None
    )
    widths = list(dict.fromkeys(each[key] for each in params.values())) if key else []
    if len(widths) < 2:
        return None
    if all(width is None or isinstance(width, (int, float)) for width in widths):
        widths.sort(key=lambda width: -np.inf if width is None else -width)
    varied = [
        other
        for other in next(iter(params.values()))
        if other != key and len({each[other] for each in params.values()}) > 1
    ]
    cells = [(_line(each, varied), _label(each[key])) for each in params.values()]
    columns = [f"{name}{end}" for name in FIGURES for end in ("", "_low", "_high")]
    columns += [name for name in ("worst_accuracy", "fvo_chance", "size") if name in audit.models]
    table = audit.models.loc[list(params), columns].assign(model=list(params))
    table.index = pd.MultiIndex.from_tuples(cells, names=["searched", "bits"])
    wanted = pd.MultiIndex.from_product(
        [dict.fromkeys(line for line, _ in cells), map(_label, widths)], names=table.index.names
    )
    return table[~table.index.duplicated()].reindex(wanted)


def _line(params, varied):
    return ", ".join(f"{last_part(key)}={params[key]}" for key in varied) or "all candidates"


def _label(width):
    if width is None:
        return "float"
    return f"{width:g}" if isinstance(width, (int, float)) else str(width)


def last_part(key):
    """Return the name of a parameter, less those of the steps it belongs to."""
    return key.rpartition("__")[2]


def _plain(value):
    value = value.item() if isinstance(value, np.generic) else value
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)
