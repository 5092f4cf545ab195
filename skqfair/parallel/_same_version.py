"""Whether all workers of a cluster have this package, in this version."""

from skqfair._version import __version__

__all__ = ["check_workers"]


def check_workers(client):
    """Raise unless all workers have this version; one without the package dies of its first task.

    Parameters
    ----------
    client : distributed.Client
        Of the cluster.

    Raises
    ------
    RuntimeError
        With the addresses of these workers and what they have.
    """
    found = client.run(_find_version, on_error="return")
    others = {
        address: version
        for address, version in found.items()
        if version != __version__ and isinstance(version, (str, ImportError))
    }
    if others:
        listed = ", ".join(
            f"{address} has {version}" if isinstance(version, str) else f"{address} has none ({version})"
            for address, version in others.items()
        )
        raise RuntimeError(
            f"this process has skqfair {__version__}, but the worker {listed}: install the same version "
            "on all machines, and start the workers anew."
        )


def _find_version():
    from skqfair._version import __version__

    return __version__


_find_version.__module__ = "__main__"  # travels as code: workers may not have this module
