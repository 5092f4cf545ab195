"""Any input of any public function: an answer that keeps a law, or an error that names the argument."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from metric_targets import TARGETS


def runner(target, examples):
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def run(data):
        target(data.draw)

    return run


@pytest.mark.parametrize("examples", [15, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", TARGETS)
def test_answers_or_refuses(name, examples):
    runner(TARGETS[name], examples)()
