"""Files of other origin as classifiers; references are ONNX's evaluator, torch and scikit-learn."""

import pickle
import subprocess
import sys
import warnings

import numpy as np
import onnx
import pandas as pd
import polars as pl
import pytest
import torch
from foreign import body, by_hand, model, outputs, quantized, rows
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skqfair.export import OnnxClassifier

X = rows()
Y = np.random.default_rng(1).integers(0, 3, 200)


def raw(path):
    """What ONNX's own evaluator in numpy returns."""
    return ReferenceEvaluator(onnx.load(path)).run(None, {"x": X})[0].astype(np.float64)


@pytest.mark.parametrize("how", ["static", "dynamic"])
@pytest.mark.parametrize("last", [[], [nn.Softmax(1)]], ids=["logits", "softmax"])
def test_int8_of_onnxruntime(how, last, tmp_path):
    module = body(3, *last)
    path = quantized(module, tmp_path, how, X)
    clf = OnnxClassifier(path, batch_size=200)
    got, wanted = clf.predict_proba(X), raw(path)
    wanted = wanted / wanted.sum(1, keepdims=True) if last else softmax(wanted, 1)
    steps = 1 / 256 if last and how == "static" else 0  # of rounded probabilities, one is allowed
    np.testing.assert_allclose(got, wanted, atol=1e-6 + steps)
    clear = np.sort(wanted, 1)[:, -1] - np.sort(wanted, 1)[:, -2] > 1e-6 + 2 * steps
    np.testing.assert_array_equal(clf.predict(X)[clear], wanted.argmax(1)[clear])
    assert clf.classes_.tolist() == [0, 1, 2]
    assert clf.n_features_in_ == 6
    assert clf.model_size_ == path.stat().st_size
    for restored in (pickle.loads(pickle.dumps(clf)), clone(clf)):
        np.testing.assert_array_equal(restored.predict_proba(X), got)
    with pytest.raises(AttributeError, match="not written by skqfair"):
        clf.metadata_  # noqa: B018


@pytest.mark.parametrize("how", ["static", "dynamic"])
def test_weights_are_read_dequantized(how, tmp_path):
    module = body(3)
    weights = OnnxClassifier(quantized(module, tmp_path, how, X)).read_weights()
    assert weights.keys() == {"0.weight", "2.weight"}
    for name, found in weights.items():
        wanted = module.get_parameter(name).detach().numpy()
        found = found if found.shape == wanted.shape else found.T
        steps = 2 * np.abs(wanted).max() / 254  # of 8 bits, at most
        assert 0 < np.abs(found - wanted).max() <= steps


@pytest.mark.parametrize("dynamo", [True, False])
def test_torch_onnx_export(dynamo, tmp_path):
    """The newer exporter puts weights into a second file."""
    module, path = body(3), tmp_path / "model.onnx"
    free = {"dynamic_shapes": ({0: "n"},)} if dynamo else {"dynamic_axes": {"x": {0: "n"}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own
        options = {"dynamo": dynamo, "input_names": ["x"], **free}
        torch.onnx.export(module, (torch.as_tensor(X[:2]),), path, **options)
    clf = OnnxClassifier(path)
    np.testing.assert_allclose(clf.decision_function(X), outputs(module, X), atol=1e-5)
    wanted = module[0].weight.detach().numpy()
    np.testing.assert_array_equal(clf.read_weights()["0.weight"], wanted)
    content = pickle.dumps(clf)
    for file in tmp_path.iterdir():
        file.unlink()
    assert pickle.loads(content).predict(X).shape == (200,)


@pytest.mark.parametrize(
    ("last", "kind"), [([], "logit"), ([nn.Sigmoid()], "probability")], ids=["logit", "sigmoid"]
)
@pytest.mark.parametrize("classes", [None, ["no", "yes"]])
def test_one_output(last, kind, classes):
    module = body(1, *last)
    clf = OnnxClassifier(by_hand(module).SerializeToString(), classes=classes)
    assert clf.classes_.tolist() == (classes or [0, 1])
    second = outputs(module, X).ravel() if last else expit(outputs(module, X).ravel())
    np.testing.assert_allclose(clf.predict_proba(X)[:, 1], second, atol=1e-6)
    np.testing.assert_array_equal(clf.predict(X), clf.classes_[(second > 0.5).astype(int)])
    assert clf.decision_function(X[:1]).shape == (1,)


LABELS = {"int": Y, "str": np.array(["a", "b", "c"])[Y], "two": Y % 2}
SKLEARN = {
    "forest": lambda: RandomForestClassifier(10, random_state=0),
    "scaler+logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "neighbours": lambda: KNeighborsClassifier(),
}


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("zipmap", [True, False])
@pytest.mark.parametrize("name", SKLEARN)
def test_skl2onnx(name, zipmap, labels):
    skl2onnx = pytest.importorskip("skl2onnx")
    estimator, y = SKLEARN[name](), LABELS[labels]
    estimator.fit(X, y)
    options = {} if zipmap else {"options": {id(estimator): {"zipmap": False}}}
    content = skl2onnx.to_onnx(estimator, X[:1], **options).SerializeToString()
    unnamed = name == "neighbours" and not zipmap and labels == "str"
    clf = OnnxClassifier(content, classes=list("abc") if unnamed else None)
    wanted = estimator.predict_proba(X)
    np.testing.assert_allclose(clf.predict_proba(X), wanted, atol=1e-5)
    clear = np.sort(wanted, 1)[:, -1] - np.sort(wanted, 1)[:, -2] > 1e-4
    np.testing.assert_array_equal(clf.predict(X)[clear], estimator.predict(X)[clear])
    assert clf.classes_.tolist() == estimator.classes_.tolist()
    label = "output_label" if zipmap else "label"
    only = OnnxClassifier(content, output=label)
    np.testing.assert_array_equal(only.predict(X)[clear], estimator.predict(X)[clear])
    assert not hasattr(only, "predict_proba")
    assert not hasattr(only, "decision_function")
    if unnamed:
        with pytest.raises(ValueError, match=r"has the labels .'a'.* pass classes="):
            OnnxClassifier(content).predict(X)


def test_skl2onnx_with_several_inputs():
    skl2onnx = pytest.importorskip("skl2onnx")
    from skl2onnx.common.data_types import FloatTensorType

    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    types = [("age", FloatTensorType([None, 1])), ("rest", FloatTensorType([None, 5]))]
    content = skl2onnx.to_onnx(estimator, initial_types=types).SerializeToString()
    clf, wanted = OnnxClassifier(content), estimator.predict_proba(X)
    assert clf.n_features_in_ == 6
    for given in (X, {"rest": X[:, 1:], "age": X[:, 0]}, pd.DataFrame(X), X.tolist()):
        np.testing.assert_allclose(clf.predict_proba(given), wanted, atol=1e-5)
    with pytest.raises(ValueError, match=r"X has no key for the inputs \['rest'\]"):
        clf.predict({"age": X[:, 0]})
    with pytest.raises(ValueError, match=r"X has no column for the inputs \['age', 'rest'\]"):
        clf.predict(pd.DataFrame(X[:, :4], columns=list("abcd")))
    with pytest.raises(ValueError, match="as many rows for each input; got"):
        clf.predict({"rest": X[:5, 1:], "age": X[:4, 0]})


def added(first=TensorProto.FLOAT, second=TensorProto.STRING):
    """A model of two named columns, one of text."""
    nodes = [
        helper.make_node("LabelEncoder", ["sex"], ["code"], domain="ai.onnx.ml",
                         keys_strings=["f", "m"], values_floats=[-1.0, 1.0]),
        helper.make_node("Add", ["age", "code"], ["logit"]),
    ]  # fmt: skip
    made = model(nodes, {"age": ["n", 1], "sex": ["n", 1]}, {"logit": ["n", 1]})
    made.graph.input[0].type.tensor_type.elem_type = first
    made.graph.input[1].type.tensor_type.elem_type = second
    return made.SerializeToString()


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_frames_with_text(frame):
    given = frame({"sex": ["f", "m", "m"], "other": [1, 2, 3], "age": [2.0, -3.0, 0.5]})
    logit = OnnxClassifier(added()).decision_function(given)
    np.testing.assert_allclose(logit, [1.0, -2.0, 1.5])


def scaled(dtype, shape=("n", 2)):
    """A model that multiplies by 1, of any dtype."""
    one = numpy_helper.from_array(np.ones(2, helper.tensor_dtype_to_np_dtype(dtype)), "one")
    nodes = [
        helper.make_node("Mul", ["x", "one"], ["y"]),
        helper.make_node("Cast", ["y"], ["z"], to=TensorProto.FLOAT),
    ]
    made = model(nodes, {"x": list(shape)}, {"z": ["n", 2]}, [one])
    made.graph.input[0].type.tensor_type.elem_type = dtype
    return made.SerializeToString()


@pytest.mark.parametrize("name", ["FLOAT16", "DOUBLE", "INT64", "UINT8", "INT32"])
def test_inputs_of_other_dtypes(name):
    dtype = getattr(TensorProto, name)
    given = np.array([[1, 2], [9, 4], [7, 0]])
    for values in (given, given.astype(float), given.astype(np.float32).tolist()):
        clf = OnnxClassifier(scaled(dtype))
        np.testing.assert_allclose(clf.decision_function(values), given[:, 1] - given[:, 0])
    limit = np.finfo("f2").max if name == "FLOAT16" else 1e300 / 4
    if name != "DOUBLE":
        with pytest.raises(ValueError, match=r"X has .*, which the input 'x' of dtype \w+ cannot hold"):
            clf.predict([[2.0 * float(limit), 0.0]])
    if "INT" in name:
        with pytest.raises(ValueError, match=r"X has 0\.5"):
            clf.predict([[0.5, 1.0]])


def test_missing_values_are_the_model_s_to_handle():
    clf = OnnxClassifier(scaled(TensorProto.FLOAT))
    with pytest.raises(ValueError, match="'z' is NaN for some samples"):
        clf.predict([[np.nan, 1.0]])


@pytest.mark.parametrize("n", [1, 3, 4, 9])
def test_a_fixed_number_of_rows(n):
    given = rows(n, 2)
    clf = OnnxClassifier(scaled(TensorProto.FLOAT, (4, 2)))
    np.testing.assert_allclose(clf.decision_function(given), given[:, 1] - given[:, 0], atol=1e-6)


def several():
    """Two outputs of scores."""
    nodes = [helper.make_node("Relu", ["x"], ["one"]), helper.make_node("Neg", ["x"], ["two"])]
    return model(nodes, {"x": ["n", 2]}, {"one": ["n", 2], "two": ["n", 2]}).SerializeToString()


def test_of_several_outputs_one_is_chosen():
    given = np.array([[1.0, 2.0], [3.0, 0.5]], dtype=np.float32)
    np.testing.assert_array_equal(OnnxClassifier(several(), output="two").predict(given), [0, 1])
    np.testing.assert_array_equal(OnnxClassifier(several(), output="one").predict(given), [1, 0])
    with pytest.raises(ValueError, match=r"several outputs; .*'one': tensor\(float\).*'two'"):
        OnnxClassifier(several()).predict(given)
    with pytest.raises(ValueError, match=r"output='three' is not among .*'one': .*'two': "):
        OnnxClassifier(several(), output="three").predict(given)


def largest():
    """Labels alone, as positions."""
    nodes = [helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0)]
    made = model(nodes, {"x": ["n", 2]}, {"label": ["n"]})
    made.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    return made.SerializeToString()


def test_labels_alone():
    given = np.array([[1.0, 2.0], [3.0, 0.5]], dtype=np.float32)
    assert OnnxClassifier(largest()).predict(given).tolist() == [1, 0]
    named = OnnxClassifier(largest(), classes=["no", "yes"])
    assert named.predict(given).tolist() == ["yes", "no"]
    assert named.score(given, ["yes", "yes"]) == 0.5
    with pytest.raises(AttributeError, match="predict_proba"):
        named.predict_proba(given)


def clipped():
    low, high = (numpy_helper.from_array(np.float32(v), n) for v, n in ((0, "low"), (1, "high")))
    nodes = [helper.make_node("Clip", ["x", "low", "high"], ["y"])]
    return model(nodes, {"x": ["n", 1]}, {"y": ["n", 1]}, [low, high]).SerializeToString()


def test_one_number_of_unclear_kind_is_said():
    given = np.array([[0.2], [0.7]])
    with pytest.raises(ValueError, match=r"a logit or a probability; say which with output=\('y', 'log"):
        OnnxClassifier(clipped()).predict(given)
    as_probability = OnnxClassifier(clipped(), output=("y", "probability"))
    np.testing.assert_allclose(as_probability.predict_proba(given)[:, 1], given[:, 0], atol=1e-6)
    as_logit = OnnxClassifier(clipped(), output=("y", "logit"))
    np.testing.assert_allclose(as_logit.decision_function(given), given[:, 0], atol=1e-6)


def custom():
    made = model(
        [helper.make_node("Fancy", ["x"], ["y"], domain="acme")], {"x": ["n", 2]}, {"y": ["n", 2]}
    )
    made.opset_import.append(helper.make_opsetid("acme", 1))
    return made.SerializeToString()


def outside(location):
    weight = numpy_helper.from_array(np.eye(2, dtype=np.float32), "w")
    made = model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 2]}, {"y": ["n", 2]}, [weight]
    )
    onnx.external_data_helper.set_external_data(made.graph.initializer[0], location)
    made.graph.initializer[0].ClearField("raw_data")
    return made.SerializeToString()


def of_images():
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    return model(nodes, {"x": ["n", 2, 4, 4]}, {"y": ["n", 2, 4, 4]}).SerializeToString()


def transposed():
    nodes = [helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0])]
    return model(nodes, {"x": ["n", 2]}, {"y": [2, "n"]}).SerializeToString()


three = by_hand(body(3)).SerializeToString()


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (custom(), {}, "custom operators, acme.Fancy, which"),
        (outside("weights.bin"), {}, r"weights \['w'\] are in another file"),
        (of_images(), {}, r"'y' is tensor\(float\) \['n', 2, 4, 4\]; a classifier has scores"),
        (transposed(), {}, r"has shape \(2, 3\) for 3 samples"),
        (three, {"classes": ["a", "b"]}, "classes has 2 labels, but .* has 3 outputs"),
        (three, {"classes": ["a", "a", "b"]}, "two or more different labels"),
        (three, {"output": ("v2", "scores")}, r"or \(name, kind\) with a kind of"),
        (three, {"output": ("v2", "logit")}, r"has shape \(3, 3\), which is no logit"),
        (three, {"batch_size": 0}, "batch_size must be a positive integer"),
    ],
)
def test_files_that_do_not_fit(content, options, message, tmp_path):
    width = 2 if b"0.weight" not in content else 6
    given = rows(3, width) if b"Relu" not in content[:80] or width == 6 else np.zeros((3, 2, 4, 4))
    for source in (content, tmp_path / "model.onnx"):
        if not isinstance(source, bytes):
            source.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            OnnxClassifier(source, **options).predict(given)


def test_weights_outside_the_folder_are_not_read(tmp_path):
    (tmp_path / "secret.bin").write_bytes(np.eye(2, dtype=np.float32).tobytes())
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(outside("../secret.bin"))
    with pytest.raises(ValueError, match="in another file, which cannot be read"):
        OnnxClassifier(folder / "model.onnx").predict(rows(3, 2))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (rows(4, 5), r"X has shape \(4, 5\), but the input 'x' of the model takes \(n, 6\)"),
        (rows(4, 6)[:, :, None], r"takes \(n, 6\); pass samples of that shape"),
        (rows(4, 6)[:0], "0 samples"),
        (np.full((2, 6), "a"), "X must hold numbers for the input 'x'"),
        (np.full((2, 6), 1j), "complex"),
        (np.full((2, 6), 1e300), "1e\\+300.*, which the input 'x' of dtype float32 cannot hold"),
    ],
)
def test_input_that_does_not_fit(given, message):
    with pytest.raises(ValueError, match=message):
        OnnxClassifier(three).predict(given)


def test_exported_files_say_themselves(simple_path):
    for options in ({"classes": [0, 1, 2]}, {"output": "output"}):
        with pytest.raises(ValueError, match="written by skqfair and says itself which classes"):
            OnnxClassifier(simple_path, **options).fit()


def test_torch_is_not_needed(tmp_path):
    code = """
import sys
class Blocked:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("torch", "skorch"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
from skqfair.export import OnnxClassifier
clf = OnnxClassifier(sys.argv[1])
print(clf.predict([[0.0] * 6]), sorted(clf.read_weights()))
"""
    path = tmp_path / "model.onnx"
    path.write_bytes(three)
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("[")
    assert "'0.weight', '2.weight'" in run.stdout
