"""One result on disk, whole or not there, in joblib's layout: its Memory clears and counts it."""

import contextlib
import hashlib
import os
import uuid

__all__ = ["Entry"]

_DIGEST = 20  # bytes


class Entry:
    """Bytes in a folder, under a digest.

    Parameters
    ----------
    folder : str
        Its own; it is made when needed.

    Attributes
    ----------
    fault : str or None
        What was wrong with the file that was read.
    unlocked : Exception or None
        Why other processes cannot be kept from computing it too.
    """

    def __init__(self, folder):
        self.folder, self.fault, self.unlocked = folder, None, None
        self.path = os.path.join(folder, "output.pkl")

    def read(self):
        """Return the bytes, or None if they are not there or not those that were written."""
        try:
            with open(self.path, "rb") as file:
                digest, data = file.read(_DIGEST), file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self.fault = f"cannot be read ({error})"
            return None
        if digest != _digest(data):
            self.fault = "is damaged"
            return None
        return data

    def write(self, data):
        """Replace the file at one blow; it outlives a loss of power."""
        os.makedirs(self.folder, exist_ok=True)
        path = f"{self.path}.{uuid.uuid4().hex}"
        if not self.unlocked:  # else another may be writing them
            for name in os.listdir(self.folder):
                if name.startswith("output.pkl."):  # of a process that was killed
                    os.unlink(os.path.join(self.folder, name))
        try:
            with open(path, "xb") as file:
                file.write(_digest(data))
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(path, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise
        with contextlib.suppress(OSError):  # not everywhere can a folder be synchronised
            folder = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _digest(data):
    return hashlib.blake2b(data, digest_size=_DIGEST).digest()
