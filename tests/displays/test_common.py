import matplotlib.pyplot as plt
import pytest

from skqfair.displays._common import bits_label, bits_title, make_axes, short_labels, sort_bits, tidy


def test_short_labels_stay_different():
    names = [f"encoder.{i}.a_long_way_to_the.weight" for i in range(10)]
    labels = short_labels(names, 12)
    assert len(set(labels)) == 10
    assert max(map(len, labels)) < len(names[0])
    assert short_labels([1, "1", True], 8) == ["1", "1", "True"]
    assert short_labels(["$1 to $2"], 8) == [r"\$1 to \$2"]


@pytest.mark.parametrize(
    ("names", "order"),
    [
        ([2, "float", 8], ["float", 8, 2]),
        ([2, None, "8"], [None, "8", 2]),
        (["float", "latent", 4], ["float", "latent", 4]),
        (["W4A8", "W8A8"], ["W4A8", "W8A8"]),
    ],
)
def test_widest_first(names, order):
    assert [names[i] for i in sort_bits(names)] == order


def test_names_of_bits():
    assert [bits_label(name) for name in (None, 32, "latent", 4)] == ["float", "float", "latent", "4"]
    assert [bits_title(name) for name in ("float", 4, "W4A8")] == ["float", "4 bits", "W4A8"]


@pytest.mark.parametrize(("n", "rows"), [(1, 1), (4, 1), (5, 2), (7, 2), (9, 3)])
def test_a_grid_of_at_most_four_columns(n, rows):
    axes = make_axes(None, n)
    assert axes.shape == (n,)
    assert axes[0].get_subplotspec().get_gridspec().nrows == rows


def test_crowded_ticks_are_slanted():
    _, (few, many) = plt.subplots(1, 2, figsize=(6, 3))
    tidy(few, ["float", 8, 4, 2])
    tidy(many, ["float", "latent", 8, 6, 4, 3, 2])
    assert {label.get_rotation() for label in few.get_xticklabels()} == {0}
    assert {label.get_rotation() for label in many.get_xticklabels()} == {45}
