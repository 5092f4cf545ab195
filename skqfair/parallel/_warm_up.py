"""The float networks of a search, trained before the search."""

from numbers import Integral

import sklearn
from sklearn.base import clone, is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import (
    GridSearchCV,
    ParameterGrid,
    ParameterSampler,
    RandomizedSearchCV,
    check_cv,
)
from sklearn.pipeline import Pipeline
from sklearn.utils import Bunch, _safe_indexing, indexable
from sklearn.utils.metadata_routing import process_routing
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import _check_method_params

from skqfair._float_training import FitEnded, end_fit_at
from skqfair.classifiers import NetworkClassifier
from skqfair.storage import Cache

__all__ = ["warm_up"]


def warm_up(search, X, y, **fit_params):
    """Train every float network that a search will need, all at once, into its ``memory``.

    A search hands out its fits candidate by candidate, so that those of one fold wait for the same
    training while other folds are not begun. Here each training is found first (preprocessing and a
    hash, no training), and then all of those that ``memory`` lacks are trained, each once, the largest
    first. ``search.fit`` with the same arguments then trains nothing.

    Parameters
    ----------
    search : GridSearchCV or RandomizedSearchCV
        Over a classifier of skqfair with ``memory`` and an integer ``random_state``, alone or as the
        last step of a Pipeline. Its ``n_jobs`` and the backend of :func:`joblib.parallel_config` are
        used; it is not changed. On a cluster the folder of ``memory`` must be one that all workers see.
    X : array-like of shape (n, d) or (n, ...)
        As in ``search.fit``.
    y : array-like of shape (n,)
        Labels.
    **fit_params
        All else that ``search.fit`` is to be given: ``groups`` of the splitter, parameters of the
        estimator's fit, routed metadata.

    Returns
    -------
    sklearn.utils.Bunch
        ``n_trainings``, the different trainings of the search; ``n_found``, those that were stored
        before; ``n_trained``, those done now; ``n_failed``, fits that raised an error where
        ``search.error_score`` is a number.

    Raises
    ------
    TypeError
        If the search is of another kind, or no candidate has a classifier of skqfair.
    ValueError
        If a candidate has no ``memory``, or something in the search is drawn anew each time
        (``random_state=None``), so that what is trained here would not be what the search needs.

    See Also
    --------
    skqfair.QuantizedClassifier : What ``memory`` keeps, and what the key covers.

    Notes
    -----
    With ``refit`` one network for all of ``X`` is trained for each different training among the
    candidates, since the best one is not known yet: one where only bits are searched over.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skqfair import QuantizedClassifier
    >>> from skqfair.parallel import warm_up
    >>> X, y = load_iris(return_X_y=True)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     clf = QuantizedClassifier(memory=folder, random_state=0)
    ...     search = GridSearchCV(clf, {"weight_bits": [2, 4, 8]}, cv=3, error_score="raise")
    ...     done = warm_up(search, X, y)
    ...     _ = search.fit(X, y)  # trains nothing
    >>> done.n_trainings, done.n_found, done.n_trained
    (4, 0, 4)
    """
    fits, fit = _fits(search, X, y, fit_params)
    run = Parallel(n_jobs=search.n_jobs)
    tolerant = search.error_score != "raise"

    def run_to(point, some):
        return run(delayed(_fit_to)(point, e, X, y, rows, fit, tolerant) for e, rows in some)

    first, found, failed = {}, set(), []
    for one, facts in zip(fits, run_to("key", fits), strict=True):
        if isinstance(facts, Exception):
            failed.append(facts)
        elif facts["stored"]:
            found |= {facts["key"]} - {None}  # None: a frozen network, which is not trained
        elif facts["key"] is None:
            raise ValueError(
                "memory is bypassed for a network of this search, as the warning says: it cannot be "
                "hashed, so there is nothing to warm up."
            )
        else:
            first.setdefault(facts["key"], one)
    largest_first = sorted(first.values(), key=lambda one: one[1] is not None)
    failed += [e for e in run_to("trained", largest_first) if isinstance(e, Exception)]
    if len(failed) == len(fits):
        raise ValueError(f"all {len(fits)} fits failed; the first with: {failed[0]!r}") from failed[0]
    return Bunch(
        n_trainings=len(first) + len(found),
        n_found=len(found),
        n_trained=len(first),
        n_failed=len(failed),
    )


def _fit_to(point, estimator, X, y, rows, fit, tolerant):
    """Run a fit until ``point``; return what it knows there, or an error that is tolerated."""
    fit = _check_method_params(X, fit, rows)
    if rows is not None:
        X, y = _safe_indexing(X, rows), _safe_indexing(y, rows)
    try:
        with end_fit_at(point):
            estimator.fit(X, y, **fit)
    except FitEnded as end:
        return end.facts
    except Exception as error:
        if not tolerant:
            raise
        return error
    raise AssertionError("a fit of a classifier of skqfair does not pass its float training")


def _fits(search, X, y, fit_params):
    """Return the fits of the search, (estimator, rows or None for all), and the parameters of a fit."""
    candidates = _candidates(search)
    _check_repeatable(search.cv, "cv")
    estimators = [clone(search.estimator).set_params(**clone(c, safe=False)) for c in candidates]
    estimators = [e for e in estimators if _has_memory(e)]
    if not estimators:
        raise TypeError(
            f"search has no classifier of skqfair, but a {type(search.estimator).__name__}; a "
            "warm-up trains networks of QuantizedClassifier, FairQATClassifier and PrunedClassifier."
        )
    X, y = indexable(X, y)
    fit_params = _check_method_params(X, fit_params)
    if sklearn.get_config()["enable_metadata_routing"]:
        routed = process_routing(search, "fit", **fit_params)
        fit, split = routed.estimator.fit, routed.splitter.split
    else:
        split = {"groups": fit_params.pop("groups", None)}
        fit = fit_params
    cv = check_cv(search.cv, y, classifier=is_classifier(search.estimator))
    parts = [train for train, _ in cv.split(X, y, **split)]
    parts += [None] if search.refit else []
    return [(clone(e), rows) for e in estimators for rows in parts], fit


def _candidates(search):
    if isinstance(search, GridSearchCV):
        return list(ParameterGrid(search.param_grid))
    if isinstance(search, RandomizedSearchCV):
        _check_repeatable(search, "search")
        return list(
            ParameterSampler(search.param_distributions, search.n_iter, random_state=search.random_state)
        )
    raise TypeError(
        f"search must be a GridSearchCV or a RandomizedSearchCV, got {type(search).__name__}; the fits "
        "of others depend on the scores of those before."
    )


def _check_repeatable(drawing, name):
    """Raise if something draws anew whenever it is asked."""
    if hasattr(drawing, "__next__"):
        raise ValueError(
            f"{name} is an iterator, which the warm-up would use up; pass a splitter or list({name})."
        )
    seed = getattr(drawing, "random_state", 0)
    if getattr(drawing, "shuffle", True) and not isinstance(seed, Integral):
        raise ValueError(
            f"{name}: {type(drawing).__name__} has random_state={seed!r} and draws anew each time, so "
            "that the search would need other networks than these; set random_state to an integer."
        )


def _parameters(estimator):
    return estimator.get_params().values() if hasattr(estimator, "get_params") else ()


def _has_memory(estimator):
    """Whether it ends in a classifier of skqfair; raise if that cannot keep its training."""
    last = estimator
    while isinstance(last, Pipeline):
        last = last.steps[-1][1]
    if not isinstance(last, NetworkClassifier):
        inner = [] if isinstance(last, FrozenEstimator) else _parameters(last)
        if any(isinstance(value, NetworkClassifier) for value in inner):
            raise TypeError(
                f"search has a classifier of skqfair inside of a {type(last).__name__}, whose fits a "
                "warm-up cannot foresee; warm up a search over the classifier alone, or fit the search."
            )
        return False
    if Cache(last.memory).memory is None:
        raise ValueError(
            f"memory of {type(last).__name__} is {last.memory!r}, so that nothing trained now would be "
            "there for the search; set memory to a folder, one that all workers see."
        )
    if not isinstance(last.estimator, FrozenEstimator) and last.random_state is None:
        raise ValueError(
            f"random_state of {type(last).__name__} is None: every training is another one, and memory "
            "is bypassed; set it to an integer."
        )
    return True
