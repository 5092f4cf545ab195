r"""Rounding with error feedback: what one column loses, the columns left make good.

With inputs X of a layer, :math:`H = X^T X + \lambda\,\mathrm{mean}(\mathrm{diag}\,X^T X) I` and the
upper Cholesky factor U of :math:`H^{-1}`, columns are rounded in the order of decreasing diagonal of H,

.. math:: e = (w_i - S\,T(w_i)) / U_{ii}, \qquad w_{j} \leftarrow w_{j} - e\,U_{ij} \quad (j > i).

References
----------
Frantar, E. et al. (2023). GPTQ: accurate post-training quantization for generative pre-trained
transformers. ICLR.
"""

import torch

__all__ = ["round_with_feedback"]

_DAMPING = 0.01
_BLOCK = 128  # columns whose errors reach the rest in one product


def round_with_feedback(
    weight: torch.Tensor,
    scale: torch.Tensor,
    limit: torch.Tensor,
    products: torch.Tensor,
    *,
    damping: float = _DAMPING,
) -> torch.Tensor:
    """Return weights moved so that rounding them to nearest loses least of the layer's outputs.

    Parameters
    ----------
    weight : tensor of shape (B, outputs, columns)
        Float weights of B blocks that have inputs of their own.
    scale, limit : tensor that broadcasts to (B, outputs, columns)
        Scales, and the largest code; this is the same for all columns of an output.
    products : tensor of float64, shape (B, columns, columns)
        :math:`X^T X` of each block.
    damping : float, default=0.01
        Added to the diagonal, as a share of its mean.

    Returns
    -------
    tensor of float64, shape (B, outputs, columns)
        ``clamp(round(result / scale), -limit, limit)`` are the codes.
    """
    blocks, outputs, columns = weight.shape
    scale, limit = (t.to(torch.float64).expand(weight.shape) for t in (scale, torch.as_tensor(limit)))
    limit = limit[..., 0]
    order = products.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True, stable=True)
    across = order[:, None, :].expand(-1, outputs, -1)
    left, scale = weight.double().gather(2, across), scale.gather(2, across)
    factor = _inverse_factor(products, order, damping)
    moved = torch.empty_like(left)
    for start in range(0, columns, _BLOCK):
        stop = min(start + _BLOCK, columns)
        errors = left.new_empty(blocks, outputs, stop - start)
        for i in range(start, stop):
            column = moved[..., i] = left[..., i]
            codes = (column / scale[..., i]).round_().clamp_(-limit, limit)
            errors[..., i - start] = (column - codes * scale[..., i]) / factor[:, i, i, None]
            row = factor[:, i, None, i + 1 : stop]
            left[..., i + 1 : stop] -= errors[..., i - start, None] * row
        left[..., stop:] -= errors @ factor[:, start:stop, stop:]
    return torch.empty_like(moved).scatter_(2, across, moved)


def power_of_four(values):
    """Return for each positive value a power of 4 near it, else 1: dividing by it costs no bit."""
    _, exponent = torch.frexp(values)
    return torch.where(values > 0, torch.ldexp(torch.ones_like(values), exponent // 2 * 2), 1.0)


def _inverse_factor(products, order, damping):
    """Return the upper Cholesky factor of the damped inverse, columns in this order."""
    index = order[:, :, None].expand_as(products)
    ordered = products.gather(1, index).gather(2, index.transpose(1, 2))
    diagonal = ordered.diagonal(dim1=1, dim2=2)
    ordered /= power_of_four(diagonal.mean(1))[:, None, None]  # squares of 1e-160 have no inverse
    mean = diagonal.mean(1, keepdim=True)
    diagonal += torch.where(mean > 0, damping * mean, 1.0)
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(ordered)), upper=True)
