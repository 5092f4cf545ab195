"""A small residual convolutional network."""

from torch import nn

from skqfair.networks._mlp import check_dropout, check_sizes, check_widths

__all__ = ["ConvNet"]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm and a shortcut."""

    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.shortcut = nn.Identity()
        if stride != 1 or n_in != n_out:
            convolution = nn.Conv2d(n_in, n_out, 1, stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(n_out))

    def forward(self, x):
        hidden = self.relu1(self.norm1(self.conv1(x)))
        return self.relu2(self.norm2(self.conv2(hidden)) + self.shortcut(x))


class ConvNet(nn.Module):
    """Residual convolutional network with BatchNorm, for images of any size; returns logits.

    Parameters
    ----------
    in_channels : int
        Channels of the images, shape (n, in_channels, height, width).
    n_classes : int
        Number of logits.
    widths : tuple of int, default=(16, 32, 64)
        Channels of the stages; each after the first halves height and width.
    blocks_per_stage : int, default=1
        Residual blocks of two convolutions in each stage. ``widths=(64, 128, 256, 512)`` with 2
        blocks is ResNet18 with the stem for small images.
    dropout : float, default=0.0
        Dropout before the classification layer.

    Raises
    ------
    ValueError
        If a size is missing or not a positive integer.

    Warnings
    --------
    On processors with AVX2 but without AVX512, torch's oneDNN writes outside its memory in a strided
    1x1 convolution with fewer than 8 input channels in the memory format ``channels_last``
    (oneDNN#6035), and the process may crash. Here that is the shortcut of each stage but the first:
    there, let all ``widths`` but the last be at least 8, or leave the images in torch's default format.

    References
    ----------
    He, K. et al. (2016). Deep residual learning for image recognition. CVPR.

    Examples
    --------
    >>> import torch
    >>> from skqfair.networks import ConvNet
    >>> ConvNet(in_channels=3, n_classes=5)(torch.zeros(2, 3, 50, 41)).shape
    torch.Size([2, 5])
    """

    def __init__(
        self, in_channels=None, n_classes=None, *, widths=(16, 32, 64), blocks_per_stage=1, dropout=0.0
    ):
        super().__init__()
        check_sizes(self, in_channels=in_channels, n_classes=n_classes)
        check_sizes(self, blocks_per_stage=blocks_per_stage)
        check_dropout(self, dropout)
        check_widths(self, "widths", widths, least=1)
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        )
        blocks, width = [], widths[0]
        for stage, n_out in enumerate(widths):
            for block in range(blocks_per_stage):
                stride = 2 if stage and not block else 1
                blocks.append(ResidualBlock(width, n_out, stride))
                width = n_out
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, n_classes)

    def forward(self, x):
        """Return logits (n, n_classes) of images (n, in_channels, height, width)."""
        return self.output(self.dropout(self.pool(self.blocks(self.stem(x)))))
