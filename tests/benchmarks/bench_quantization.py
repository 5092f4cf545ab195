"""Post-training quantization of a network the size of ResNet18 (11.2 million weights).

``python tests/benchmarks/bench_quantization.py RULE IMAGES THREADS`` prints the seconds that rounding by
what layers get takes at 4 bits, and those of one pass of the images.
"""

import copy
import sys
import time

import torch
from harness import Row, interleaved

from skqfair.networks import ConvNet
from skqfair.quantization import (
    QuantizationScheme,
    compensate_rounding,
    convert,
    float_moments,
    observe_activations,
    quantizable_weights,
)

WIDTHS = (2, 3, 4, 6, 8)


def native(module):
    """The peer: torch's own fake-quantize op per channel, min-max, on a copy."""
    quantized = copy.deepcopy(module)
    parameters = dict(quantized.named_parameters())
    with torch.no_grad():
        for name in quantizable_weights(quantized):
            weight = parameters[name]
            scale = weight.abs().flatten(1).amax(1) / 7
            zero = torch.zeros_like(scale, dtype=torch.int32)
            weight.copy_(torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -7, 7))


def calibrated(module, data, widths):
    """One calibration pass, then weights and activations at each width."""
    with observe_activations(module) as statistics:
        for batch in data.split(64):
            module(batch)
    for bits in widths:
        convert(module, QuantizationScheme(bits, 8, calibration="minmax"), statistics)


def resnet18():
    """A network of its layers, not trained."""
    torch.manual_seed(0)
    return ConvNet(3, 10, widths=(64, 128, 256, 512), blocks_per_stage=2).eval()


def tables():
    """Yield a title and rows."""
    module = resnet18()
    data = torch.randn(256, 3, 32, 32)
    weights = interleaved(
        {
            "minmax": lambda: convert(module, QuantizationScheme(4, calibration="minmax")),
            "mse": lambda: convert(module, QuantizationScheme(4, calibration="mse")),
            "native": lambda: native(module),
        },
        7,
    )
    passes = interleaved(
        {
            "one": lambda: calibrated(module, data, (4,)),
            "five": lambda: calibrated(module, data, WIDTHS),
        },
        3,
    )
    peer = f"torch's fake_quantize op {1000 * weights.median('native'):.0f} ms"
    yield (
        "Post-training quantization, ResNet18-sized (11.2 million weights), per channel",
        [
            Row("4 bits from min-max", f"{1000 * weights.median('minmax'):.0f} ms", "<= 500 ms", peer),
            Row("the same / torch's fake_quantize op", f"{weights.ratio('minmax', 'native'):.2f}", ""),
            Row("mse / min-max", f"{weights.ratio('mse', 'minmax'):.1f}", ""),
            Row(
                "five widths / one, with the calibration pass (256 images, 8-bit activations)",
                f"{passes.ratio('five', 'one'):.2f}",
                "<= 1.5",
            ),
        ],
    )


@torch.no_grad()
def main():
    """Print seconds, of the clock and of the processor."""
    rounding, images, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    module = resnet18()
    data = torch.randn(images, 3, 32, 32)

    def run(network):
        return [network(batch) for batch in data.split(128)]

    def rounded(bits=4, **inputs):
        quantized = convert(module, QuantizationScheme(bits))
        compensate_rounding(quantized, module, rounding=rounding, **inputs)

    def five_widths():
        moments = float_moments(module, run)
        for bits in WIDTHS:
            rounded(bits, moments=moments)

    for name, call in {
        "one pass": lambda: run(module),
        rounding: lambda: rounded(run=run),
        f"{rounding} at five widths by float inputs": five_widths,
    }.items():
        clock, processor = time.perf_counter(), time.process_time()
        call()
        clock, processor = time.perf_counter() - clock, time.process_time() - processor
        print(f"{name}, {images} images, {threads} threads: {clock:.1f} s, {processor:.1f} s of CPU")


if __name__ == "__main__":
    main()
