"""AdaRound (Nagel et al., 2020) as a peer of our rounding, on the same moments of the same inputs."""

import torch

_STEPS, _WARM, _WEIGHT, _RATE = 1000, 0.2, 0.01, 0.01
_STRETCH = (-0.1, 1.1)


def adaround(weight, scale, limit, products, cross, *, damping=0.01):
    """Learn up or down for each weight; arguments and result as those of ``round_to_outputs``.

    The squared error of the outputs is a function of the moments alone, so that every step sees all
    samples. The regularisation and its annealing are those of the paper.
    """
    scale, limit = (t.double().expand(weight.shape) for t in (scale, torch.as_tensor(limit)))
    mean = products.diagonal(dim1=1, dim2=2).mean(1)[:, None, None].clamp_min(1e-12)
    ridge = damping * mean * torch.eye(products.shape[1]).double()
    hessian = products + ridge
    target = weight.double() @ (cross + ridge) @ torch.linalg.inv(hessian)
    below = torch.floor(weight.double() / scale)
    low, high = _STRETCH
    share = ((weight / scale - below).clamp(0.01, 0.99) - low) / (high - low)
    free = torch.log(share / (1 - share)).float().requires_grad_()
    parts = [t.float() for t in (target, scale, below, limit, hessian / mean)]
    step = torch.optim.Adam([free], lr=_RATE)
    with torch.enable_grad():
        for t in range(_STEPS):
            loss = _loss(free, t / _STEPS, *parts)
            step.zero_grad()
            loss.backward()
            step.step()
    return torch.clamp(below + (free.detach() > 0), -limit, limit) * scale


def _loss(free, progress, target, scale, below, limit, hessian):
    low, high = _STRETCH
    up = (torch.sigmoid(free) * (high - low) + low).clamp(0, 1)
    change = torch.clamp(below + up, -limit, limit) * scale - target
    error = ((change @ hessian) * change).sum() / scale.square().mean()
    if progress < _WARM:
        return error
    power = 20 - 18 * (progress - _WARM) / (1 - _WARM)
    return error + _WEIGHT * (1 - (2 * up - 1).abs().pow(power)).sum()
