"""Several models on the same samples: every table of a comparison, from one encoding."""

from typing import NamedTuple

import pandas as pd

from skqfair.metrics._detectable import detectable_table
from skqfair.metrics._exemplars import exemplars_table
from skqfair.metrics._intervals import check_confidence
from skqfair.metrics._measures import find_measures
from skqfair.metrics._samples import draw_seed, encode
from skqfair.metrics._tables import change_table, group_table, model_row

__all__ = ["ModelComparison", "compare_models"]


class ModelComparison(NamedTuple):
    """Tables of :func:`compare_models`.

    Parameters
    ----------
    models : DataFrame
        A row for each model, as :func:`model_report`.
    groups : DataFrame
        Index (model, group); as :func:`group_report`.
    changes : DataFrame
        Index (model, group), less the reference; as :func:`change_report`.
    detectable : DataFrame
        Index (model, group), less the reference: ``count``, and what would be established with power
        0.8: ``gap``, how much less accurate than all others the group would have to be, and
        ``loss``, the smallest of its accuracy against the reference. NaN where groups of these sizes can
        show none.
    exemplars : DataFrame
        The samples whose prediction a model changed, at most 100 of each group, by group: those changed
        by most models first, then those of which the reference was most confident. Columns ``group``,
        ``y_true``, ``n_changed`` (models), ``confidence`` and the ``predicted[...]`` labels.
    """

    models: pd.DataFrame
    groups: pd.DataFrame
    changes: pd.DataFrame
    detectable: pd.DataFrame
    exemplars: pd.DataFrame


def compare_models(
    y_true,
    predictions,
    *,
    sensitive_features,
    sample_weight=None,
    metrics=None,
    reference=None,
    classes=None,
    pos_label=None,
    confidence=0.95,
    random_state=0,
):
    r"""Compare models with a reference on the same samples, by group.

    The gap that a group could show, how much worse than all others it is, solves
    :math:`P(Z^2 + c\,\chi^2_{G-2} > \chi^2_{G-1, 0.95}) = 0.8`: the others have the overall accuracy,
    :math:`Z` is the normal difference of the group from them, with its own variance, in units of the
    error that the test expects, and :math:`c` is their variance in these units. The loss solves the
    power of the paired interval of :func:`change_report`, with as many samples gained as were.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        True labels.
    predictions : dict of name to array-like of shape (n,) or (n, C)
        Predicted labels, or probabilities of the classes; for two classes also the probability of the
        positive one, shape (n,).
    sensitive_features : array-like of shape (n,) or (n, k), Series or frame
        Group of each sample; several columns mean their intersections.
    sample_weight : array-like of shape (n,), optional
        Weights.
    metrics : names or callables, default=None
        As in :func:`group_report`; None takes those that fit: rates for two classes, losses where every
        model has probabilities.
    reference : key of ``predictions``, default=None
        The model that the others are compared with; None takes the first.
    classes : array-like of shape (C,), default=None
        The labels in the order of the columns of probabilities; None: those of ``y_true``, sorted.
    pos_label : label, default=None
        The label that rates count; None: the second of two.
    confidence : float, default=0.95
        Confidence level of the intervals, simultaneous over the groups of a model.
    random_state : int, RandomState or None, default=0
        Seed of the draws behind ``fvo_chance`` and of the blocks of the jackknife.

    Returns
    -------
    ModelComparison
        ``models``, ``groups``, ``changes``, ``detectable`` and ``exemplars``.

    Raises
    ------
    ValueError
        If ``predictions`` is empty or lacks the reference, for arrays of other lengths or order, missing
        values, labels in another coding, and probabilities that are none.

    References
    ----------
    Hooker, S., Courville, A., Clark, G., Dauphin, Y. & Frome, A. (2020). What do compressed deep neural
    networks forget? arXiv:1911.05248.

    Examples
    --------
    >>> from skqfair.metrics import compare_models
    >>> tables = compare_models(
    ...     [0, 1, 1, 0], {"float": [0, 1, 1, 0], "int2": [0, 1, 0, 0]},
    ...     sensitive_features=["a", "a", "b", "b"], metrics=["selection_rate"])
    >>> tables.models[["accuracy", "fvo", "selection_rate"]]
           accuracy  fvo  selection_rate
    float      1.00  0.0            0.50
    int2       0.75  0.5            0.25
    """
    check_confidence(confidence)
    if not isinstance(predictions, dict) or not predictions:
        found = "empty" if isinstance(predictions, dict) else f"a {type(predictions).__name__}"
        raise ValueError(f"predictions is {found}; pass a dict of model names to predictions.")
    if any(isinstance(name, tuple) for name in predictions):
        named = next(name for name in predictions if isinstance(name, tuple))
        raise ValueError(f"predictions must have plain names as keys, e.g. strings; got {named!r}.")
    reference = next(iter(predictions)) if reference is None else reference
    if reference not in predictions:
        raise ValueError(f"reference {reference!r} is none of {list(predictions)}.")
    seed = draw_seed(random_state)
    samples, outcomes = encode(
        y_true,
        {f"y_pred of {name!r}": values for name, values in predictions.items()},
        sensitive_features,
        sample_weight,
        classes=classes,
        pos_label=pos_label,
        seed=seed,
    )
    outcomes = dict(zip(predictions, outcomes, strict=True))
    measures = find_measures(metrics, samples, outcomes.values())
    base, rows, groups, changes, detectable = outcomes[reference], {}, {}, {}, {}
    for name, outcome in outcomes.items():
        groups[name] = group_table(samples, outcome, measures, confidence, seed)
        change = change_table(samples, base, outcome, measures, confidence)
        rows[name] = model_row(samples, base, outcome, measures, groups[name], change)
        if name != reference:
            changes[name] = change
            detectable[name] = detectable_table(samples, base, outcome, confidence)
    models = pd.DataFrame(list(rows.values()), index=pd.Index(list(rows), dtype=object))
    positive = getattr(samples.positive, "item", lambda: samples.positive)()
    models.attrs.update(reference=reference, confidence=confidence, pos_label=positive)
    stacked = [_stack(tables) for tables in (groups, changes, detectable)]
    index = y_true.index if isinstance(y_true, pd.Series) else pd.RangeIndex(len(y_true))
    return ModelComparison(models, *stacked, exemplars_table(samples, outcomes, reference, index))


def _stack(tables):
    """Return tables under one another, by the name of the model."""
    if not tables:
        return pd.DataFrame()
    plain = {name: table.copy() for name, table in tables.items()}
    for table in plain.values():
        table.attrs.clear()
    return pd.concat(plain, names=["model"])
