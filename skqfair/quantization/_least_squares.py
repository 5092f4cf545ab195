r"""Codes of one layer whose outputs are nearest to those of the float network.

With the inputs :math:`X_f` of a layer in the float network and :math:`X_q` in the quantized one, whose
earlier layers are rounded already, the codes minimise

.. math:: \lVert W X_f - \hat W X_q \rVert^2 + \lambda \lVert W - \hat W \rVert^2
          = \operatorname{tr} (T - \hat W)(H + \lambda I)(T - \hat W)^T + \mathrm{const},
          \qquad T = W (X_f X_q^T + \lambda I)(H + \lambda I)^{-1}, \quad H = X_q X_q^T,

so that a layer also makes good what the layers before it lost. Error feedback rounds T; then each
column takes its best codes given all others, until none changes.

References
----------
Li, Y. et al. (2025). GPTAQ: efficient finetuning-free quantization for asymmetric calibration. ICML.

Behdin, K. et al. (2023). QuantEase: optimization-based quantization for language models.
arXiv:2309.01885.
"""

import torch

from skqfair.quantization._gptq import power_of_four, round_with_feedback

__all__ = ["round_to_outputs"]

_DAMPING = 0.01
_PASSES = 20
_BLOCK = 128  # columns whose changes reach the rest in one product


def round_to_outputs(
    weight: torch.Tensor,
    scale: torch.Tensor,
    limit: torch.Tensor,
    products: torch.Tensor,
    cross: torch.Tensor,
    *,
    damping: float = _DAMPING,
) -> torch.Tensor:
    r"""Return the rounded weights of one layer.

    Parameters
    ----------
    weight : tensor of shape (B, outputs, columns)
        Float weights of B blocks that have inputs of their own.
    scale, limit : tensor that broadcasts to (B, outputs, columns)
        Scales, and the largest code; this is the same for all columns of an output.
    products : tensor of float64, shape (B, columns, columns)
        :math:`X_q X_q^T` of each block.
    cross : tensor of float64, shape (B, columns, columns)
        :math:`X_f X_q^T`.
    damping : float, default=0.01
        :math:`\lambda` as a share of the mean of the diagonal of the products.

    Returns
    -------
    tensor of float64, shape (B, outputs, columns)
        Codes times scales.
    """
    scale, limit = (t.to(torch.float64).expand(weight.shape) for t in (scale, torch.as_tensor(limit)))
    limit = limit[..., :1]
    unit = power_of_four(products.diagonal(dim1=1, dim2=2).mean(1))[:, None, None]
    products, cross = products / unit, cross / unit
    mean = products.diagonal(dim1=1, dim2=2).mean(1)
    added = torch.where(mean > 0, damping * mean, 1.0)[:, None, None]
    ridge = added * torch.eye(products.shape[1], dtype=products.dtype, device=products.device)
    hessian = products + ridge
    solved = torch.cholesky_solve((cross + ridge).transpose(1, 2), torch.linalg.cholesky(hessian))
    target = weight.double() @ solved.transpose(1, 2)
    start = round_with_feedback(target, scale, limit, products, damping=damping)
    codes = torch.clamp((start / scale).round_(), -limit, limit)
    return _descend(target, codes, scale, limit, hessian) * scale


def _descend(target, codes, scale, limit, hessian):
    """Give each column in turn its best codes, given those of the others, until none changes."""
    pull = (target - codes * scale) @ hessian
    steps = scale * hessian.diagonal(dim1=1, dim2=2)[:, None, :]
    for _ in range(_PASSES):
        before = codes.clone()
        for start in range(0, codes.shape[-1], _BLOCK):
            block = slice(start, min(start + _BLOCK, codes.shape[-1]))
            near, inside = pull[..., block].clone(), hessian[:, block, block]
            for i, column in enumerate(range(block.start, block.stop)):
                wish = codes[..., column] + near[..., i] / steps[..., column]
                best = wish.round_().clamp_(-limit[..., 0], limit[..., 0])
                change = (best - codes[..., column]) * scale[..., column]
                near -= change[..., None] * inside[:, i, None, :]
                codes[..., column] = best
            pull -= (codes - before)[..., block] * scale[..., block] @ hessian[:, block, :]
        if torch.equal(codes, before):
            break
    return codes
