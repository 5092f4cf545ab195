"""Exported models on one thread, against the float module in torch and its float ONNX file."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from harness import Row, interleaved

from skqfair import QuantizedClassifier
from skqfair.export import OnnxClassifier, to_onnx
from skqfair.networks import MLP, ConvNet, make_classifier

ROUNDS = 9
INSTRUCTIONS = ("amx_int8", "avx512_vnni", "avx_vnni", "asimddp", "i8mm", "avx512f", "avx2")


def instructions():
    """The integer instructions of the processor that kernels can use."""
    try:
        text = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return "unknown instructions"
    return ", ".join(name for name in INSTRUCTIONS if name in text) or "none of note"


def trained_a_little(module, X):
    """The net, with BatchNorm statistics that are not those of an untrained one."""
    module.train()
    with torch.no_grad():
        for _ in range(3):
            module(torch.as_tensor(X))
    return make_classifier(module, max_epochs=0)


def exported(net, X, folder, *, example=True, **bits):
    """A quantized classifier, its file, and a function that runs it on samples."""
    y = np.arange(len(X)) % 10
    options = {"calibration": "minmax", "random_state": 0}
    classifier = QuantizedClassifier(net, **bits, **options).fit(X, y)
    name = "-".join(f"{key}{value}" for key, value in bits.items()) + f"-{example}.onnx"
    quantized_inputs = bits.get("activation_bits") is not None
    path = to_onnx(classifier, folder / name, X_example=X if quantized_inputs and example else None)
    session = OnnxClassifier(path, n_threads=1)._model.session
    return classifier, path, lambda batch: session.run(None, {"X": batch})


def race(net, X, batches, widths, folder, calls=1):
    """Times of torch, of the float file, and of each pair of bits, by batch size."""
    classifier, path, run = exported(net, X, folder, weight_bits=None)
    runs = {"float file": run}
    sizes = {"float file": (path.stat().st_size, classifier.model_size_)}
    for weight_bits, activation_bits, example in widths:
        bits = {"weight_bits": weight_bits, "activation_bits": activation_bits}
        model, path, run = exported(net, X, folder, example=example, **bits)
        name = f"W{weight_bits}" + (f"A{activation_bits}" if activation_bits else "")
        name += "" if example or not activation_bits else ", exact"
        runs[name] = run
        sizes[name] = (path.stat().st_size, model.model_size_)
    tables = {}
    for size in batches:
        batch = np.resize(X, (size, *X.shape[1:]))
        contenders = {name: several(calls, run, batch) for name, run in runs.items()}
        contenders["torch"] = several(calls, lambda batch: torch_run(classifier.module_, batch), batch)
        tables[size] = interleaved(contenders, ROUNDS)
    return tables, sizes


def several(calls, run, batch):
    """A function that runs a model several times: one call of a small one is too short to time."""

    def contender():
        for _ in range(calls):
            run(batch)

    return contender


@torch.no_grad()
def torch_run(module, batch):
    """The float module."""
    return module(torch.as_tensor(batch))


def time_rows(tables, aims, calls=1):
    """One line for each model and batch size."""
    for size, times in tables.items():
        for name in times:
            if name not in ("torch", "float file"):
                yield Row(
                    f"{name}, {size} samples a call: times faster than torch / than the float file",
                    f"{times.ratio('torch', name):.2f} / {times.ratio('float file', name):.2f}",
                    aims.get(name, ""),
                    f"torch {1000 * times.median('torch') / calls:.2f} ms, "
                    f"float file {1000 * times.median('float file') / calls:.2f} ms",
                )


def size_rows(sizes, aims):
    """One line for each file."""
    whole = sizes["float file"][0]
    for name, (on_disk, counted) in sizes.items():
        if name != "float file" and "A" not in name:
            yield Row(
                f"{name}: float file / file; model_size_ / file",
                f"{whole / on_disk:.2f}; {counted / on_disk:.4f}",
                aims.get(name, ""),
                f"{on_disk / 1e6:.2f} MB",
            )


def tables():
    """Yield a title and rows."""
    torch.manual_seed(0)
    images = np.random.default_rng(0).standard_normal((64, 3, 32, 32)).astype(np.float32)
    rows = np.random.default_rng(0).standard_normal((512, 100)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        resnet = ConvNet(3, 10, widths=(64, 128, 256, 512), blocks_per_stage=2)
        widths = [(8, 8, True), (4, 8, True), (2, 8, True), (8, 8, False), (8, 4, True), (8, 16, True)]
        weights_only = [(bits, None, True) for bits in (16, 8, 4, 2)]
        net = trained_a_little(resnet, images)
        times, sizes = race(net, images, (1, 16, 64), widths + weights_only, Path(folder))
        yield (
            "Size of exported files, ResNet18-sized (11.2 million weights)",
            list(size_rows(sizes, {"W8": ">= 3.9", "W4": ">= 7.6", "W2": ">= 14"})),
        )
        aims = {"W8A8": ">= 4.5 / 2.8", "W4A8": ">= 3.4", "W2A8": ">= 3.4"}
        yield (
            f"Exported ResNet18-sized, 3 x 32 x 32; the processor has {instructions()}",
            list(time_rows(times, aims)),
        )
    with tempfile.TemporaryDirectory() as folder:
        net = trained_a_little(MLP(100, 10, hidden_sizes=(256, 256)), rows)
        widths = [(8, 8, True), (4, 8, True), (4, None, True)]
        times, _ = race(net, rows, (1, 64, 512), widths, Path(folder), calls=30)
        yield (
            f"Exported MLP 100-256-256-10; the processor has {instructions()}",
            list(time_rows(times, {"W8A8": ">= - / 1.8"}, calls=30)),
        )
