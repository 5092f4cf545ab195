"""Files that are complete or not there, whatever ends the process that writes them."""

import contextlib
import glob
import os
import secrets
import stat
import time
from pathlib import Path

__all__ = ["write_whole"]

_ABANDONED = 3600  # seconds


def write_whole(target: Path, content: bytes) -> None:
    """Write a file at one blow; one that is there keeps its permissions."""
    _remove_leftovers(target)
    part = target.parent / f".{target.name}.{secrets.token_hex(8)}.part"
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            part.chmod(stat.S_IMODE(target.stat().st_mode))
        os.replace(part, target)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def _remove_leftovers(target):
    """Remove what writers of this file that were killed have left, an hour ago or more."""
    for part in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > _ABANDONED:
                part.unlink()
