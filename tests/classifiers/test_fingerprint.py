import functools
import subprocess
import sys

import numpy as np
import pytest
import torch
from skorch.callbacks import EarlyStopping
from torch import nn

from skqfair.classifiers._fingerprint import fingerprint
from skqfair.networks import MLP

EQUAL = {
    "number": lambda: 3,
    "containers": lambda: {"a": [1, (2.5, None)], "b": {3, 1, 2}},
    "array": lambda: np.arange(6.0).reshape(2, 3),
    "objects": lambda: np.array(["a", 1], dtype=object),
    "tensor": lambda: torch.arange(6.0),
    "bfloat16": lambda: torch.ones(3, dtype=torch.bfloat16),
    "module": lambda: (
        nn.LSTM(2, 3).requires_grad_(False).apply(lambda m: [nn.init.ones_(p) for p in m.parameters()])
    ),
    "callback": lambda: EarlyStopping(patience=3),
    "partial": lambda: functools.partial(int, base=2),
    "class": lambda: MLP,
    "generator": lambda: torch.Generator().manual_seed(1),
    "random state": lambda: np.random.RandomState(1),
    "dtype": lambda: torch.float16,
}


@pytest.mark.parametrize("kind", EQUAL)
def test_equal_values_have_equal_hashes(kind):
    assert fingerprint(EQUAL[kind]()) == fingerprint(EQUAL[kind]())


def test_all_different():
    values = [make() for make in EQUAL.values()]
    values += [
        4,
        "3",
        3.0,
        True,
        [1],
        (1,),
        {"a": 1},
        np.arange(6.0),
        np.arange(6),
        torch.arange(6),
        None,
        b"3",
    ]
    values += [
        np.arange(6.0).reshape(3, 2),
        EarlyStopping(patience=4),
        nn.Linear,
        [[1], 2],
        [[1, 2]],
        {1, 2},
    ]
    assert len({fingerprint(v) for v in values}) == len(values)


def test_sharing_does_not_matter():
    """Workers get copies in which equal parts are no longer the same object."""
    part = [1.5, 2.5]
    assert fingerprint([part, part]) == fingerprint([[1.5, 2.5], [1.5, 2.5]])


def test_cycles_end():
    ring = [1]
    ring.append(ring)
    assert fingerprint(ring)


def test_equal_in_another_process():
    code = (
        "from skqfair.classifiers._fingerprint import fingerprint;"
        "from skqfair.networks import MLP, ConvNet;"
        "print(fingerprint(MLP, ConvNet, {'a': (1, 2)}))"
    )
    found = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
        for _ in range(2)
    }
    assert len(found) == 1
    assert found != {""}


def compiled(source, name="f"):
    namespace = {"__name__": "user_code", "nn": nn}
    exec(source, namespace)
    return namespace[name]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("def f(x): return x + 1", "def f(x): return x + 2"),
        ("def f(x, k=1): return x * k", "def f(x, k=2): return x * k"),
        ("def g(x): return x\ndef f(x): return g(x)", "def g(x): return -x\ndef f(x): return g(x)"),
        ("K = 1\ndef f(x): return x * K", "K = 2\ndef f(x): return x * K"),
        (
            "def m(k):\n  return lambda x: x * k\nf = m(1)",
            "def m(k):\n  return lambda x: x * k\nf = m(2)",
        ),
        ("class f:\n  width = 1", "class f:\n  width = 2"),
        (
            "class B:\n  def g(self): return 1\nclass f(B): pass",
            "class B:\n  def g(self): return 2\nclass f(B): pass",
        ),
        (
            "class f:\n  @property\n  def g(self): return 1",
            "class f:\n  @property\n  def g(self): return 2",
        ),
        ("f = lambda x: [y for y in x if y > 1]", "f = lambda x: [y for y in x if y > 2]"),
    ],
)
def test_changed_code_changes_the_hash(one, two):
    assert fingerprint(compiled(one)) == fingerprint(compiled(one))
    assert fingerprint(compiled(one)) != fingerprint(compiled(two))


@pytest.mark.parametrize(
    "source",
    [
        "N = {}\ndef f(x):\n  global N\n  N += 1\n  return x",
        "class f:\n  count = {}\n  def fit(self):\n    f.count += 1",
        "LOG = [{}]\ndef f(x):\n  LOG.append(x)\n  return x",
    ],
)
def test_counters_do_not(source):
    assert fingerprint(compiled(source.format(0))) == fingerprint(compiled(source.format(5)))


def test_what_cannot_be_read():
    with open(__file__) as file, pytest.raises(TypeError):
        fingerprint(file)
