"""Deprecated functions and classes warn, and are otherwise what they were."""

import inspect
import pickle
import warnings

import pytest
from sklearn.base import BaseEstimator, clone

from skqfair._deprecation import deprecated


@deprecated(since="0.9.1", instead="new(x)")
def old(x, *, factor=2):
    """Multiply."""
    return x * factor


@deprecated(since="1.2", instead="New")
class Old(BaseEstimator):
    def __init__(self, *, bits=8):
        self.bits = bits


class Heir(Old):
    pass


def test_a_function_warns_at_the_line_that_calls_it():
    with pytest.warns(
        FutureWarning, match=r"^old is deprecated since skqfair 0.9.1 and .* in 0.11; use new\(x\)$"
    ) as caught:
        assert old(3, factor=4) == 12
    assert caught[0].filename == __file__
    assert old.__doc__ == "Multiply."
    assert str(inspect.signature(old)) == "(x, *, factor=2)"


@pytest.mark.parametrize("kind", [Old, Heir])
def test_a_class_stays_an_estimator(kind):
    with pytest.warns(FutureWarning, match="^Old is deprecated .* 1.2 and .* in 1.4; use New$"):
        estimator = kind(bits=4)
    assert estimator.get_params() == {"bits": 4}
    with pytest.warns(FutureWarning, match="Old is deprecated"):
        assert clone(estimator).bits == 4


def test_what_exists_already_does_not_warn():
    """A fitted model that was saved before keeps quiet when it is loaded and used."""
    with pytest.warns(FutureWarning):
        data = pickle.dumps(Old(bits=3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pickle.loads(data).bits == 3
