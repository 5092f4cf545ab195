"""The samples whose prediction compression changed."""

import numpy as np
import pandas as pd

from skqfair.metrics._tables import group_name

__all__ = ["exemplars_table"]

_PER_GROUP = 100


def exemplars_table(samples, outcomes, reference, index):
    """Return the changed samples: those changed by most models first, then the most confident.

    Hooker et al. (2020) call them compression identified exemplars.
    """
    base = outcomes[reference]
    changed = np.zeros(len(samples.labels), dtype=np.int64)
    for outcome in outcomes.values():
        changed += outcome.labels != base.labels
    rows = np.flatnonzero(changed)
    codes = samples.groups.codes[rows]
    confidence = np.full(len(rows), np.nan) if base.proba is None else base.proba[rows].max(axis=1)
    order = np.lexsort((rows, -np.nan_to_num(confidence), -changed[rows], codes))
    rows, codes, confidence = rows[order], codes[order], confidence[order]
    start = np.searchsorted(codes, codes)  # where the group of each row starts
    first = np.arange(len(rows)) - start < _PER_GROUP
    rows, codes, confidence = rows[first], codes[first], confidence[first]
    names = [group_name(group) for group in samples.groups.index]
    columns = {
        "group": pd.Series([names[code] for code in codes], dtype=object),
        "y_true": samples.labels[rows],
        "n_changed": changed[rows],
        "confidence": confidence,
    }
    columns |= {f"predicted[{name}]": outcome.labels[rows] for name, outcome in outcomes.items()}
    index = index.to_flat_index() if isinstance(index, pd.MultiIndex) else index
    kept = index if samples.keep is None else index[samples.keep]
    return pd.DataFrame(columns).set_axis(kept[rows].rename("sample"))
