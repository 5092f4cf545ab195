"""Text files, written whole or not at all."""

import os
import tempfile
from pathlib import Path

__all__ = ["write_text"]


def write_text(text, path):
    """Write text to a path and return the path; return the text if there is none."""
    if path is None:
        return text
    path = Path(path)
    try:
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise type(error)(error.errno, f"cannot write {str(path)!r}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(part, 0o666 & ~_umask())
        os.replace(part, path)
    except BaseException as error:
        os.unlink(part)
        if isinstance(error, OSError) and error.errno:
            raise type(error)(error.errno, f"cannot write {str(path)!r}: {error.strerror}") from error
        raise
    return path


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
