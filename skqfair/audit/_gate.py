"""Limits that compressed models must keep: the gate of a continuous integration."""

import numbers

import numpy as np
import pandas as pd

from skqfair.exceptions import AuditFailure

__all__ = ["LIMITS", "check_limits", "describe_limits", "raise_failures"]

LIMITS = {  # limit -> column of models, its sign
    "max_fvo": ("fvo", 1),
    "max_excess_gap": ("excess_accuracy_gap", 1),
    "max_accuracy_drop": ("accuracy_change", -1),
    "max_flip_rate": ("flip_rate", 1),
}


def check_limits(models, reference, limits, on):
    """Return figures beside limits; see CompressionAudit.require."""
    if on not in ("estimate", "upper"):
        raise ValueError(f"on must be 'estimate' or 'upper', got {on!r}.")
    limits = {name: limit for name, limit in limits.items() if limit is not None}
    if not limits:
        raise ValueError(f"require needs at least one limit: {', '.join(LIMITS)}.")
    for name, limit in limits.items():
        if isinstance(limit, bool) or not isinstance(limit, numbers.Real) or not 0 <= limit <= 1:
            raise ValueError(
                f"{name} must be a share, a number in [0, 1], got {limit!r}; 0.05 stands for 5 points."
            )
    compressed = models.drop(index=reference) if len(models) > 1 else models
    if len(models) == 1 and (wrong := [name for name in limits if name != "max_fvo"]):
        raise ValueError(
            f"{', '.join(wrong)} compares with the reference, and there is no compressed model beside "
            f"{reference!r}; of one model alone require max_fvo."
        )
    rows = [
        {"model": model, "limit": name, "allowed": limit, **_figure(row, name)}
        for model, row in compressed.iterrows()
        for name, limit in limits.items()
    ]
    table = pd.DataFrame(rows)
    decisive = table["high" if on == "upper" else "figure"]
    table["kept"] = decisive.to_numpy() <= table["allowed"] + 1e-12
    return table


def describe_limits(table, on):
    """Return a sentence for each row of what check_limits returns."""
    return [_sentence(row, on) for row in table.to_dict("records")]


def raise_failures(table, on):
    """Raise an AuditFailure with the limits that are not kept, if there is one."""
    failed = table[~table["kept"]]
    if len(failed):
        raise AuditFailure(
            "\n".join(describe_limits(failed, on)), failed.drop(columns="kept").to_dict("records")
        )


def _figure(row, limit):
    column, sign = LIMITS[limit]
    bounds = np.sort([sign * row[f"{column}_low"], sign * row[f"{column}_high"]])
    return {"figure": sign * float(row[column]), "low": float(bounds[0]), "high": float(bounds[1])}


def _sentence(row, on):
    verdict = "kept" if row["kept"] else "exceeded"
    decisive = ", its interval ends beyond" if on == "upper" and not row["kept"] else ""
    return (
        f"{row['model']}: {row['limit']}={row['allowed']:g} is {verdict}{decisive}; it is "
        f"{row['figure']:.4f} ({row['low']:.4f} to {row['high']:.4f})."
    )
