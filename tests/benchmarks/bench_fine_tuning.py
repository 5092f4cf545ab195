"""A training step under fake quantization against the float step, and the search for bits."""

import copy
import time

import numpy as np
import torch
from harness import Row, interleaved
from sklearn.datasets import load_digits
from torch import nn

from skqfair.networks import MLP, ConvNet
from skqfair.quantization import (
    CHOICES,
    FakeQuantization,
    QuantizationScheme,
    allocate_bits,
    observe_activations,
    quantizable_weights,
    quantize,
)


def step_of(module, X, y, around=None):
    """Return a function that takes one Adam step."""
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)

    def step():
        optimizer.zero_grad()
        if around is None:
            nn.functional.cross_entropy(module(X), y).backward()
        else:
            with around():
                nn.functional.cross_entropy(module(X), y).backward()
        optimizer.step()

    return step


def quantized(module, X, y, *, activation_bits=None, learned=False):
    """A step with our fake quantization at 4 bits."""
    module = copy.deepcopy(module)
    statistics = None
    if activation_bits is not None:
        with observe_activations(module) as statistics:
            module(X)
    scheme = QuantizationScheme(4, activation_bits, calibration="minmax")
    fake = FakeQuantization(module, scheme, learned=learned, statistics=statistics)
    return step_of(module, X, y, lambda: fake.applied(training=True))


def native(module, X, y):
    """The peer: torch's fake-quantize op per channel, through functional_call."""
    module = copy.deepcopy(module)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    names = list(quantizable_weights(module))

    def step():
        optimizer.zero_grad()
        values = dict(module.named_parameters())
        for name in names:
            weight = values[name]
            scale = weight.detach().abs().flatten(1).amax(1) / 7
            zero = torch.zeros_like(scale, dtype=torch.int32)
            values[name] = torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -7, 7)
        nn.functional.cross_entropy(torch.func.functional_call(module, values, (X,)), y).backward()
        optimizer.step()

    return step


def compare(module, X, y, steps, rounds):
    """Return the times of all ways to take a step, ``steps`` at a time."""
    module.train()
    ways = {
        "float": step_of(copy.deepcopy(module), X, y),
        "weights": quantized(module, X, y),
        "activations": quantized(module, X, y, activation_bits=8),
        "learned": quantized(module, X, y, learned=True),
        "learned activations": quantized(module, X, y, activation_bits=8, learned=True),
        "native": native(module, X, y),
    }

    def repeated(step):
        return lambda: [step() for _ in range(steps)]

    return interleaved({name: repeated(step) for name, step in ways.items()}, rounds)


def rows(times, aims):
    """One row for each way, with what was asked for."""
    peer = f"torch's fake_quantize op, weights only: {times.ratio('native', 'float'):.2f}"
    what = {
        "weights": "weights at 4 bits",
        "activations": "weights at 4 bits, activations at 8",
        "learned": "weights at 4 bits, learned scales",
        "learned activations": "both, learned scales",
    }
    return [
        Row(f"{text} / float step", f"{times.ratio(way, 'float'):.2f}", f"<= {aims[way]}", peer)
        for way, text in what.items()
    ]


def tables():
    """Yield a title and rows."""
    torch.manual_seed(0)
    X, y = torch.randn(128, 100), torch.randint(2, (128,))
    aims = dict(
        zip(
            ("weights", "activations", "learned", "learned activations"),
            (1.4, 1.8, 2.0, 2.0),
            strict=True,
        )
    )
    for sizes in ((128, 64), (256, 256)):
        times = compare(MLP(100, 2, hidden_sizes=sizes), X, y, 40, 15)
        yield (f"Fine-tuning step, MLP {sizes[0]}-{sizes[1]}, batches of 128", rows(times, aims))
    module = ConvNet(3, 10, widths=(64, 128, 256, 512), blocks_per_stage=2)
    X, y = torch.randn(64, 3, 32, 32), torch.randint(10, (64,))
    aims = dict(zip(aims, (1.15, 1.25, 1.3, 1.3), strict=True))
    times = compare(module, X, y, 1, 7)
    yield ("Fine-tuning step, ResNet18-sized, batches of 64 at 32 x 32", rows(times, aims))
    yield ("Sensitivities, ConvNet on digits, 3 groups", list(sensitivities()))
    yield ("Allocation of bits, 200 layers x 5 widths x 10 groups", list(allocations()))


def sensitivities():
    """Measured loss increases of single layers, against their second-order prediction."""
    digits = load_digits()
    X = torch.as_tensor(digits.images[:, None] / 16, dtype=torch.float32)
    y, groups = torch.as_tensor(digits.target), torch.as_tensor(digits.target % 3)
    module = ConvNet(1, 10, widths=(8, 16))
    step = step_of(module.train(), X, y)
    for _ in range(60):
        step()
    module.eval()
    parameters = dict(module.named_parameters())
    found = {"measured": {}, "predicted": {}}

    def losses():
        each = nn.functional.cross_entropy(module(X), y, reduction="none")
        return torch.stack([each[groups == g].mean() for g in range(3)])

    def changes():
        for name, axis in quantizable_weights(module).items():
            weight = parameters[name].detach().clone()
            for bits in CHOICES:
                codes, scale = quantize(weight, bits, axis=axis)
                yield name, bits, weight, codes * scale - weight

    def measured():
        with torch.no_grad():
            before = losses()
            for name, bits, weight, change in changes():
                parameters[name].copy_(weight + change)
                found["measured"][name, bits] = (losses() - before).numpy()
                parameters[name].copy_(weight)

    def predicted():
        for name, bits, _, change in changes():
            terms = []
            for loss in losses():
                (gradient,) = torch.autograd.grad(loss, parameters[name], create_graph=True)
                along = (gradient * change).sum()
                (curved,) = torch.autograd.grad(along, parameters[name], retain_graph=True)
                terms.append((along + 0.5 * (curved * change).sum()).item())
            found["predicted"][name, bits] = np.array(terms)

    times = interleaved({"measured": measured, "predicted": predicted}, 2)
    yield Row("time of measuring / of predicting", f"{times.ratio('measured', 'predicted'):.2f}", "")
    for bits in CHOICES:
        pairs = [
            (found["measured"][key], found["predicted"][key])
            for key in found["measured"]
            if key[1] == bits
        ]
        error = sum(np.abs(a - b).sum() for a, b in pairs) / sum(np.abs(a).sum() for a, _ in pairs)
        yield Row(f"error of the prediction at {bits} bits, relative", f"{error:.2f}", "")


def allocations():
    """Time the solver on four random instances, at the usual scale and at 1e-7."""
    for seed in range(2):
        rng = np.random.default_rng(seed)
        omega = -np.sort(-rng.exponential(size=(200, 5, 10)), axis=1)
        omega *= 10.0 ** rng.uniform(-3, 0, (200, 1, 1))
        sizes = rng.integers(100, 1_000_000, 200)
        for scale in (1, 1e-7):
            start = time.perf_counter()
            _, gap = allocate_bits(omega * scale, sizes, budget=3, return_gap=True)
            seconds = time.perf_counter() - start
            text = f"instance {seed}, sensitivities of the order {scale:g}"
            yield Row(text, f"{seconds:.1f} s, proven within {100 * gap:.2f} %", "< 6 s, 1 %")
