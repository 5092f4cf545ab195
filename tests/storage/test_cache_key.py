import functools
import subprocess
import sys

import numpy as np
import pytest
import torch
from skorch.callbacks import EarlyStopping
from torch import nn

from skqfair.networks import MLP, ConvNet
from skqfair.storage._cache_key import fingerprint

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
        "from skqfair.storage._cache_key import fingerprint;"
        "from skqfair.networks import MLP, ConvNet;"
        "print(fingerprint(MLP, ConvNet, {'a': (1, 2)}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(fingerprint(MLP, ConvNet, {"a": (1, 2)}))


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


DECORATED = """
import functools
def d(k):
  def w(f):
    @functools.wraps(f)
    def g(x): return k * f(x)
    return g
  return w
"""
PAIRS = {  # what a network's code refers to, in two versions
    "alias of a builtin": ("import torch\nact = torch.relu", "import torch\nact = torch.tanh"),
    "list": ("act = [1.0]", "act = [9.0]"),
    "dictionary": ("act = {'g': 1.0}", "act = {'g': 2.0}"),
    "layer": ("act = nn.LeakyReLU(0.1)", "act = nn.LeakyReLU(0.9)"),
    "tensor": ("import torch\nact = torch.ones(2)", "import torch\nact = torch.zeros(2)"),
    "array": ("import numpy\nact = numpy.ones(2)", "import numpy\nact = numpy.zeros(2)"),
    "callable object": (
        "class A:\n  def __call__(self, x): return x\nact = A()",
        "class A:\n  def __call__(self, x): return -x\nact = A()",
    ),
    "configuration": (
        "from types import SimpleNamespace\nact = SimpleNamespace(k=1)",
        "from types import SimpleNamespace\nact = SimpleNamespace(k=2)",
    ),
    "cached helper": (
        "from functools import lru_cache\n@lru_cache\ndef act(x): return x",
        "from functools import lru_cache\n@lru_cache\ndef act(x): return -x",
    ),
    "decorated helper": (
        DECORATED + "@d(1)\ndef act(x): return x",
        DECORATED + "@d(2)\ndef act(x): return x",
    ),
}


@pytest.mark.parametrize("where", ["global", "class", "closure"])
@pytest.mark.parametrize("what", PAIRS)
def test_what_the_code_refers_to(what, where):
    template = {
        "global": "{}\nclass f:\n  def forward(self, x): return act, x",
        "class": "{}\nclass f:\n  act = act\n  def reset(self): self.act = 3",
        "closure": "{}\ndef outer(act):\n  return lambda x: (act, x)\nf = outer(act)",
    }[where]
    one, two = (template.format(version) for version in PAIRS[what])
    assert fingerprint(compiled(one)) == fingerprint(compiled(one))
    assert fingerprint(compiled(one)) != fingerprint(compiled(two))


@pytest.mark.parametrize("style", ["import", "inside"])
def test_helpers_in_modules(tmp_path, monkeypatch, style):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "pack_fp").mkdir()
    (tmp_path / "pack_fp" / "__init__.py").write_text("")
    source = "import pack_fp.sub\ndef f(x): return pack_fp.sub.act(x)"
    if style == "inside":
        source = "def f(x):\n  from pack_fp.sub import act\n  return act(x)"
    found = []
    for body in ("x", "-x"):
        (tmp_path / "pack_fp" / "sub.py").write_text(f"def act(x): return {body}\n# {body * 9}")
        for name in ("pack_fp", "pack_fp.sub"):
            sys.modules.pop(name, None)
        found.append(fingerprint(compiled(source)))
    assert found[0] != found[1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)),
        lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(3)),
        lambda: _hooked(nn.Linear(2, 2)),
    ],
    ids=["weight_norm", "lazy", "hook"],
)
def test_hooks_are_numbered_process_wide_but_hash_alike(make):
    hashes = set()
    for _ in range(2):
        torch.manual_seed(0)
        module = make()
        if not isinstance(module, nn.Linear):
            module(torch.ones(1, 4))
        hashes.add(fingerprint(module))
    assert len(hashes) == 1


def _hook(module, args, output):
    return output


def _hooked(module):
    module.register_forward_hook(_hook)
    return module
