"""Packages that come with the extras, imported where they are used."""

import importlib

__all__ = ["import_extra"]


def import_extra(module, extra):
    """Import an optional module, or raise an error that names the extra to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"this needs {module.partition('.')[0]}, which is not installed; "
            f"install it with: pip install 'skqfair[{extra}]'"
        ) from error
