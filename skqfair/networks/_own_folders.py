"""Checkpoints of one training in a folder of its own, since folds may train at the same time."""

import os
import shutil
import tempfile
from pathlib import Path

from skorch.callbacks import Checkpoint

__all__ = ["give_back_folders", "own_folders"]


def own_folders(callbacks):
    """Let each checkpoint write to and load from a new folder inside its own.

    Parameters
    ----------
    callbacks : list of (str, Callback)
        Initialised.

    Returns
    -------
    list of (Checkpoint, str, str)
        Each with the folder that it had and the one that it has.
    """
    found = []
    for checkpoint in (c for _, c in callbacks if isinstance(c, Checkpoint)):
        own = tempfile.mkdtemp(prefix=".fit-", dir=checkpoint.dirname or os.curdir)
        for name, target in vars(checkpoint).items():
            if name.startswith("f_") and isinstance(target, (str, Path)):
                Path(own, target).parent.mkdir(parents=True, exist_ok=True)
        found.append((checkpoint, checkpoint.dirname, own))
        checkpoint.dirname = own
    return found


def give_back_folders(found):
    """Move what was written to the folders that the checkpoints had, and give these back."""
    for checkpoint, dirname, own in found:
        checkpoint.dirname = dirname
        for folder, _, files in os.walk(own):
            target = Path(dirname or os.curdir, os.path.relpath(folder, own))
            for name in files:
                target.mkdir(parents=True, exist_ok=True)
                os.replace(Path(folder, name), target / name)
        shutil.rmtree(own, ignore_errors=True)
