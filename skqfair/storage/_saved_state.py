"""What is stored of an estimator: its attributes for pickle and copies, a table for skops."""

import copyreg

from torch import nn

from skqfair._version import __version__
from skqfair.storage._table import decode, encode, keep_hooks

__all__ = ["SavedState"]

_FORMAT = 2  # one more whenever a file of before can no longer be read
_STAMP = ("_skqfair_version", "_skqfair_format")


class SavedState:
    """Lets an estimator with networks inside be saved, with the version that saved it.

    pickle, joblib and copies ask ``__reduce__``, and get the attributes themselves. Formats without
    pickle, as skops, ask ``__getstate__``, and get plain values, arrays and the user's own classes.
    """

    _is_saved_by_attributes = True  # where it is inside another one

    def _saved_attributes(self):
        """Return the attributes that are saved: all, less what can be made of the others."""
        return vars(self)

    def __reduce__(self):
        return copyreg.__newobj__, (type(self),), _stamped(self._saved_attributes())

    def __getstate__(self):
        table, objects = encode(self)
        return _stamped({"table": table, "objects": objects})

    def __setstate__(self, state):
        """Take what either of the two returned.

        Raises
        ------
        ValueError
            If another version saved it in another format, or if it is damaged.
        """
        name = type(self).__name__
        if not isinstance(state, dict):
            raise ValueError(f"the saved {name} is damaged: a {type(state).__name__} is no state of it.")
        attributes = dict(state)
        version, found = (attributes.pop(key, None) for key in _STAMP)
        if found != _FORMAT:
            by, install = "an unknown version of skqfair", "the version that saved it"
            if version:
                by, install = f"skqfair {version}", f"skqfair=={version}"
            raise ValueError(
                f"the {name} was saved by {by} in format {found}; skqfair {__version__} reads "
                f"format {_FORMAT}. Load it with {install}, or fit and save it again."
            )
        if attributes.keys() == {"table", "objects"}:
            decode(attributes["table"], attributes["objects"], self)
            return
        vars(self).update(attributes)
        for value in attributes.values():
            for module in value.modules() if isinstance(value, nn.Module) else ():
                keep_hooks(module)


def _stamped(state):
    return {**state, **dict(zip(_STAMP, (__version__, _FORMAT), strict=True))}
