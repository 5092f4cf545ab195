"""The audit: tables, verdicts, and the documents made of them."""

from skqfair._groups import columns_of
from skqfair._validation import check_rows
from skqfair.audit._documents import Documents
from skqfair.audit._fingerprint import describe_call, fingerprint
from skqfair.audit._gate import check_limits, describe_limits, raise_failures
from skqfair.audit._models import candidates, predict_all
from skqfair.audit._searched import plain_params
from skqfair.audit._verdicts import write_verdicts
from skqfair.metrics import compare_models

__all__ = ["CompressionAudit"]


class CompressionAudit(Documents):
    r"""Whom compression harmed, and how sure that is: compressed models against a reference, by group.

    Use :meth:`from_predictions`, :meth:`from_models` or :meth:`from_search`. The verdicts follow rules:
    a gap is established where the interval of FVO excludes 0 or the test of equal accuracy rejects at
    the confidence level; a group's change of accuracy, and the change of FVO, where their intervals
    exclude 0. What is not established may still be there: ``detectable`` says what groups of these
    sizes show.

    Parameters
    ----------
    tables : ModelComparison
        From :func:`skqfair.metrics.compare_models`.
    context : dict
        What the audit was made of: the call, a fingerprint of the data, versions.

    Attributes
    ----------
    models, groups, changes, detectable, exemplars : DataFrame
        As in :class:`~skqfair.metrics.ModelComparison`; ``models`` with ``size`` in bytes where known.
    verdicts : list of str
        Sentences.
    reference : object
        The name of the reference.
    confidence : float
        Level of all intervals, simultaneous over the groups of a model.
    context : dict
        As given.

    Examples
    --------
    >>> from skqfair import CompressionAudit
    >>> audit = CompressionAudit.from_predictions(
    ...     [0, 1, 1, 0, 1, 0], {"float": [0, 1, 1, 0, 1, 0], "int2": [0, 1, 1, 0, 0, 0]},
    ...     sensitive_features=["a", "a", "a", "b", "b", "b"])
    >>> audit.changes[["count", "lost", "gained", "change"]].round(3)
                               count  lost  gained  change
    model sensitive_feature_0
    int2  a                        3     0       0   0.000
          b                        3     1       0  -0.333
    >>> print(audit.verdicts[-1])
    That no gap was found does not mean that a model is fair; equal accuracy is one notion among several.
    >>> audit.require(max_flip_rate=0.2)[["model", "limit", "figure", "kept"]].round(3)
      model          limit  figure  kept
    0  int2  max_flip_rate   0.167  True
    """

    def __init__(self, tables, context):
        self.models, self.groups, self.changes, self.detectable, self.exemplars = tables
        self.reference = self.models.attrs["reference"]
        self.confidence = self.models.attrs["confidence"]
        self.context = context
        self.verdicts = write_verdicts(self)

    @classmethod
    def from_predictions(
        cls,
        y_true,
        predictions,
        *,
        sensitive_features,
        reference="float",
        metrics=None,
        sample_weight=None,
        sizes=None,
        classes=None,
        pos_label=None,
        confidence=0.95,
        random_state=0,
    ):
        """Audit predictions of the same samples.

        Parameters
        ----------
        y_true : array-like of shape (n,)
            True labels.
        predictions : dict of name to array-like of shape (n,) or (n, C)
            Labels, or probabilities of the classes; for two classes also of the positive one, (n,).
        sensitive_features : array-like of shape (n,) or (n, k), Series or frame
            Group of each sample; several columns mean their intersections.
        reference : key of ``predictions``, default="float"
            The model that the others are compared with.
        metrics : names or callables, default=None
            As in :func:`skqfair.metrics.group_report`; None takes rates for two classes, and losses
            where every model has probabilities.
        sample_weight : array-like of shape (n,), optional
            Weights.
        sizes : dict of name to int, optional
            Bytes of the models.
        classes : array-like of shape (C,), default=None
            The labels in the order of the columns of probabilities; None: those of ``y_true``, sorted.
        pos_label : label, default=None
            The label that rates count; None: the second of two.
        confidence : float, default=0.95
            Confidence level of the intervals.
        random_state : int, RandomState or None, default=0
            Seed of what is drawn.

        Returns
        -------
        CompressionAudit
            With all tables.

        Raises
        ------
        ValueError
            If the reference is not among the predictions, for lengths or orders that differ, missing
            values, labels in another coding, and probabilities that are none.
        """
        options = {
            "reference": reference,
            "metrics": metrics,
            "pos_label": pos_label,
            "confidence": confidence,
            "random_state": random_state,
        }
        return cls._compare(
            "from_predictions",
            y_true,
            predictions,
            sizes or {},
            sensitive_features=sensitive_features,
            sample_weight=sample_weight,
            classes=classes,
            **options,
        )

    @classmethod
    def _compare(cls, how, y_true, predictions, sizes, **options):
        data = {name: options[name] for name in ("sensitive_features", "sample_weight", "classes")}
        if isinstance(predictions, dict) and any(n is None or n != n for n in predictions):
            raise ValueError(
                f"models need names, e.g. 'float' instead of None; got {list(predictions)}."
            )
        if unknown := [name for name in sizes if name not in predictions]:
            raise ValueError(f"sizes names {unknown}, which are none of {list(predictions)}.")
        tables = compare_models(y_true, predictions, **options)
        options["pos_label"] = tables.models.attrs["pos_label"]  # what rates count: the origin says it
        if sizes:
            tables.models["size"] = [sizes.get(name) for name in tables.models.index]
        said = {name: value for name, value in options.items() if name not in data}
        weights = [] if data["sample_weight"] is None else [data["sample_weight"]]
        print_ = fingerprint(y_true, data["sensitive_features"], *weights, *predictions.values())
        return cls(tables, describe_call(how, said, len(y_true), print_))

    @classmethod
    def from_models(
        cls,
        models,
        X,
        y=None,
        *,
        sensitive_features,
        reference="float",
        metrics=None,
        sample_weight=None,
        pos_label=None,
        confidence=0.95,
        random_state=0,
    ):
        """Audit models on the same samples.

        Parameters
        ----------
        models : dict of name to model
            Fitted classifiers, callables ``f(X)`` of labels or probabilities, or arrays of these.
            Probabilities of a classifier are taken if its predictions are their most probable labels,
            else the predictions alone.
        X : array-like of n samples, or Dataset
            Passed to each model as it is.
        y : array-like of shape (n,), optional
            True labels; None for a Dataset of torch whose items are (x, label).
        sensitive_features : array-like of shape (n,) or (n, k), Series, frame, or column names of X
            Group of each sample.
        reference, metrics, sample_weight, pos_label, confidence, random_state
            As in :meth:`from_predictions`.

        Returns
        -------
        CompressionAudit
            With ``size`` in its ``models`` where a model has ``model_size_``.

        Raises
        ------
        ValueError
            If a model is neither fitted, callable nor an array, and as :meth:`from_predictions`.
        """
        if reference not in models:
            raise ValueError(f"reference {reference!r} is none of {list(models)}.")
        if y is None:
            from skqfair._labelled import labels_of  # with scikit-learn, which takes a second

            y = labels_of(X, y)
        check_rows(X=X, y=y, sample_weight=sample_weight)
        sensitive_features = columns_of(X, sensitive_features)
        predictions, sizes, classes = predict_all(models, X, y)
        return cls._compare(
            "from_models",
            y,
            predictions,
            sizes,
            sensitive_features=sensitive_features,
            sample_weight=sample_weight,
            classes=classes,
            reference=reference,
            metrics=metrics,
            pos_label=pos_label,
            confidence=confidence,
            random_state=random_state,
        )

    @classmethod
    def from_search(
        cls,
        search,
        X,
        y=None,
        *,
        X_train,
        y_train=None,
        sensitive_features,
        fit_params=None,
        reference=None,
        **options,
    ):
        """Audit every candidate of a fitted search on data that it has not seen; each is fitted again.

        Parameters
        ----------
        search : fitted GridSearchCV, RandomizedSearchCV or the like
            With ``cv_results_["params"]``.
        X, y : array-like of n samples
            Held-out samples and their true labels, which the items of a Dataset may bring (y=None).
        X_train, y_train : array-like
            What each candidate is fitted on, alike; cheap where the estimator has ``memory``.
        sensitive_features : array-like of shape (n,) or (n, k), Series or frame
            Group of each held-out sample.
        fit_params : dict, optional
            Passed to each fit.
        reference : str or fitted classifier, default=None
            Name of a candidate, e.g. "weight_bits=None, lr=0.1", or a model of its own. None takes the
            one candidate whose ``weight_bits`` is None.
        **options
            As in :meth:`from_models`.

        Returns
        -------
        CompressionAudit
            A model for each candidate, named by its parameters.

        Raises
        ------
        ValueError
            If the search is not fitted, or which candidate is the reference is unclear.
        """
        models, names, reference = candidates(search, X_train, y_train, fit_params or {}, reference)
        audit = cls.from_models(
            models, X, y, sensitive_features=sensitive_features, reference=reference, **options
        )
        audit.context["searched"] = dict(zip(names, plain_params(search), strict=True))
        return audit

    def require(
        self,
        *,
        max_fvo=None,
        max_excess_gap=None,
        max_accuracy_drop=None,
        max_flip_rate=None,
        on="estimate",
    ):
        """Raise unless every compressed model is within limits, or the reference where it is alone.

        Pages and JSON that are written afterwards have the limits and what came of them.

        Parameters
        ----------
        max_fvo, max_excess_gap, max_accuracy_drop, max_flip_rate : float >= 0, optional
            Largest FVO, excess accuracy gap, loss of accuracy over all samples against the reference,
            and share of predictions that changed.
        on : {"estimate", "upper"}, default="estimate"
            What must be within: the figure, or the upper end of its interval.

        Returns
        -------
        DataFrame
            A row for each model and limit: ``allowed``, ``figure``, ``low``, ``high``, ``kept``.

        Raises
        ------
        AuditFailure
            If a limit is exceeded: each of these, with figure and interval.
        ValueError
            For no limit, or one that is no number >= 0.
        """
        limits = {
            "max_fvo": max_fvo,
            "max_excess_gap": max_excess_gap,
            "max_accuracy_drop": max_accuracy_drop,
            "max_flip_rate": max_flip_rate,
        }
        table = check_limits(self.models, self.reference, limits, on)
        self.context["limits"] = describe_limits(table, on)
        raise_failures(table, on)
        return table
