"""skops files that were not written by skops: refused, or inert; nothing in them ever runs."""

import contextlib
import importlib
import io
import itertools
import json
import os
import pickle
import sys
import uuid
import zipfile

import numpy as np
import pytest
import skops.io
import torch
from nets import skorch_net, small
from skops.io.exceptions import UntrustedTypesFoundException

from skqfair import FairQATClassifier, QuantizedClassifier
from skqfair.networks import MLP, TensorNetClassifier
from skqfair.storage._allowed_names import library_name, library_object
from skqfair.storage._table import decode

OWN = "skqfair.QuantizedClassifier"
DAMAGED = "the saved QuantizedClassifier is damaged or was tampered with"


@pytest.fixture
def payload(tmp_path):
    """A pickle that makes a directory when it is loaded, and whether it was."""
    target = tmp_path / "executed"

    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(target),)

    data = pickle.dumps(Payload())
    pickle.loads(data)
    assert target.exists()  # it works
    target.rmdir()
    yield data
    assert not target.exists()


@pytest.fixture(scope="module")
def fitted(problem):
    X, y, _ = problem
    return QuantizedClassifier(small(), weight_bits=3, activation_bits=6, random_state=0).fit(X, y)


class File:
    """An opened skops file of an estimator, to be changed and written again."""

    def __init__(self, estimator):
        with zipfile.ZipFile(io.BytesIO(skops.io.dumps(estimator))) as file:
            self.members = {name: file.read(name) for name in file.namelist()}
        self.schema = json.loads(self.members.pop("schema.json"))
        self.content = self.schema["content"]["content"]
        self.table = json.loads(json.loads(self.content["table"]["content"]))
        self.objects = self.content["objects"]["content"]
        self.ids = itertools.count(10**15)

    def first(self, kind):
        return next(node for node in self.table if node[0] == kind)

    @property
    def module(self):
        return self.table[self.attribute("module_")[1][0]]

    def attribute(self, name):
        """The key and value of the estimator's attribute, to be changed in place."""
        attributes = self.table[self.table[0][2][0]]
        return next(pair for pair in attributes[2] if pair[0] == name)

    def stored(self, cls, module, loader, **content):
        node = {"__class__": cls, "__module__": module, "__loader__": loader, **content}
        return {**node, "__id__": next(self.ids)}

    def add_bytes(self, data):
        name = f"{uuid.uuid4()}.bin"
        self.members[name] = data
        self.objects.append(self.stored("bytes", "builtins", "BytesNode", file=name))
        return len(self.objects) - 1

    def add_class(self, cls, module, loader="TypeNode"):
        self.objects.append(self.stored(cls, module, loader))
        return len(self.objects) - 1

    def add_node(self, *node):
        self.table.append(list(node))
        return [len(self.table) - 1]

    def written(self):
        self.content["table"]["content"] = json.dumps(json.dumps(self.table))
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            for name, data in self.members.items():
                file.writestr(name, data)
            file.writestr("schema.json", json.dumps(self.schema))
        return buffer.getvalue()

    def load(self, trusted=(OWN,)):
        return skops.io.loads(self.written(), trusted=list(trusted))


def test_an_unchanged_file_is_read(problem, fitted):
    X, _, _ = problem
    np.testing.assert_array_equal(File(fitted).load().predict_proba(X), fitted.predict_proba(X))


# ----------------------------------------------------------- planted pickles


@pytest.mark.parametrize("path", ["skorch.classifier.NeuralNetClassifier", "TensorNetClassifier"])
def test_a_net_with_a_planted_pickle_is_refused(fitted, payload, path):
    """What skorch itself would unpickle: the estimator's own files have no such object."""
    if path == "TensorNetClassifier":
        path = f"{TensorNetClassifier.__module__}.{path}"
    file = File(fitted)
    module, _, cls = path.rpartition(".")
    state = {
        "__cuda_dependent_attributes__": file.objects[file.add_bytes(payload)],
        "device": file.stored("str", "builtins", "JsonNode", content='"cpu"'),
    }
    types = [file.stored("str", "builtins", "TypeNode") for _ in state]
    types = file.stored("list", "builtins", "ListNode", content=types)
    state = file.stored("dict", "builtins", "DictNode", content=state, key_types=types)
    node = file.stored(cls, module, "ObjectNode", content=state)
    file.objects.append(node)
    file.attribute("estimator_")[1] = file.add_node("object", len(file.objects) - 1)
    assert set(skops.io.get_untrusted_types(data=file.written())) == {OWN, path}
    with pytest.raises(UntrustedTypesFoundException, match=path.rpartition(".")[2]):
        file.load()


def test_bytes_in_the_place_of_a_net_stay_bytes(fitted, payload):
    file = File(fitted)
    place = file.add_node("object", file.add_bytes(payload))
    file.attribute("estimator_")[1] = place
    assert skops.io.get_untrusted_types(data=file.written()) == [OWN]
    assert file.load().estimator_ == payload


def test_a_pickle_inside_the_state_of_a_net_stays_bytes(fitted, payload):
    """The net's own __setstate__, which would unpickle it, is never called."""
    file = File(fitted)
    net = file.table[file.attribute("estimator_")[1][0]]
    place = file.add_node("object", file.add_bytes(payload))
    file.table[net[2][0]][2].append(["__cuda_dependent_attributes__", place])
    assert vars(file.load().estimator_)["__cuda_dependent_attributes__"] == payload


@pytest.mark.parametrize("loaded_as", ["tensor", "net", "dict"])
def test_an_array_that_holds_a_pickle_is_refused(fitted, payload, loaded_as):
    file = File(fitted)
    name = next(name for name in file.members if name.endswith(".npy"))
    buffer = io.BytesIO()
    np.save(buffer, np.array([payload, None], dtype=object), allow_pickle=True)
    start = len(buffer.getvalue()) - len(pickle.dumps(np.array([payload, None], dtype=object)))
    for planted in (payload, buffer.getvalue(), buffer.getvalue()[:start] + payload):
        file.members[name] = planted
        with pytest.raises(ValueError, match=r"(?i)pickle"):
            file.load()


# --------------------------------------------------------------- other names

FOREIGN = [
    *("os.system", "posix.system", "builtins.eval", "builtins.exec", "builtins.getattr"),
    *("builtins.open", "builtins.__import__", "subprocess.Popen", "pickle.loads", "joblib.load"),
    *("importlib.import_module", "torch.load", "torch.hub.load", "torch.serialization.load"),
    *("torch.jit.load", "torch.compile", "torch.os.system", "torch.nn.modules.os.system"),
    *("torch.nn.modules.module.os", "torch.nn.functional.os.system"),
    *("torch.nn.functional.importlib.import_module", "torch.nn.functional.handle_torch_function"),
    *("torch.nn.functional.boolean_dispatch", "torch.nn.functional.__builtins__"),
    *("torch.nn.functional.torch", "torch.from_file", "torch.save"),
    *("torch.nn.modules.module.Module.__reduce__", "torch.nn.modules.module.Module.__init__"),
    *("torch.nn.modules.linear.Linear.forward", "torch.nn.modules.module._addindent"),
    *("torch.nn.Linear", "torch.nn.modules.module.OrderedDict", "torch.nn.modules.linear.Module"),
    *("torch.nn.modules", "torch.optim.lr_scheduler.partial", "torch.optim.swa_utils.Module"),
    *("torch.nn.parallel.DataParallel", "torch.jit._script.RecursiveScriptModule"),
    *("torch.fx.graph_module.GraphModule", "torch.utils.data.dataset.Subset"),
    *("torch.nn.utils.parametrize.Module", "torch.Tensor", "skorch.callbacks.training.Checkpoint"),
    *("skorch.callbacks.training.LoadInitState", "skorch.net.NeuralNet", "skorch.utils.open_file_like"),
    *("skorch.utils._TorchLoadUnpickler", "skorch.hf.HfHubStorage", "skorch.setter.re"),
    *("skorch.utils.pickle", "skorch.utils.partial", "skqfair.networks._make_classifier.torch"),
    *("skqfair.networks.make_classifier", "skqfair.networks._mlp.MLP"),
    *(
        "skqfair.networks._make_classifier.NeuralNetClassifier",
        "skqfair.storage._cache.Cache",
        "joblib.Memory",
    ),
    *("sklearn.base.BaseEstimator", "sklearn.pipeline.Pipeline", "functools.partial", "", ".", "os"),
    *("x.y",),
]


@pytest.mark.parametrize("name", FOREIGN)
def test_other_names_are_not_found(name):
    with pytest.raises(ValueError, match="not among the classes and functions that may be loaded"):
        library_object(name)


def test_names_stand_for_what_they_say():
    for obj, name in {
        torch.nn.Linear: "torch.nn.modules.linear.Linear",
        torch.optim.Adam: "torch.optim.adam.Adam",
        torch.nn.functional.gelu: "torch.nn.functional.gelu",
        MLP: "skqfair.networks.MLP",
    }.items():
        assert library_name(obj) == name
        assert library_object(name) is obj
    for other in (
        os.system,
        os.mkdir,
        eval,
        torch.load,
        pickle.Unpickler,
        skorch_net,
        QuantizedClassifier.fit,
    ):
        assert library_name(other) is None


@pytest.mark.parametrize("name", ["os.mkdir", "torch.load", "torch.nn.modules.os.system"])
@pytest.mark.parametrize("place", ["global", "class", "partial"])
def test_a_file_that_names_them_is_refused(fitted, name, place):
    file = File(fitted)
    if place == "class":
        file.module[1] = name
    else:
        node = file.add_node("global", name)
        node = file.add_node("partial", node, ["executed"], []) if place == "partial" else node
        file.attribute("compression_ratio_")[1] = node
    with pytest.raises(ValueError, match=rf"{DAMAGED}: '{name}' is not among"):
        file.load()


@pytest.mark.parametrize(
    ("cls", "module", "loader"),
    [
        ("system", "os", "FunctionNode"),
        ("Popen", "subprocess", "TypeNode"),
        ("load", "torch", "FunctionNode"),
        ("NeuralNetClassifier", "skorch.classifier", "TypeNode"),
    ],
)
def test_a_foreign_class_among_the_users_is_listed_and_refused(fitted, cls, module, loader):
    file = File(fitted)
    file.attribute("compression_ratio_")[1] = file.add_node(
        "global", file.add_class(cls, module, loader)
    )
    assert set(skops.io.get_untrusted_types(data=file.written())) == {OWN, f"{module}.{cls}"}
    with pytest.raises(UntrustedTypesFoundException, match=cls):
        file.load()


def test_nothing_is_imported(fitted):
    name = "antigravity"
    sys.modules.pop(name, None)
    file = File(fitted)
    file.module[1] = f"{name}.Module"
    with pytest.raises(ValueError, match=DAMAGED):
        file.load()
    assert name not in sys.modules
    assert importlib.util.find_spec(name) is not None


# -------------------------------------------------------------- other damage


def change_class(file):
    file.schema["__class__"], file.schema["__module__"] = (
        "FairQATClassifier",
        FairQATClassifier.__module__,
    )


CHANGES = {
    "no node": lambda f: f.attribute("module_").__setitem__(1, [10**6]),
    "a negative node": lambda f: f.attribute("module_").__setitem__(1, [-1]),
    "a node of no kind": lambda f: f.table.__setitem__(3, ["eval", "1"]),
    "another method": lambda f: f.table.__setitem__(3, ["_dict__"]),
    "an empty node": lambda f: f.table.__setitem__(3, []),
    "a number for a node": lambda f: f.table.__setitem__(3, 3),
    "no nodes": lambda f: f.table.clear(),
    "a tuple in itself": lambda f: f.table.__setitem__(5, ["list", "tuple", [[5]]]),
    "no such object": lambda f: f.table.__setitem__(5, ["object", 10**6]),
    "a dtype that is a function": lambda f: f.first("tensor").__setitem__(2, "torch.load"),
    "a dtype of another size": lambda f: f.first("tensor").__setitem__(2, "torch.float64"),
    "a list as a module": lambda f: f.module.__setitem__(1, "builtins.list"),
    "a function as a class": lambda f: f.module.__setitem__(1, "torch.nn.functional.relu"),
    "a module without state": lambda f: f.module.__setitem__(2, 7),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_damaged_table_is_refused(fitted, change):
    file = File(fitted)
    CHANGES[change](file)
    with pytest.raises(ValueError, match=DAMAGED):
        file.load()


def test_another_class_is_refused(fitted):
    file = File(fitted)
    file.schema["__class__"] = "FairQATClassifier"
    file.schema["__module__"] = FairQATClassifier.__module__
    with pytest.raises(ValueError, match=r"saved FairQATClassifier is damaged.*another class"):
        file.load([FairQATClassifier])


@pytest.mark.parametrize("content", ["null", "[]", '"x"', "{}", "[[]]", '[["instance"]]', "{", "NaN"])
def test_a_table_of_anything_else_is_refused(content):
    with pytest.raises(ValueError, match=DAMAGED):
        decode(content, [], QuantizedClassifier())


@pytest.mark.parametrize("rest", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(fitted, rest):
    data = skops.io.dumps(fitted)
    with pytest.raises(zipfile.BadZipFile):
        skops.io.loads(data[: int(rest * len(data))], trusted=[OWN])


@pytest.mark.parametrize("seed", range(3))
def test_random_changes_of_the_table_are_refused_or_inert(fitted, seed):
    """An error of one kind, or an estimator; nothing else."""
    state, rng, n_read = fitted.__getstate__(), np.random.default_rng(seed), 0
    for _ in range(100):
        table = list(state["table"])
        table[rng.integers(len(table))] = chr(rng.integers(32, 127))
        with contextlib.suppress(ValueError):
            decode("".join(table), state["objects"], QuantizedClassifier())
            n_read += 1
    assert 0 < n_read < 100
