import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # handmade


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")
