r"""Range of a tensor: min-max, percentile, or the clip with the least squared error."""

import torch

__all__ = ["CALIBRATIONS", "affine_range", "clip_range", "grid_of_range"]

CALIBRATIONS = ("minmax", "percentile", "mse")
PERCENTILE = 99.99
_SEARCHED = 2**16  # values looked at by the search of both ends
_CHUNK = 2**16  # elements per block of the mse search: stays in the L2 cache


def clip_range(magnitude, calibration, *, grid=None):
    r"""Return the largest magnitude to be represented, per row.

    Parameters
    ----------
    magnitude : tensor of shape (rows, n)
        :math:`|w|`, one row for each scale.
    calibration : {"minmax", "percentile", "mse"}
        "minmax" is the largest magnitude; "percentile" the 99.99th percentile (linear
        interpolation; the maximum where that is 0); "mse" the :math:`k / 100` of the maximum,
        :math:`k = 1..100`, with the least squared error.
    grid : tensor of shape (rows,) or int
        For "mse": the number of positive codes, :math:`q`.

    Returns
    -------
    tensor of shape (rows,)
        Clip magnitudes :math:`c`, 0 for a row of zeros; :math:`S = c / q`.
    """
    largest = magnitude.amax(1)
    if calibration == "minmax":
        return largest
    if calibration == "percentile":
        clip = _percentile(magnitude)
        return torch.where(clip > 0, clip, largest)
    grid = torch.as_tensor(grid, dtype=magnitude.dtype, device=magnitude.device)
    grid = grid.expand(len(magnitude))
    rows = max(1, _CHUNK // max(1, magnitude.shape[1]))
    parts = zip(magnitude.split(rows), largest.split(rows), grid.split(rows), strict=True)
    return torch.cat([_least_squares_clip(*part) for part in parts])


def _percentile(magnitude):
    """Return the 99.99th percentile of each row from its few largest values."""
    n = magnitude.shape[1]
    position = PERCENTILE / 100 * (n - 1)
    below = int(position)
    top = magnitude.topk(n - below, dim=1).values  # descending: the last is order statistic `below`
    low = top[:, -1].double()
    high = top[:, -2].double() if below + 1 < n else low
    return (low + (position - below) * (high - low)).to(magnitude.dtype)


def _least_squares_clip(magnitude, largest, grid):
    """Search the clip ratios from 1 down; stop once clipping alone costs more than the best."""
    best_error = torch.full_like(largest, torch.inf, dtype=torch.float64)
    best_clip = largest.clone()
    levels = grid[:, None]
    for k in range(100, 0, -1):
        clip = largest * k / 100
        scale = torch.where(clip > 0, clip / grid, 1.0)[:, None]
        codes = (magnitude / scale).round_().clamp_(max=levels)
        error = codes.mul_(scale).sub_(magnitude).square_().sum(1, dtype=torch.float64)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best_clip = torch.where(better, clip, best_clip)
        if k % 4 == 0:  # clipped mass only grows as the clip falls: a bound on all smaller clips
            clipped = (magnitude - clip[:, None]).clamp_(min=0).square_()
            if bool((clipped.sum(1, dtype=torch.float64) > best_error).all()):
                break
    return best_clip


def affine_range(values, calibration, levels):
    r"""Return the ends of the range to be represented with a zero point; 0 lies between them.

    Parameters
    ----------
    values : tensor of shape (n,)
        What is to be quantized.
    calibration : {"minmax", "percentile", "mse"}
        "minmax" are the extremes; "percentile" the 0.01th and the 99.99th percentile (linear
        interpolation); "mse" shares k / 100 of the extremes, k = 1..100, found for one end after the
        other, twice, with the least squared error. The search looks at 65,536 values.
    levels : int
        The largest code, :math:`2^b - 1`.

    Returns
    -------
    tuple of float
        Lowest and highest value.
    """
    ends = [min(0.0, float(values.min())), max(0.0, float(values.max()))]
    if calibration == "minmax":
        return tuple(ends)
    if calibration == "percentile":
        upper, lower = (float(_percentile(v[None])[0]) for v in (values, -values))
        return min(0.0, -lower), max(0.0, upper)
    if len(values) > _SEARCHED:
        generator = torch.Generator().manual_seed(0)
        index = torch.randint(len(values), (_SEARCHED,), generator=generator)
        values = values[index.to(values.device)]
    best, least = list(ends), torch.inf
    for end in (1, 0) * 2:
        for k in range(100, 0, -1):
            tried = list(best)
            tried[end] = ends[end] * k / 100
            scale, zero = grid_of_range(*tried, levels)
            codes = (values / scale).round_().clamp_(-zero, levels - zero)
            error = float(codes.mul_(scale).sub_(values).square_().sum(dtype=torch.float64))
            if error < least:
                best, least = tried, error
    return tuple(best)


def grid_of_range(low, high, levels):
    r"""Return scale and zero point: :math:`S = (h - l) / (2^b - 1)`, :math:`z = \mathrm{round}(-l / S)`.

    Parameters
    ----------
    low, high : float
        The range, with 0 between its ends.
    levels : int
        The largest code.

    Returns
    -------
    tuple of float and int
        1 and 0 for an empty range.
    """
    scale = (high - low) / levels
    return (scale, round(-low / scale)) if scale > 0 else (1.0, 0)
