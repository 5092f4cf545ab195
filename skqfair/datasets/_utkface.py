"""A folder of UTKFace images, read in parallel."""

import numbers
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.utils import Bunch, check_random_state

from skqfair._optional import import_extra

__all__ = ["load_utkface"]

_NAME = re.compile(r"(\d{1,3})_([01])_([0-4])_\d+(\.jpg\.chip)?\.jpe?g", re.IGNORECASE)
_GENDERS = ("male", "female")
_ETHNICITIES = ("White", "Black", "Asian", "Indian", "Others")
_AGE_GROUPS = ("0-17", "18-34", "35-59", "60+")
_AGE_LIMITS = (18, 35, 60)
_CHUNK = 32  # files to a task: what is read waits in such parts to be put into the one array
_DESCR = """\
UTKFace
-------
Faces with age, gender and ethnicity, read from the files in a folder of yours. The labels are those
in the file names: estimated by an algorithm and checked by annotators, not stated by the people shown.

Source: Zhang, Z., Song, Y. & Qi, H. (2017). Age progression/regression by conditional adversarial
autoencoder. CVPR. https://susanqq.github.io/UTKFace/
Licence: non-commercial research only; copyright of the images is with their owners.
"""


def load_utkface(
    path: str | Path,
    *,
    target: str = "ethnicity",
    image_size: int = 48,
    n_jobs: int | None = None,
    max_samples: int | None = None,
    random_state: int | np.random.RandomState | None = None,
    verbose: int = 0,
) -> Bunch:
    """Load a folder of UTKFace images.

    Parameters
    ----------
    path : str or path
        Folder with files named ``[age]_[gender]_[race]_[date].jpg``, or ``....jpg.chip.jpg``, as in
        the original.
    target : {"ethnicity", "gender", "age_group"}, default="ethnicity"
        What is to be predicted.
    image_size : int, default=48
        Height and width to which the images are scaled.
    n_jobs : int, default=None
        Threads that read; None is 1, -1 as many as there are processors.
    max_samples : int, default=None
        Read a random draw of so many images only.
    random_state : int, RandomState or None, default=None
        Seed of the draw.
    verbose : int, default=0
        Progress, as in :class:`joblib.Parallel`.

    Returns
    -------
    Bunch
        With ``data`` (uint8, shape (n, 3, image_size, image_size)), ``target`` (strings),
        ``sensitive_features`` (frame of ethnicity, gender and age_group, categorical),
        ``filenames``, ``skipped`` (frame of filename and reason, for the files that cannot be used)
        and ``DESCR``.

    Raises
    ------
    ImportError
        If Pillow is not installed.
    ValueError
        If the folder is not there or has no image that can be read, or for bad parameters.

    Notes
    -----
    The images are put into one array as they are read, so that memory is little more than that array:
    164 MB for the 23,705 images of the original at 48 x 48.

    Source: Zhang, Z., Song, Y. & Qi, H. (2017). Age progression/regression by conditional
    adversarial autoencoder. CVPR. Licence: non-commercial research only; the images are not part of
    this package.

    Examples
    --------
    >>> from skqfair.datasets import load_utkface
    >>> faces = load_utkface("UTKFace", image_size=32, n_jobs=2)  # doctest: +SKIP
    >>> faces.data.shape, len(faces.skipped)  # doctest: +SKIP
    ((23705, 3, 32, 32), 3)
    """
    import_extra("PIL.Image", "images")
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be the path of a folder; got {type(path).__name__}.")
    folder = Path(path)
    if not folder.is_dir():
        raise ValueError(f"path must be a folder of UTKFace images; there is no folder {str(path)!r}.")
    if target not in ("ethnicity", "gender", "age_group"):
        raise ValueError(f"target must be 'ethnicity', 'gender' or 'age_group'; got {target!r}.")
    for name, value in (("image_size", image_size), ("max_samples", max_samples)):
        if not isinstance(value, numbers.Integral) and (value is not None or name == "image_size"):
            raise ValueError(f"{name} must be an integer; got {value!r}.")
    if image_size < 1:
        raise ValueError(f"image_size must be a positive number of pixels; got {image_size!r}.")
    if max_samples is not None and max_samples < 1:
        raise ValueError(f"max_samples must be at least 1, or None for all; got {max_samples!r}.")
    names = sorted(file.name for file in folder.iterdir() if file.is_file())
    parsed = {name: match for name in names if (match := _NAME.fullmatch(name))}
    skipped = [
        (name, "the name is not [age]_[gender]_[race]_[date].jpg")
        for name in names
        if name not in parsed
    ]
    chosen = list(parsed)
    if max_samples is not None and max_samples < len(chosen):
        rows = check_random_state(random_state).choice(len(chosen), max_samples, replace=False)
        chosen = [chosen[row] for row in np.sort(rows)]
    chunks = [chosen[start : start + _CHUNK] for start in range(0, len(chosen), _CHUNK)]
    # Pillow reads and scales without holding the interpreter, and processes would first import torch
    read = Parallel(n_jobs=n_jobs, verbose=verbose, return_as="generator", prefer="threads")(
        delayed(_read)(folder, chunk, image_size) for chunk in chunks
    )
    data = np.empty((len(chosen), 3, image_size, image_size), dtype=np.uint8)
    n, unreadable = 0, {}
    for images, failures in read:
        data[n : n + len(images)] = images
        n += len(images)
        unreadable.update(failures)
    skipped += sorted(unreadable.items())
    filenames = [name for name in chosen if name not in unreadable]
    if not filenames:
        raise ValueError(
            f"path {str(path)!r} has no image that can be read: of {len(names)} files "
            + (f"the first fails because {skipped[0][1]}." if skipped else "none is there.")
        )
    labels = _labels([parsed[name] for name in filenames])
    return Bunch(
        data=data[:n],
        target=labels[target].to_numpy(dtype=object),
        sensitive_features=labels,
        filenames=np.array(filenames, dtype=object),
        skipped=pd.DataFrame(skipped, columns=["filename", "reason"]),
        DESCR=_DESCR,
    )


def _labels(matches):
    """Return the frame of labels out of parsed names."""
    ages, genders, ethnicities = np.array([match.groups()[:3] for match in matches], dtype=int).T
    ages = np.searchsorted(_AGE_LIMITS, ages, side="right")
    return pd.DataFrame(
        {
            "ethnicity": pd.Categorical.from_codes(ethnicities, _ETHNICITIES),
            "gender": pd.Categorical.from_codes(genders, _GENDERS),
            "age_group": pd.Categorical.from_codes(ages, _AGE_GROUPS, ordered=True),
        }
    )


def _read(folder, names, size):
    """Return the images of these files, and why others cannot be read."""
    from PIL import Image

    images, failures = [], []
    for name in names:
        try:
            with Image.open(folder / name) as file:
                image = file.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
            images.append(np.moveaxis(np.asarray(image), -1, 0))
        except Exception as error:  # Pillow raises many kinds on damaged files
            failures.append((name, f"the image cannot be read: {error}"))
    return np.array(images, dtype=np.uint8).reshape(-1, 3, size, size), failures
