"""Text files, written whole or not at all."""

import os
from pathlib import Path

from skqfair._files import write_whole

__all__ = ["write_text"]


def write_text(text, path):
    """Write text to a path and return the path; return the text if there is none."""
    if path is None:
        return text
    path = Path(path)
    try:
        write_whole(Path(os.path.realpath(path)), text.encode("utf-8"))  # a link stays a link
    except OSError as error:
        if error.errno:
            raise type(error)(error.errno, f"cannot write {str(path)!r}: {error.strerror}") from error
        raise
    return path
