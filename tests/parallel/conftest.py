import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # workers that are spawned take it over


@pytest.fixture(scope="module")
def client():
    """A client of a cluster of two workers of one thread, processes that are restarted when killed."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        yield client
