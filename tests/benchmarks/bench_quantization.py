"""Post-training quantization of a network the size of ResNet18 (11.2 million weights)."""

import copy

import torch
from harness import Row, interleaved

from skqfair.networks import ConvNet
from skqfair.quantization import QuantizationScheme, convert, observe_activations, quantizable_weights

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


def tables():
    """Yield a title and rows."""
    torch.manual_seed(0)
    module = ConvNet(3, 10, widths=(64, 128, 256, 512), blocks_per_stage=2).eval()
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
