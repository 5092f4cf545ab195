r"""Rounding with error feedback: what one column loses, the columns after it make good.

With inputs X of a layer, columns in the order of decreasing diagonal of
:math:`H = X^T X + \lambda\,\mathrm{mean}(\mathrm{diag}\,X^T X) I`, and :math:`H = R R^T` with an upper
triangular R, column j is rounded to

.. math:: \hat w_j = S\,T\Big(w_j + \sum_{i<j} (w_i - \hat w_i) R_{ij} / R_{jj}\Big).

These are the codes of GPTQ, which updates all columns left by the factor of the inverse of H (Chee et
al., theorem 6), without an inverse.

References
----------
Frantar, E. et al. (2023). GPTQ: accurate post-training quantization for generative pre-trained
transformers. ICLR.

Chee, J. et al. (2023). QuIP: 2-bit quantization of large language models with guarantees. NeurIPS.
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
    outputs, columns = weight.shape[1:]
    scale, limit = (t.to(torch.float64).expand(weight.shape) for t in (scale, torch.as_tensor(limit)))
    limit = limit[..., 0]
    order = products.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True, stable=True)
    across = order[:, :, None].expand(-1, -1, outputs)  # a column of the weight is a row from here on
    wanted, scale = (t.transpose(1, 2).gather(1, across) for t in (weight.double(), scale))
    feedback = _feedback(products, order, damping)
    moved, lost = torch.empty_like(wanted), torch.empty_like(wanted)
    for start in range(0, columns, _BLOCK):
        stop = min(start + _BLOCK, columns)
        block = moved[:, start:stop]
        block.copy_(wanted[:, start:stop] + feedback[:, start:stop, :start] @ lost[:, :start])
        for i in range(start, stop):
            block[:, i - start, None] += feedback[:, i, None, start:i] @ lost[:, start:i]
            codes = (moved[:, i] / scale[:, i]).round_().clamp_(-limit, limit)
            lost[:, i] = wanted[:, i] - codes * scale[:, i]
    return torch.empty_like(moved).scatter_(1, across, moved).transpose(1, 2)


def power_of_four(values):
    """Return for each positive value a power of 4 near it, else 1: dividing by it costs no bit."""
    _, exponent = torch.frexp(values)
    return torch.where(values > 0, torch.ldexp(torch.ones_like(values), exponent // 2 * 2), 1.0)


def _feedback(products, order, damping):
    """Return the share of the errors of earlier columns that each column takes."""
    index = order[:, :, None].expand_as(products)
    ordered = products.gather(1, index).gather(2, index.transpose(1, 2))
    diagonal = ordered.diagonal(dim1=1, dim2=2)
    ordered /= power_of_four(diagonal.mean(1))[:, None, None]  # squares of 1e-160 have no inverse
    mean = diagonal.mean(1, keepdim=True)
    diagonal += torch.where(mean > 0, damping * mean, 1.0)
    factor = torch.linalg.cholesky(ordered.flip(1, 2)).flip(1, 2)
    return (factor / factor.diagonal(dim1=1, dim2=2)[:, None, :]).transpose(1, 2).contiguous()
