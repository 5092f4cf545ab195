"""Names of a package that are imported when they are first used."""

import importlib
import sys

__all__ = ["lazily"]


def lazily(package, names, homes, submodules=()):
    """Return ``__getattr__`` and ``__dir__`` of a package, as PEP 562 has them.

    Parameters
    ----------
    package : str
        Its ``__name__``.
    names : list of str
        All its public names.
    homes : dict of str to str
        Those that are imported when they are used, with the module each is in.
    submodules : set of str, default=()
        Modules of the package that are imported when they are used.

    Returns
    -------
    tuple of two callables
        ``(name) -> object`` and ``() -> list of str``.
    """

    def get(name):
        if name in submodules:
            return importlib.import_module(f"{package}.{name}")
        if name not in homes:
            raise AttributeError(
                f"module {package!r} has no attribute {name!r}; it has {', '.join(names)}"
            )
        value = getattr(importlib.import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)  # found without this function from now on
        return value

    return get, lambda: sorted({*names, *submodules})
