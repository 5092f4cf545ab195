"""Fuzzing of what trains, differentiates, exports and reads: every answer finite and of its shape."""

import contextlib
import io
import json
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch
from adverse_input import (
    SCALARS,
    any_array,
    any_column,
    any_weights,
    good_column,
    good_weights,
    network,
    numbers,
    picked,
)
from hypothesis import strategies as st
from metric_targets import sample_case
from properties import Refused, answer, call, finite, named
from sklearn.exceptions import ConvergenceWarning

from skqfair import (
    CompressionAudit,
    FairQATClassifier,
    PrunedClassifier,
    QuantizationDiagnostics,
    QuantizedClassifier,
    audit,
    curvature,
    datasets,
)
from skqfair.networks import MLP, ConvNet, ImageAugmentation, TorchClassifier, make_classifier
from skqfair.quantization import SparseTensor

SMALL = [0.0, 1.0, -1.0, 0.3, 5e-324, 1e-30, 1e30, -1e30]
OF_FIT = ("X", "y", "sample_weight", "sensitive_features", "lr", "estimator", "optimizer", "loss")


def small_net():
    return make_classifier(MLP, module__hidden_sizes=(2,), max_epochs=1, batch_size=4)


def odd_rows(draw, n):
    """Something to be taken for X: seldom samples of three features."""
    if draw(st.booleans()):
        return any_array(draw)
    return numbers(draw, (n, 3), SMALL if draw(st.booleans()) else [*SMALL, float("nan"), float("inf")])


def check_predictions(fitted, X, n):
    proba = fitted.predict_proba(X)
    assert proba.shape == (n, len(fitted.classes_))
    assert finite(proba)
    np.testing.assert_allclose(proba.sum(1), 1, atol=1e-6)
    assert finite(fitted.decision_function(X))
    found = fitted.predict(X)
    assert len(found) == n
    assert set(found.tolist()) <= set(fitted.classes_.tolist())


def estimator(cls, good, odd):
    """A target that fits a classifier on good data, or on anything, and asks it for predictions."""
    names = (*named(cls), *OF_FIT)
    labels = ("integers", "strings", "booleans", "whole floats")

    def target(draw):
        n = draw(st.sampled_from([4, 8]))
        y, Y = good_column(draw, n, labels)
        Y = y if getattr(Y, "dtype", None) == np.dtype(object) else Y  # only text for scikit-learn
        X, weights = numbers(draw, (n, 3), SMALL[:6]), good_weights(draw, n)
        weights = [max(weight, 1e-3) for weight in np.minimum(weights, 10)]
        groups = good_column(draw, n, ("integers", "strings", "booleans"))[1]
        options = {name: draw(st.sampled_from(values)) for name, values in good.items()}
        fine = len(set(y)) > 1
        if draw(st.booleans()):
            fine = False
            wrong = draw(st.sampled_from(["X", "y", "groups", "weights", *odd]))
            X = odd_rows(draw, n) if wrong == "X" else X
            Y = any_column(draw, n) if wrong == "y" else Y
            groups = any_column(draw, n) if wrong == "groups" else groups
            weights = any_weights(draw, n) if wrong == "weights" else weights
            if wrong in odd:
                options[wrong] = draw(st.sampled_from([*SCALARS, *odd[wrong]]))
        fitted = cls(small_net(), random_state=0, **options)
        try:
            call(fitted.fit, X, Y, sensitive_features=groups, sample_weight=weights, names=names)
        except Refused:
            if fine:
                raise
            return
        check_predictions(fitted, X, len(Y))
        other = odd_rows(draw, draw(st.integers(0, 3)))
        with contextlib.suppress(Refused):
            proba = call(fitted.predict_proba, other, names={"X", "QuantizedClassifier"})
            assert finite(proba)
        if fine:
            again = cls(small_net(), random_state=0, **options)
            again.fit(X, Y, sensitive_features=groups, sample_weight=weights)
            np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))

    return target


def diagnostics(draw):
    n = draw(st.sampled_from([4, 9]))
    X, y = numbers(draw, (n, 3), SMALL[:6]), picked(draw, [0, 1], n)
    g, groups = good_column(draw, n, ("integers", "strings"))
    options = {"weight_bits": draw(st.sampled_from([(4,), (2, 8)])), "random_state": 0}
    fine = len(set(y)) > 1 and min(map(g.count, g)) > 1
    if draw(st.booleans()):
        fine = False
        wrong = draw(
            st.sampled_from(["X", "y", "groups", "weight_bits", "n_eigenvalues", "max_samples"])
        )
        X = odd_rows(draw, n) if wrong == "X" else X
        y = any_column(draw, n) if wrong == "y" else y
        groups = any_column(draw, n) if wrong == "groups" else groups
        if wrong in ("weight_bits", "n_eigenvalues", "max_samples"):
            options[wrong] = draw(st.sampled_from([*SCALARS, (4, 4), (1,), ("a",), ()]))
    found = QuantizationDiagnostics(small_net(), **options)
    try:
        call(
            found.fit,
            X,
            y,
            sensitive_features=groups,
            names=(*named(QuantizationDiagnostics), *OF_FIT),
            ignore=(ConvergenceWarning,),
        )
    except Refused:
        if fine:
            raise
        return
    report = found.group_report_
    assert report["accuracy"].between(0, 1).all()
    assert finite(report[["loss", "margin", "confidence", "flip_rate", "gradient_norm"]])
    assert (report["count"].groupby(level=0).sum() == len(y)).all()
    assert finite(found.transform(X))


@cache
def fitted(kind=QuantizedClassifier):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3)).astype(np.float32)
    return kind(small_net(), random_state=0).fit(X, (X[:, 0] > 0).astype(int)), X


def torch_classifier(draw):
    module = network(draw, kinds=["linear", "mlp", "norm", "convolution", "none"])
    options = {}
    if draw(st.booleans()):
        wrong = draw(
            st.sampled_from(["module", "classes", "n_classes", "output", "batch_size", "device"])
        )
        options[wrong] = draw(st.sampled_from([*SCALARS, [0, 1], ["a", "a"], "logits", "proba", "cpu"]))
    module = options.pop("module", module)
    names = (*named(TorchClassifier), "X")
    X = odd_rows(draw, 4) if draw(st.booleans()) else numbers(draw, (4, 3), SMALL[:6])
    try:
        found = call(TorchClassifier, module, **options, names=names)
        proba = call(found.predict_proba, X, names=names)
    except Refused:
        return
    assert finite(proba)
    np.testing.assert_allclose(proba.sum(1), 1, atol=1e-6)


def built_in(cls):
    def target(draw):
        values = [*SCALARS, (4,), (1, 2), (0,), 5]
        some = draw(
            st.lists(st.sampled_from(sorted(named(cls) - {"activation"})), max_size=2, unique=True)
        )
        arguments = {name: draw(st.sampled_from(values)) for name in some}
        sizes = {MLP: {"n_features": 3}, ConvNet: {"in_channels": 1}}[cls]
        names = named(cls)
        try:
            module = call(cls, **{**sizes, "n_classes": 2, **arguments}, names=names).eval()
        except Refused:
            return
        width = next(iter({**sizes, **{k: v for k, v in arguments.items() if k in sizes}}.values()))
        if not isinstance(width, int) or isinstance(width, bool):
            return
        X = torch.zeros(2, width) if cls is MLP else torch.zeros(2, width, 8, 8)
        with torch.no_grad():
            assert module(X).shape == (2, int(arguments.get("n_classes", 2)))

    return target


def augmentation(draw):
    some = draw(st.lists(st.sampled_from(sorted(named(ImageAugmentation))), max_size=2, unique=True))
    arguments = {name: draw(st.sampled_from([0.0, 0.5, 1.0, *SCALARS])) for name in some}
    try:
        augment = call(ImageAugmentation, **arguments)
        shape = draw(st.sampled_from([(2, 3, 4, 4), (1, 1, 1, 1), (3, 2, 5, 7)]))
        X = torch.from_numpy(numbers(draw, shape, [0.0, 0.5, 1.0]).astype(np.float32))
        found = call(augment, X, names=named(ImageAugmentation))
    except Refused:
        return
    assert found.shape == X.shape
    assert finite(found)


def make_net(draw):
    names = [
        "lr",
        "max_epochs",
        "batch_size",
        "module",
        "criterion",
        "optimizer",
        "augment",
        "train_split",
    ]
    some = draw(st.lists(st.sampled_from(names), max_size=2, unique=True))
    arguments = {name: draw(st.sampled_from([*SCALARS, 0.1, 2])) for name in some}
    try:
        net = call(make_classifier, **{"max_epochs": 1, **arguments})
    except Refused:
        return
    _, X = fitted()
    y = (X[:, 0] > 0).astype(int)
    wrapped = QuantizedClassifier(net, random_state=0)
    with contextlib.suppress(Refused):
        call(wrapped.fit, X, y, names=(*names, *OF_FIT, "callbacks"))
        check_predictions(wrapped, X, len(X))


def curvature_of(function):
    """Gradients and Hessians, finite for a finite problem, a row for each group or sample."""

    def target(draw):
        module = network(draw, SMALL[:4], kinds=["linear", "mlp", "norm", "convolution"])
        n = draw(st.sampled_from([1, 2, 5]))
        X = torch.from_numpy(numbers(draw, (n, 3), SMALL[:6]).astype(np.float32))
        y, (g, G) = torch.tensor(picked(draw, [0, 1], n)), good_column(draw, n, ("strings", "integers"))
        rest = [G] if "groups" in named(function) else []
        fine = True
        if draw(st.booleans()):
            fine = False
            wrong = draw(st.integers(0, 3))
            if wrong == 0:
                module = draw(st.sampled_from([None, 3, torch.nn.Linear, torch.nn.ReLU(), small_net()]))
            elif wrong == 1:
                X = any_array(draw)
            elif wrong == 2:
                y = any_column(draw, n)
            else:
                rest = [any_column(draw, n)] if rest else []
        found = answer(function, module, X, y, *rest)
        if found is not None and fine:
            assert finite(found)
            assert found.shape[0] == (len(set(g)) if rest else n)
        assert found is not None or not fine

    return target


def compression_audit(draw):
    names = (*named(CompressionAudit.from_predictions), "y_pred", "models")
    keywords = {"random_state": 0}
    if draw(st.booleans()):
        n = draw(st.sampled_from([0, 1, 4]))
        predictions = {"float": any_column(draw, n), "int2": any_column(draw, n)}
        y, groups, weights = any_column(draw, n), any_column(draw, n), any_weights(draw, n)
        keywords["sizes"] = draw(st.sampled_from([None, {"float": 4}, {"other": 3}]))
    else:
        _, ((_, y), *others), (_, groups), weights = sample_case(draw, 2)
        predictions = {"float": others[0][1], "int2": others[1][1]}
    keywords |= {"sensitive_features": groups, "sample_weight": weights}
    found = answer(CompressionAudit.from_predictions, y, predictions, names=names, **keywords)
    if found is None:
        return
    again = CompressionAudit.from_json(found.to_json())
    assert CompressionAudit.from_json(again.to_json()).to_json() == again.to_json()  # dates are text
    assert again.verdicts == found.verdicts
    assert json.loads(found.to_json())["format"]
    assert found.to_markdown()
    assert "</html>" in found.to_html()


CELLS = ["a", "b", "0", "1", "", "nan", "<script>", "0.5", "1e400", '"', ",", "\0", "ä", "inf"]


def command_line(draw):
    n = draw(st.integers(0, 4))
    header = draw(st.sampled_from(["y,f,q,g", "y,f,q", "y,y,q,g", "", "y,f,q,g,g"]))
    rows = [",".join(picked(draw, CELLS, 4)) for _ in range(n)]
    options = draw(st.sampled_from([[], ["--compressed", "q"], ["--max-fvo", "0.1"], ["--no-such"]]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.csv"
        path.write_bytes("\n".join([header, *rows]).encode(draw(st.sampled_from(["utf-8", "utf-16"]))))
        if draw(st.integers(0, 5)) == 0:
            path = draw(st.sampled_from([Path(folder), Path(folder) / "none.csv"]))
        said, errors = io.StringIO(), io.StringIO()
        given = ["audit", str(path), "--true", "y", "--reference", "f", "--group", "g", *options]
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
                code = call(audit.main, given, names={"X"})
        except SystemExit as error:
            code = error.code
        assert code in (0, 1, 2, None)
        assert "Traceback" not in errors.getvalue()
        assert said.getvalue() or errors.getvalue() or code == 0


def adult(draw):
    options = {name: draw(st.sampled_from(SCALARS)) for name in ("return_X_y", "as_frame")}
    found = answer(datasets.load_adult, **options)
    if found is not None and not options["return_X_y"]:
        assert len(found.data) == len(found.target)


def utkface(draw):
    with tempfile.TemporaryDirectory() as folder:
        for name in picked(draw, ["1_0_2_2017.jpg", "x.jpg", "1_9_9_2.jpg", "_.jpg", "a.txt"], 2):
            (Path(folder) / name).write_bytes(draw(st.binary(max_size=20)))
        path = draw(st.sampled_from([folder, Path(folder), folder + "/no", "", *SCALARS]))
        some = ["target", "image_size", "max_samples", "random_state", "n_jobs"]
        wrong = draw(st.sampled_from(some))
        options = {wrong: draw(st.sampled_from([*SCALARS, "gender"]))} if draw(st.booleans()) else {}
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found = answer(datasets.load_utkface, path, **options)
            assert found is None or len(found.data) == len(found.target)


@cache
def exported():
    from skqfair.export import to_onnx

    clf, X = fitted()
    path = Path(tempfile.mkdtemp()) / "model.onnx"
    to_onnx(clf, path)
    return clf, X, path


def to_onnx(draw):
    from skqfair.export import to_onnx

    clf, _, _ = exported()
    with tempfile.TemporaryDirectory() as folder:
        path = draw(st.sampled_from([f"{folder}/m.onnx", f"{folder}/no/m.onnx", folder, "", *SCALARS]))
        options = {"opset": draw(st.sampled_from([None, 21, 25, 13, 99, *SCALARS]))}
        if draw(st.booleans()):
            options["X_example"] = odd_rows(draw, 3)
        estimator = draw(st.sampled_from([clf, clf, None, 3, QuantizedClassifier(), small_net()]))
        with contextlib.suppress(OSError):
            found = answer(to_onnx, estimator, path, **options, names=(*named(to_onnx), "X"))
            if found is None:  # nothing is left behind
                assert not [*Path(folder).iterdir()]


def onnx_classifier(draw):
    from skqfair.export import OnnxClassifier

    clf, X, path = exported()
    content = bytearray(path.read_bytes())
    for _ in range(draw(st.integers(0, 2))):
        content[draw(st.integers(0, len(content) - 1))] ^= 1 << draw(st.integers(0, 7))
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "m.onnx"
        other.write_bytes(content)
        given = draw(st.sampled_from([other, path, Path(folder), Path(folder) / "no", *SCALARS]))
        options = {}
        if draw(st.booleans()):
            wrong = draw(st.sampled_from(["classes", "output", "batch_size", "n_threads"]))
            options[wrong] = draw(st.sampled_from([*SCALARS, ["a", "b"], [1, 1]]))
        rows = odd_rows(draw, 3) if draw(st.booleans()) else X
        names = (*named(OnnxClassifier), "X", "onnx")  # the last of the path
        with contextlib.suppress(OSError):
            try:
                found = call(OnnxClassifier, given, **options, names=names)
                call(found.predict, rows, names=names)  # predict_proba is there where the file is read
                proba = call(found.predict_proba, rows, names=names)
            except Refused:
                return
            assert finite(proba)
            if given == path and rows is X and not options:
                assert (found.predict(X) == clf.predict(X)).all()


def parity(draw):
    from skqfair.export import OnnxClassifier, parity_report

    clf, X, path = exported()
    y, groups = (X[:, 0] > 0).astype(int), np.arange(len(X)) % 2
    odd = [any_column(draw, len(X)), any_array(draw), None]
    wrong = draw(st.sampled_from([None, "y", "groups", "X", "exported", "min_agreement", "on_failure"]))
    options = {wrong: draw(st.sampled_from(SCALARS))} if wrong in ("min_agreement", "on_failure") else {}
    found = answer(
        parity_report,
        clf,
        3 if wrong == "exported" else OnnxClassifier(path),
        odd[draw(st.integers(0, 2))] if wrong == "X" else X,
        odd[0] if wrong == "y" else y,
        sensitive_features=odd[0] if wrong == "groups" else groups,
        names=named(parity_report, "y_true", "y_pred"),
        **options,
    )
    if wrong is None:
        assert (found["agreement"] == 1).all()


def sparse_tensor(draw):
    tensor = any_array(draw)
    found = answer(SparseTensor.from_dense, tensor, names={"tensor"})
    if found is not None:
        dense = np.asarray(tensor).astype(np.float32)
        np.testing.assert_array_equal(found.unpack(), dense)


BITS_OF = {
    "weight_bits": [2, 4, 8, 16, None],
    "activation_bits": [None, None, 8, 4],
    "calibration": ["minmax", "mse", "percentile"],
}
ODD_BITS_OF = {"weight_bits": [1, 17, "a"], "activation_bits": [1], "layer_bits": ["x", {"*": 99}, [2]]}
TARGETS = {
    "skqfair.QuantizedClassifier": estimator(
        QuantizedClassifier,
        {**BITS_OF, "rounding": ["nearest", "least_squares", "gptq"], "bias_correction": [False, True]},
        {**ODD_BITS_OF, "granularity": ["x"], "rounding": ["x"], "calibration_size": [0], "memory": [3]},
    ),
    "skqfair.FairQATClassifier": estimator(
        FairQATClassifier,
        {**BITS_OF, "finetune_epochs": [0, 1], "sampling": [None, "balanced", "undersample"]},
        {
            **ODD_BITS_OF,
            "mitigation_weight": [2],
            "gap_penalty": [-1],
            "temperature": [0],
            "sampling": ["x"],
        },
    ),
    "skqfair.PrunedClassifier": estimator(
        PrunedClassifier,
        {"amount": [0.0, 0.5, 0.9], "scope": ["global", "layer"], "finetune_epochs": [0, 1]},
        {"amount": [1.0, -1], "scope": ["x"], "finetune_epochs": [-1]},
    ),
    "skqfair.QuantizationDiagnostics": diagnostics,
    "skqfair.CompressionAudit": compression_audit,
    "skqfair.audit.main": command_line,
    "skqfair.networks.TorchClassifier": torch_classifier,
    "skqfair.networks.MLP": built_in(MLP),
    "skqfair.networks.ConvNet": built_in(ConvNet),
    "skqfair.networks.ImageAugmentation": augmentation,
    "skqfair.networks.make_classifier": make_net,
    "skqfair.datasets.load_adult": adult,
    "skqfair.datasets.load_utkface": utkface,
    "skqfair.export.to_onnx": to_onnx,
    "skqfair.export.OnnxClassifier": onnx_classifier,
    "skqfair.export.parity_report": parity,
    "skqfair.quantization.SparseTensor": sparse_tensor,
    **{
        f"skqfair.curvature.{name}": curvature_of(getattr(curvature, name))
        for name in (
            "group_gradient_norms",
            "group_hessian_eigenvalues",
            "group_hessian_trace",
            "per_sample_gradient_norms",
        )
    },
}
