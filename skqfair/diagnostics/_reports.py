"""The tables, from the results of the forward pass and of what needs gradients."""

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.stats import t as student

from skqfair.diagnostics._derivatives import MEASURES
from skqfair.diagnostics._forward import logit_features, sample_losses
from skqfair.quantization import input_quantizers

__all__ = [
    "attribution",
    "by_group",
    "eigenvalue_table",
    "excess_from_weights",
    "forward_columns",
    "group_report",
    "no_measures",
]

CONFIDENCE = 0.95
_FROM_WEIGHTS = ("excess_loss_weights", "excess_loss_first_order", "excess_loss_second_order")
_ORDER = [
    *("count", "accuracy", "loss", "logit_variance", "margin", "boundary_closeness", "confidence"),
    *("flip_rate", *MEASURES, "excess_loss", "excess_loss_weights", "excess_loss_first_order"),
    *("excess_loss_second_order", "n_matched"),
]


def forward_columns(logits, y, groups, others):
    """Return the columns that need no gradient: version name to columns, each of shape (G,).

    Comparisons with the float net are NaN where there is none, and what needs layers is NaN here.
    ``others`` has logits and predicted positions of compressed models, by name.
    """
    predicted = {name: values.argmax(1) for name, values in logits.items()}
    predicted |= {name: positions for name, (_, positions) in others.items()}
    logits = {**logits, **{name: values for name, (values, _) in others.items()}}
    losses = {name: sample_losses(values, y) for name, values in logits.items()}
    columns, unknown = {}, np.full(len(y), np.nan)
    for version, values in logits.items():
        flipped, excess = unknown, unknown
        if "float" in logits:
            flipped = predicted[version] != predicted["float"]
            excess = losses[version] - losses["float"]
        per_sample = {
            "accuracy": predicted[version] == y,
            "loss": losses[version],
            **logit_features(values),
            "flip_rate": flipped,
            "excess_loss": excess,
        }
        own = {name: by_group(each, groups) for name, each in per_sample.items()}
        half = _paired_half_width(excess, groups)
        own["excess_loss_low"] = own["excess_loss"] - half
        own["excess_loss_high"] = own["excess_loss"] + half
        own |= dict.fromkeys(_FROM_WEIGHTS, np.full(len(groups.counts), np.nan))
        columns[version] = {"count": groups.counts, **own}
    return columns


def _paired_half_width(differences, groups):
    """Return half the widths of t-intervals of the groups' mean differences that hold together."""
    n = groups.counts
    variance = by_group(np.square(differences - by_group(differences, groups)[groups.codes]), groups)
    quantile = student.ppf(1 - (1 - CONFIDENCE) / (2 * len(n)), n - 1)
    return quantile * np.sqrt(variance / (n - 1))


def excess_from_weights(version, modules, losses, X, y, groups):
    """Return the excess loss of each group that quantized weights alone cause, shape (G,)."""
    quantized, origin = losses[version.name], version.origin or "float"
    module = modules[version.name]
    before = dict(modules[origin].named_buffers())
    moved = [b for name, b in module.named_buffers() if name in before and not b.equal(before[name])]
    if moved or input_quantizers(version.classifier.module_):
        module = copy.deepcopy(module)  # with the statistics of BatchNorm before the quantization
        for name, buffer in module.named_buffers():
            if name in before:
                buffer.copy_(before[name])
        alone = replace(version, classifier=version.with_module(module))
        quantized = sample_losses(alone.logits(X), y)
    return by_group(quantized - losses[origin], groups)


def no_measures(columns, groups):
    """Return measures that are NaN, for each version that has columns."""
    return {name: [np.full((1, len(MEASURES) + 1), np.nan)] * len(groups.index) for name in columns}


def by_group(values, groups):
    """Return the mean of each group, shape (G,)."""
    sums = np.bincount(groups.codes, weights=values, minlength=len(groups.index))
    return sums / groups.counts


def group_report(columns, measured, names, n_matched):
    """Return the table of groups.

    Parameters
    ----------
    columns : dict
        Version name to a dict of columns, each of shape (G,).
    measured : dict
        Version name to a list, one for each group, of arrays of shape (draws, 6); the debiased norm is
        squared, the last is the standard error of the trace.
    names : Index
        Of the groups.
    n_matched : array of shape (G,)
        Samples of each draw.

    Returns
    -------
    DataFrame
        Index (bits, group).
    """
    parts = {}
    for version, own in columns.items():
        table = pd.DataFrame({**own, "n_matched": n_matched}, index=names)
        for i, measure in enumerate(MEASURES):
            draws = [values[:, i] for values in measured[version]]
            table[measure] = [values.mean() for values in draws]
            shares = n_matched / own["count"]
            half = np.array([_half_width(*both) for both in zip(draws, shares, strict=True)])
            if measure == "hessian_trace":
                half = _with_error(half, np.array([each[:, -1].mean() for each in measured[version]]))
            low, high = table[measure] - half, table[measure] + half
            table[f"{measure}_low"] = low.clip(lower=0) if "norm" in measure else low
            table[f"{measure}_high"] = high
            if measure == "gradient_norm_debiased":  # squares until here: a single draw may be below 0
                ends = [measure, f"{measure}_low", f"{measure}_high"]
                table[ends] = table[ends].clip(lower=0) ** 0.5
        parts[version] = table
    report = pd.concat(parts.values(), keys=pd.Index(list(parts), dtype=object), names=["bits", "group"])
    bounds = [f"{name}_{end}" for name in ("excess_loss", *MEASURES) for end in ("low", "high")]
    return report[[*_ORDER, *bounds]]


def _half_width(values, share):
    """Return half the width of the interval in which other people's value is expected; NaN for one draw.

    Let v be the variance of the value over samples of other people. Draws of a share f of a group,
    without replacement, have people in common and a variance of (1 - f) v around the group's own value,
    which varies by f v; so the mean of k draws is off by (f + (1 - f) / k) v, and other people by v.
    """
    n = len(values)
    if n < 2:
        return np.nan
    quantile = student.ppf((1 + CONFIDENCE) / 2, n - 1)
    return quantile * values.std(ddof=1) * np.sqrt((1 + share + (1 - share) / n) / (1 - share))


def _with_error(half, error):
    """Return half the width of the interval of the trace, with the error of its estimate.

    All draws have the same probes, so that their errors do not average out. Of a single draw this is
    the interval of the estimate alone.
    """
    own = np.where(error > 0, student.ppf((1 + CONFIDENCE) / 2, 15) * error, 0.0)
    return np.where(np.isnan(half) & (own > 0), own, np.sqrt(half**2 + own**2))


def eigenvalue_table(eigenvalues, names):
    """Return the largest eigenvalues, means over the draws, as a Series by (bits, group, rank)."""
    values, index = [], []
    for version, by_groups in eigenvalues.items():
        for name, draws in zip(names, by_groups, strict=True):
            mean = draws.mean(axis=0)
            values.extend(mean)
            index.extend((version, name, rank) for rank in range(1, len(mean) + 1))
    index = pd.MultiIndex.from_tuples(index, names=["bits", "group", "rank"])
    return pd.Series(values, index=index, name="hessian_eigenvalue")


def attribution(expansions, sqnr, clipping, names):
    """Return the table of layers and groups.

    Parameters
    ----------
    expansions : dict
        Version name to a list, one for each group, of (first, second): layer name to its term.
    sqnr, clipping : dict
        (version name, layer name) to an array of shape (G,).
    names : Index
        Of the groups.

    Returns
    -------
    DataFrame
        Index (bits, layer, group).
    """
    rows, index = [], []
    for (version, layer), decibels in sqnr.items():
        for g, group in enumerate(names):
            first, second = expansions[version][g]
            index.append((version, layer, group))
            rows.append((first[layer], second[layer], decibels[g], clipping[version, layer][g]))
    columns = ["excess_loss_first_order", "excess_loss_second_order"]
    return pd.DataFrame(
        rows,
        index=pd.MultiIndex.from_tuples(index, names=["bits", "layer", "group"]),
        columns=[*columns, "activation_sqnr_db", "clipping_rate"],
    )
