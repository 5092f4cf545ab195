"""All reports on networks that others designed, against numpy and finite differences."""

import copy
import re
import warnings

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn.frozen import FrozenEstimator

pytest.importorskip("transformers")

from architectures.nets import ARCHITECTURES, build
from torch.nn.functional import cross_entropy

from skqfair import QuantizationDiagnostics, QuantizedClassifier
from skqfair.diagnostics import group_hessian_eigenvalues
from skqfair.exceptions import ExportError, SmallGroupWarning, UnquantizedWeightsWarning
from skqfair.networks import make_classifier
from skqfair.quantization import quantize

# Weights that these hold in modules of their own, and the axis of their outputs.
OWN = {
    "gpt2": {"*.c_attn.weight": 1, "*.c_proj.weight": 1, "*.c_fc.weight": 1},
    "mixtral": {"*.experts.*": 1, "*.gate.weight": 0},
    "vit": {"*_token": 2, "*.position_embeddings": 2},
    "swin": {"*.relative_position_bias_table": 1},
}
FLOAT_ONLY, FLOAT_INSIDE = ["mixtral"], ["llama"]  # whose operations are in float32
NOT_IN_ONNX = {"mixtral": "grouped_mm"}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def fitted(request):
    name = request.param
    net, X, y, groups = build(name, 96)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmallGroupWarning)
        clf = QuantizedClassifier(
            make_classifier(net, max_epochs=1, lr=1e-3),
            weight_bits=4,
            quantize_parameters=OWN.get(name),
            random_state=0,
        ).fit(X, y)
        diagnostics = QuantizationDiagnostics(FrozenEstimator(clf), n_eigenvalues=0, random_state=0)
        diagnostics.fit(X, y, sensitive_features=groups)
    return name, clf, diagnostics, X, y, groups


def test_every_weight_has_its_codes(fitted):
    _, clf, *_ = fitted
    trained, final = (dict(m.named_parameters()) for m in (clf.estimator_.module_, clf.module_))
    assert set(clf.layer_bits_) == {key for key, p in final.items() if p.ndim > 1}
    assert set(clf.layer_bits_.values()) == {4}
    for key, weight in clf.quantized_weights_.items():
        codes, scale = quantize(trained[key], 4, axis=weight.axis)
        assert final[key].equal(codes * scale)


def test_what_is_left_in_float_is_said():
    for name in OWN:
        net, X, y, _ = build(name, 24)
        with pytest.warns(UnquantizedWeightsWarning, match=r"\d+\.\d% of the weights of Net"):
            QuantizedClassifier(make_classifier(net, max_epochs=0), random_state=0).fit(X, y)


def test_forward_columns(fitted):
    _, clf, diagnostics, X, y, groups = fitted
    with torch.no_grad():
        logits = clf.module_(torch.as_tensor(X)).double().numpy()
    losses = -log_softmax(logits, axis=1)[np.arange(len(y)), y]
    table = diagnostics.group_report_.loc[4]
    for group in "ab":
        rows = groups == group
        assert table.loc[group, "accuracy"] == np.mean(logits[rows].argmax(1) == y[rows])
        assert table.loc[group, "loss"] == pytest.approx(losses[rows].mean(), rel=1e-4)
        assert table.loc[group, "logit_variance"] == pytest.approx(
            logits[rows].var(axis=1).mean(), rel=1e-3, abs=1e-9
        )


def reference(name, clf, X, y):
    """Return ``step, direction -> gradient`` of the loss at the float weights plus step x direction."""
    module = copy.deepcopy(clf.estimator_.module_).eval()
    module = module if name in FLOAT_ONLY else module.double()
    parameters = list(module.parameters())
    before = [p.detach().clone() for p in parameters]
    inputs = torch.as_tensor(X)
    inputs = inputs.to(parameters[0].dtype) if inputs.is_floating_point() else inputs

    def gradient(step, direction):
        with torch.no_grad():
            for p, values, part in zip(parameters, before, direction, strict=True):
                p.copy_(values + step * part.to(values))
        loss = cross_entropy(module(inputs), torch.as_tensor(y))
        found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        return [g.double() for g in found]

    # small: a ReLU whose input changes its sign within the step makes the difference a jump
    return gradient, 1e-2 if name in FLOAT_ONLY + FLOAT_INSIDE else 1e-9


def along(gradients, direction):
    return sum(float((g * d.double()).sum()) for g, d in zip(gradients, direction, strict=True))


def curvature(gradient, step, direction):
    ends = [along(gradient(s * step, direction), direction) for s in (1, -1)]
    return (ends[0] - ends[1]) / (2 * step)


def test_attribution_adds_up_to_finite_differences(fitted):
    name, clf, diagnostics, X, y, groups = fitted
    pairs = zip(clf.estimator_.module_.parameters(), clf.module_.parameters(), strict=True)
    change = [(b - a).detach() for a, b in pairs]
    table, layers = diagnostics.group_report_.loc[4], diagnostics.attribution_.loc[4]
    for group in "ab":
        rows = groups == group
        gradient, step = reference(name, clf, X[rows], y[rows])
        first = along(gradient(0, change), change)
        second = first + curvature(gradient, step, change) / 2
        scale = abs(first) + abs(second)
        own = layers.xs(group, level="group")
        for order, expected in (("first", first), ("second", second)):
            column = f"excess_loss_{order}_order"
            assert table.loc[group, column] == pytest.approx(expected, rel=0.02, abs=0.02 * scale)
            assert own[column].sum() == pytest.approx(table.loc[group, column], abs=1e-6 * scale)


def test_the_largest_eigenvalue_is_that_of_the_gradient(fitted):
    name, clf, _, X, y, groups = fitted
    module = clf.estimator_.module_
    sizes = [p.numel() for p in module.parameters()]
    options = {"tol": 1e-2, "max_iter": 60, "return_eigenvectors": True}
    values, vectors = group_hessian_eigenvalues(module, X, y, groups, **options)
    for g, group in enumerate("ab"):
        parts = torch.as_tensor(vectors[g, 0]).split(sizes)
        shaped = zip(parts, module.parameters(), strict=True)
        direction = [part.view_as(p) for part, p in shaped]
        gradient, step = reference(name, clf, X[groups == group], y[groups == group])
        assert values[g, 0] == pytest.approx(curvature(gradient, step, direction), rel=0.03)


def test_the_file_is_the_model(fitted, tmp_path):
    pytest.importorskip("onnxscript")
    from skqfair.export import OnnxClassifier, to_onnx

    name, clf, _, X, *_ = fitted
    path = tmp_path / "model.onnx"
    if name in NOT_IN_ONNX:
        with pytest.raises(ExportError, match=re.escape(NOT_IN_ONNX[name])):
            to_onnx(clf, path)
        return
    to_onnx(clf, path)
    np.testing.assert_allclose(
        OnnxClassifier(path).decision_function(X), clf.decision_function(X), atol=1e-3
    )
