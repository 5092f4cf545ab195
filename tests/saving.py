"""What the tests of saving share."""

import numpy as np
import pandas as pd
import skops.io
import torch
from torch import nn


def path(cls):
    return f"{cls.__module__}.{cls.__name__}"


def saved(estimator, *user_classes):
    """What skops loads, given that it asks to trust these classes and nothing else."""
    data = skops.io.dumps(estimator)
    untrusted = skops.io.get_untrusted_types(data=data)
    assert set(untrusted) == {path(cls) for cls in user_classes}
    return skops.io.loads(data, trusted=untrusted)


def same(a, b):
    """Equal in every bit: attributes of estimators, nets and modules, frames, tensors, containers."""
    assert type(a).__name__ == type(b).__name__
    if isinstance(a, nn.Module):
        assert repr(a) == repr(b)
        same([m.training for m in a.modules()], [m.training for m in b.modules()])
        for parts in ("named_parameters", "named_buffers"):
            same(dict(getattr(a, parts)()), dict(getattr(b, parts)()))
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        assert a.requires_grad == b.requires_grad
        assert torch.equal(a, b)
    elif isinstance(a, torch.optim.Optimizer):
        same(a.state_dict(), b.state_dict())
    elif isinstance(a, pd.DataFrame):
        pd.testing.assert_frame_equal(a, b, check_exact=True)
        assert a.attrs == b.attrs
    elif isinstance(a, pd.Series):
        pd.testing.assert_series_equal(a, b, check_exact=True)
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        same(list(a.values()), [b[key] for key in a])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif hasattr(a, "__dict__") and not isinstance(a, type) and not callable(a):
        same(vars(a), vars(b))
    elif not callable(a):
        assert a == b or (a != a and b != b)
