"""Bytes of files: real 2-, 4-, 8- and 16-bit storage, as ``model_size_`` says."""

import numpy as np
import pytest
from exports import fitted, images, seeded

from skqfair.export import to_onnx
from skqfair.networks import ConvNet


def large():
    return ConvNet(3, 10, widths=(64, 128, 256, 512), blocks_per_stage=2)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """File size and ``model_size_`` by bits; 32 are those of the float file."""
    folder, found = tmp_path_factory.mktemp("sizes"), {}
    module, X = seeded(large), images(20, channels=3, size=8)

    def size(bits):
        if bits not in found:
            y = np.arange(20) % 10
            weight_bits = None if bits == 32 else bits
            classifier = fitted(module, X, y, weight_bits=weight_bits, calibration="minmax")
            path = to_onnx(classifier, folder / f"{bits}.onnx")
            found[bits] = path.stat().st_size, classifier.model_size_
            path.unlink()
        return found[bits]

    return size


@pytest.mark.parametrize(
    ("bits", "least"),
    [
        pytest.param(16, 1.95, marks=pytest.mark.slow),
        pytest.param(8, 3.9, marks=pytest.mark.slow),
        pytest.param(4, 7.6, marks=pytest.mark.slow),
        (2, 14),
    ],
)
def test_files_are_smaller(bits, least, written):
    on_disk, counted = written(bits)
    assert written(32)[0] / on_disk >= least
    assert abs(counted - on_disk) <= 0.03 * on_disk + 50_000


def test_float_file_holds_the_weights_once(written):
    weights = sum(p.numel() for p in seeded(large).parameters() if p.ndim > 1)
    assert 4 * weights <= written(32)[0] <= 4.08 * weights
