"""Random changes of images, for training batches."""

import math
from numbers import Real

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["ImageAugmentation", "augmented"]


class ImageAugmentation(nn.Module):
    r"""Flips, rotates, scales, shifts, brightens and cuts holes into images, each in its own way.

    Pass it as ``augment`` to :func:`make_classifier`; it then acts on training batches only. A pixel
    at :math:`u \in [-1, 1]^2` of the new image is the old one's at

    .. math:: A u + t, \qquad A = \frac{1}{s} \begin{pmatrix} \pm \cos\alpha & -\sin\alpha \\
              \pm \sin\alpha & \cos\alpha \end{pmatrix}

    in between of four pixels, and that of the border outside. Then :math:`x \leftarrow m + c (x - m) +
    b` with the image's mean m.

    Parameters
    ----------
    flip : float, default=0.5
        Probability of a horizontal flip.
    rotation : float, default=14
        Largest angle in degrees, either way.
    scale : float, default=0.15
        Sizes s are drawn from 1 - scale to 1 + scale.
    shift : float, default=0.12
        Largest shift, as a share of height and width.
    brightness : float, default=0.1
        Largest b, in units of the pixels.
    contrast : float, default=0.2
        Contrasts c are drawn from 1 - contrast to 1 + contrast.
    cutout : float, default=0.5
        Probability of a square that is filled with the mean of the image.
    cutout_size : float, default=0.2
        Side of the square, as a share of the width.

    Raises
    ------
    ValueError
        For a probability or share outside [0, 1] (1 excluded for ``scale``), a negative range, or,
        when called, a batch that is not of shape (n, channels, height, width).

    References
    ----------
    DeVries, T. & Taylor, G. W. (2017). Improved regularization of convolutional neural networks with
    cutout. arXiv:1708.04552.

    Examples
    --------
    >>> import torch
    >>> from skqfair.networks import ConvNet, ImageAugmentation, make_classifier
    >>> net = make_classifier(ConvNet, augment=ImageAugmentation(rotation=10), max_epochs=2)
    >>> ImageAugmentation()(torch.rand(8, 3, 24, 24)).shape
    torch.Size([8, 3, 24, 24])
    """

    def __init__(
        self,
        *,
        flip=0.5,
        rotation=14,
        scale=0.15,
        shift=0.12,
        brightness=0.1,
        contrast=0.2,
        cutout=0.5,
        cutout_size=0.2,
    ):
        super().__init__()
        limits = {"rotation": 180, "brightness": math.inf, "contrast": math.inf}
        for name, value in list(locals().items()):
            if name in ("self", "limits", "__class__"):
                continue
            most = limits.get(name, 1)
            fits = isinstance(value, Real) and not isinstance(value, bool) and 0 <= value <= most
            if not fits or (name == "scale" and value == 1):
                raise ValueError(f"{name} must be a number from 0 to {most}, got {value!r}.")
            setattr(self, name, value)

    def extra_repr(self):
        """Return the ranges, for the repr."""
        names = ("flip", "rotation", "scale", "shift", "brightness", "contrast", "cutout", "cutout_size")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)

    def forward(self, X):
        """Return a batch of changed images.

        Parameters
        ----------
        X : tensor of float, shape (n, channels, height, width)
            Images; not changed.

        Returns
        -------
        tensor
            Of the same shape and dtype.
        """
        if X.ndim != 4 or not X.is_floating_point():
            raise ValueError(
                "ImageAugmentation takes floats of shape (n, channels, height, width), got "
                f"{X.dtype} of {tuple(X.shape)}; add an axis for channels, X[:, None], or cast X."
            )
        X = self._moved(X)
        if self.contrast or self.brightness:
            mean, c, b = _means(X), self._between(X, self.contrast), self._between(X, self.brightness)
            X = mean + (1 + c)[:, None, None, None] * (X - mean) + b[:, None, None, None]
        if self.cutout and self.cutout_size:
            X = torch.where(self._holes(X), _means(X), X)
        return X

    def _moved(self, X):
        flipped = torch.rand(len(X), device=X.device) < self.flip
        if not (self.rotation or self.scale or self.shift):
            return torch.where(flipped[:, None, None, None], X.flip(-1), X)
        angle, size = self._between(X, math.radians(self.rotation)), 1 + self._between(X, self.scale)
        sign = torch.where(flipped, -1.0, 1.0).to(X)
        cos, sin = angle.cos() / size, angle.sin() / size
        shifts = 2 * self._between(X, self.shift, 2)  # [-1, 1] is two wide
        matrix = torch.stack([cos * sign, -sin, sin * sign, cos], 1).reshape(-1, 2, 2)
        grid = F.affine_grid(torch.cat([matrix, shifts[:, :, None]], 2), X.shape, align_corners=False)
        return F.grid_sample(X, grid, padding_mode="border", align_corners=False)

    def _holes(self, X):
        """Return where the holes are, shape (n, 1, height, width)."""
        side, inside = max(1, round(self.cutout_size * X.shape[-1])), []
        for length in X.shape[2:]:
            first = (torch.rand(len(X), 1, device=X.device) * max(1, length - side + 1)).floor()
            place = torch.arange(length, device=X.device)
            inside.append((place >= first) & (place < first + side))
        chosen = torch.rand(len(X), device=X.device) < self.cutout
        return (inside[0][:, :, None] & inside[1][:, None] & chosen[:, None, None])[:, None]

    def _between(self, X, most, *shape):
        """Draw from -most to most for each image."""
        return (torch.rand(len(X), *shape, device=X.device, dtype=X.dtype) * 2 - 1) * most


def _means(X):
    return X.mean((1, 2, 3), keepdim=True)


def augmented(augment, X):
    """Return a batch as ``augment`` changes it, checked."""
    if not isinstance(X, torch.Tensor):
        raise ValueError(f"augment needs X as one array, got batches of {type(X).__name__}.")
    if isinstance(augment, nn.Module):
        augment.to(X.device)
    with torch.no_grad():
        changed = augment(X.clone())
    if not isinstance(changed, torch.Tensor):
        raise ValueError(f"augment must return a tensor, got {type(changed).__name__}.")
    if changed.shape != X.shape or changed.dtype != X.dtype or changed.device != X.device:
        raise ValueError(
            f"augment must keep shape, dtype and device: it made {changed.dtype} of "
            f"{tuple(changed.shape)} on {changed.device} of {X.dtype} of {tuple(X.shape)} on {X.device}."
        )
    if changed.is_floating_point() and not torch.isfinite(changed).all():
        raise ValueError("augment made values that are not finite.")
    return changed
