"""Predictions of models of any kind, and the candidates of a search."""

import numpy as np
import pandas as pd

from skqfair.audit._searched import last_part

__all__ = ["candidates", "predict_all"]


def predict_all(models, X, y):
    """Return predictions and, where known, bytes of each model, and the classes of all."""
    labels = [np.asarray(y)]
    labels += [model.classes_ for model in models.values() if _has_classes(model)]
    classes = sorted({value for values in labels for value in values.tolist()}, key=_sort_key)
    predictions = {name: _predict(name, model, X, classes) for name, model in models.items()}
    sizes = {name: getattr(model, "model_size_", None) for name, model in models.items()}
    return predictions, {name: size for name, size in sizes.items() if size is not None}, classes


def _sort_key(value):
    return ("", value) if isinstance(value, (bool, int, float)) else (type(value).__name__, value)


def _has_classes(model):
    return isinstance(getattr(model, "classes_", None), np.ndarray) and hasattr(model, "predict")


def _predict(name, model, X, classes):
    if isinstance(model, (np.ndarray, pd.Series, pd.DataFrame, list)):
        return model
    if not hasattr(model, "predict"):
        if callable(model):
            return model(X)
        raise ValueError(
            f"models[{name!r}] must be a fitted classifier, a callable or an array of predictions, got "
            f"{type(model).__name__}. Wrap a torch module in skqfair.networks.TorchClassifier, open an "
            "ONNX file with skqfair.export.OnnxClassifier."
        )
    from sklearn.exceptions import NotFittedError  # audits of predictions do without scikit-learn
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(model)
    except NotFittedError as error:
        raise ValueError(f"models[{name!r}] is not fitted; fit it first.") from error
    labels = np.asarray(model.predict(X))
    if not hasattr(model, "predict_proba") or not _has_classes(model):
        return labels
    proba = np.asarray(model.predict_proba(X), dtype=np.float64)
    if not np.array_equal(model.classes_[proba.argmax(axis=1)], labels):
        return labels  # e.g. tuned thresholds: the labels are what the model says
    frame = pd.DataFrame(proba, columns=model.classes_.tolist())
    return frame.reindex(columns=classes, fill_value=0.0).to_numpy()


def candidates(search, X, y, fit_params, reference):
    """Fit every candidate of a search again; return models by name, the names, the reference's."""
    from sklearn.base import clone

    params = getattr(search, "cv_results_", {}).get("params")
    if params is None:
        raise ValueError("search has no cv_results_; fit it first.")
    names = [_name(candidate) for candidate in params]
    if reference is not None and not isinstance(reference, str):
        models, reference = {"reference": reference}, "reference"
    else:
        models, reference = {}, reference or _float_candidate(params, names)
        if reference not in names:
            raise ValueError(f"reference {reference!r} is no candidate; they are {names}.")
    for name, candidate in zip(names, params, strict=True):
        model = clone(search.estimator).set_params(**clone(candidate, safe=False))
        models[name] = model.fit(X, y, **fit_params)
    return models, names, reference


def _name(params):
    """Return a candidate's parameters, less the names of steps where these say nothing more."""
    short = [last_part(key) for key in params]
    keys = short if len(set(short)) == len(short) else list(params)
    return ", ".join(f"{key}={value}" for key, value in zip(keys, params.values(), strict=True))


def _float_candidate(params, names):
    plain = [
        name
        for candidate, name in zip(params, names, strict=True)
        if any(last_part(k) == "weight_bits" and v is None for k, v in candidate.items())
    ]
    if len(plain) != 1:
        raise ValueError(
            f"{len(plain)} candidates have weight_bits=None; name the reference, one of {names}, or "
            "pass a fitted classifier."
        )
    return plain[0]
