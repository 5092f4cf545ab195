"""What an audit was made of: a hash of the data, versions, the call."""

import datetime
import hashlib
import importlib.metadata
import platform

import numpy as np
import pandas as pd

from skqfair._version import __version__

__all__ = ["describe_call", "fingerprint"]

_LIBRARIES = ("numpy", "pandas", "scikit-learn", "scipy")


def fingerprint(*arrays):
    """Return a SHA-256 of arrays, in hexadecimal; equal values in equal order give equal hashes."""
    digest = hashlib.sha256()
    for values in arrays:
        frame = pd.DataFrame(values)
        digest.update(str(frame.shape).encode())
        for _, column in frame.items():
            if pd.api.types.is_numeric_dtype(column.dtype):
                digest.update(np.ascontiguousarray(column.to_numpy(dtype=np.float64)).tobytes())
            else:  # each label once
                codes, labels = pd.factorize(column)
                digest.update("\0".join(map(str, labels)).encode())
                digest.update(codes.astype(np.int32).tobytes())
    return digest.hexdigest()


def describe_call(how, options, n_samples, data):
    """Return what a reader needs to repeat an audit."""
    said = ", ".join(f"{name}={_short(value)}" for name, value in options.items())
    return {
        "call": f"CompressionAudit.{how}({said})",
        "created": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "samples": int(n_samples),
        "data_sha256": data,
        "versions": {
            "skqfair": __version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _LIBRARIES},
        },
    }


def _short(value):
    text = getattr(value, "__name__", None) or repr(value)
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"<{type(value).__name__}>"
