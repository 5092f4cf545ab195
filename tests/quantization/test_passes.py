"""Passes that wait at layers, against passes that run through."""

import _thread
import threading
import time

import pytest
import torch
from torch import nn

from skqfair.quantization._layer_inputs import watched
from skqfair.quantization._passes import Passes, record


class Keeping(nn.Module):
    """Keeps what came of a batch until later in the same pass."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(4, 4) for _ in range(3))
        self.kept = None

    def forward(self, x):
        self.kept = self.first(x)
        x = self.second(x.relu())
        return self.third(x + self.kept)


class Ordered(nn.Module):
    """The order of two layers depends on the samples, and the last is called twice."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.last = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x):
        x = self.two(self.one(x)) if x[0, 0] > 0 else self.one(self.two(x))
        return self.last(self.last(x))


NAMES = {Keeping: ["first", "second", "third"], Ordered: ["one", "two", "last"]}


def batches(n=5):
    torch.manual_seed(0)
    return [torch.randn(6, 4) for _ in range(n)]


def inputs_by_hand(module, layer, X):
    """Return what a layer gets when the whole module is called."""
    seen = []
    hook = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    with torch.no_grad():
        module(X)
    hook.remove()
    return seen


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("waiting", [0, 2, 16])
def test_inputs_are_those_of_whole_passes(kind, waiting, monkeypatch):
    monkeypatch.setattr("skqfair.quantization._passes._WAITING", waiting)
    module, parts = kind().eval(), batches()
    find = watched([f"{name}.weight" for name in NAMES[kind]])
    samples = record(module, [(1.0, lambda m: [m(part) for part in parts])], find)
    before = threading.active_count()
    with Passes(module, samples, find) as passes:
        for name in NAMES[kind]:
            layer = getattr(module, name)
            for part, calls in zip(parts, passes.at(f"{name}.weight"), strict=True):
                expected = inputs_by_hand(module, layer, part)
                assert len(calls) == len(expected)
                for (_, _, args, _), values in zip(calls, expected, strict=True):
                    assert torch.equal(args[0], values)
            with torch.no_grad():
                layer.weight.mul_(0.5)  # the passes go on with what it has become
        assert threading.active_count() <= before + waiting
    assert threading.active_count() == before
    assert not any(part._forward_pre_hooks for part in module.modules())


def test_a_budget_of_memory(monkeypatch):
    module, parts = Keeping().eval(), batches()
    find = watched(["first.weight", "third.weight"])
    samples = record(module, [(1.0, lambda m: [m(part) for part in parts])], find)
    monkeypatch.setattr("skqfair.quantization._passes._MEMORY", 3 * 2 * 6 * 4 * 4)  # two passes
    before = threading.active_count()
    with Passes(module, samples, find) as passes:
        assert len(list(passes.at("first.weight"))) == 5
        assert threading.active_count() == before + 2


def test_errors_come_through_and_end_all_passes():
    class Failing(Keeping):
        def forward(self, x):
            if self.fails and x[0, 0] == parts[3][0, 0]:
                raise RuntimeError("no such batch")
            return super().forward(x)

    module, parts = Failing().eval(), batches()
    module.fails, find = False, watched(["second.weight"])
    samples = record(module, [(1.0, lambda m: [m(part) for part in parts])], find)
    module.fails, before = True, threading.active_count()
    with pytest.raises(RuntimeError, match="no such batch"), Passes(module, samples, find) as passes:
        list(passes.at("second.weight"))
    assert threading.active_count() == before


def test_an_interrupt_while_a_pass_runs():
    class Slow(Keeping):
        def forward(self, x):
            if self.interrupts:
                _thread.interrupt_main()
                time.sleep(0.1)
            return super().forward(x)

    module, parts = Slow().eval(), batches(2)
    module.interrupts, find = False, watched(["second.weight"])
    samples = record(module, [(1.0, lambda m: [m(part) for part in parts])], find)
    module.interrupts, before = True, threading.active_count()
    with pytest.raises(KeyboardInterrupt), Passes(module, samples, find) as passes:
        list(passes.at("second.weight"))
    assert threading.active_count() == before


def test_hooks_of_the_module_itself_run_once():
    module, calls = Keeping().eval(), []
    module.register_forward_pre_hook(lambda _, args: calls.append(1) or (args[0] + 1,))
    find = watched(["first.weight"])
    (part,) = batches(1)
    samples = record(module, [(1.0, lambda m: m(part))], find)
    with Passes(module, samples, find) as passes:
        ((((_, _, args, _),),)) = list(passes.at("first.weight"))
    assert torch.equal(args[0], part + 1)
    assert len(calls) == 2


def test_autocast_around_the_call_holds():
    module, (part,) = Keeping().eval(), batches(1)
    find = watched(["third.weight"])

    def run(m):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            m(part)

    samples = record(module, [(1.0, run)], find)
    with Passes(module, samples, find) as passes:
        (((_, _, args, _),),) = list(passes.at("third.weight"))
    assert args[0].dtype == torch.bfloat16


def test_modules_that_work_in_place_get_the_samples_as_they_were():
    module, (part,) = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 2)).eval(), batches(1)
    find = watched(["1.weight"])
    samples = record(module, [(1.0, lambda m: m(part.clone()))], find)
    for _ in range(2):
        with Passes(module, samples, find) as passes:
            (((_, _, args, _),),) = list(passes.at("1.weight"))
        assert torch.equal(args[0], part.relu())
        assert (samples[0].args[0] < 0).any()
