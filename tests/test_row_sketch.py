import numpy as np
import pytest

from skqfair._row_sketch import share_known, sketch


@pytest.mark.parametrize("n", [40, 20_000])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_of_known_rows(n, share):
    rng = np.random.default_rng(0)
    X, new = rng.normal(size=(2, n, 3)).astype(np.float32)
    taken = rng.permutation(n)
    known = int(share * n)
    rows = np.concatenate([X[taken[:known]], new[known:]])
    found = share_known(rows, sketch(X))
    assert found == pytest.approx(share, abs=0 if n < 512 or share in (0, 1) else 0.08)


def test_rows_are_images_integers_or_not_contiguous():
    X = np.random.default_rng(0).integers(0, 9, (30, 2, 4, 4))
    assert len(sketch(X)) == 30
    assert share_known(X[::-2], sketch(X)) == 1
    assert share_known(np.asfortranarray(X), sketch(X)) == 1
