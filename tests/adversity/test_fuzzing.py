"""Any input of any public function: an answer that keeps a law, or an error that names the argument."""

import importlib

import estimator_targets
import metric_targets
import pytest
import quantization_targets
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rooms import ROOT
from untargeted import UNTARGETED

TARGETS = metric_targets.TARGETS | quantization_targets.TARGETS | estimator_targets.TARGETS
FEW, MANY, LONG = 2, 8, 10_000
"""Examples of a target in an ordinary run, few where a network is trained, and in a long one."""


def run(target, examples):
    """Draw examples in an order that is the same at each run, and shrink one that fails."""

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate, Phase.shrink],  # to explain takes minutes
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def test(data):
        target(data.draw)

    test()


@pytest.mark.parametrize("name", TARGETS)
def test_answers_or_refuses(name):
    run(TARGETS[name], FEW if name in estimator_targets.TARGETS else MANY)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_answers_or_refuses_at_length(name):
    run(TARGETS[name], LONG)


def public_names():
    """Every public name of the package, by the first place where it is."""
    found = {}
    rooms = sorted(f"skqfair.{path.parent.name}" for path in ROOT.glob("*/__init__.py"))
    for module in ["skqfair", *rooms, "skqfair.exceptions"]:
        for name in importlib.import_module(module).__all__:
            obj = getattr(importlib.import_module(module), name)
            found.setdefault(id(obj) if callable(obj) else f"{module}.{name}", f"{module}.{name}")
    return set(found.values())


def test_every_public_name_has_a_target_or_a_reason():
    names = public_names()
    assert not names - TARGETS.keys() - UNTARGETED.keys()
    assert not (TARGETS.keys() | UNTARGETED.keys()) - names
    assert not TARGETS.keys() & UNTARGETED.keys()
    assert all(UNTARGETED.values())
