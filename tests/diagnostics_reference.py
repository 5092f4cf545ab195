"""The columns of the group report once more, by hand, with numpy, fairlearn and plain autograd."""

import numpy as np
import torch
from curvature_zoo import dense_hessian, single_gradients
from fairlearn.metrics import MetricFrame
from sklearn.metrics import accuracy_score


def probabilities(logits):
    """Softmax by its definition."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def mean_by_group(values, groups):
    """Means in the sorted order of the groups."""
    return np.array([values[groups == g].mean() for g in np.unique(groups)])


def forward_columns(logits, float_logits, y, groups):
    """What needs no gradient, by group; y are positions."""
    p, q = probabilities(logits), probabilities(float_logits)
    top = np.sort(p, axis=1)
    each = np.arange(len(y))
    frame = MetricFrame(
        metrics=accuracy_score, y_true=y, y_pred=logits.argmax(1), sensitive_features=groups
    )
    columns = {
        "loss": -np.log(p[each, y]),
        "logit_variance": ((logits - logits.mean(1, keepdims=True)) ** 2).mean(1),
        "margin": top[:, -1] - top[:, -2],
        "boundary_closeness": 1 - (p**2).sum(1),
        "confidence": top[:, -1],
        "flip_rate": (logits.argmax(1) != float_logits.argmax(1)).astype(float),
        "excess_loss": np.log(q[each, y]) - np.log(p[each, y]),
    }
    return {
        "count": np.unique(groups, return_counts=True)[1],
        "accuracy": frame.by_group.to_numpy(dtype=float),
        **{name: mean_by_group(values, groups) for name, values in columns.items()},
    }


def derivative_columns(module, X, y):
    """Gradients and curvature of the mean loss of some samples, float64."""
    module = module.double().requires_grad_(True).eval()
    X = torch.as_tensor(X).double()
    singles = single_gradients(module, X, y).numpy()
    mean = singles.mean(0)
    covariance = np.square(singles - mean).sum() / (len(X) - 1)
    H = dense_hessian(module, X, y)
    values = torch.linalg.eigvalsh(H).numpy()
    return {
        "gradient_norm": np.linalg.norm(mean),
        "gradient_norm_debiased": np.sqrt(max(0, mean @ mean - covariance / len(X))),
        "hessian_max_eigenvalue": values[-1],
        "hessian_min_eigenvalue": values[0],
        "hessian_trace": float(H.trace()),
    }


def expansion(before, after, X, y):
    """First and second order of the change of the loss, by parameter, from a dense Hessian."""
    before, after = before.double().eval(), after.double().eval()
    X = torch.as_tensor(X).double()
    names = [name for name, _ in before.named_parameters()]
    changes = [
        a.detach() - b.detach() for a, b in zip(after.parameters(), before.parameters(), strict=True)
    ]
    delta = torch.cat([change.reshape(-1) for change in changes]).numpy()
    gradient = single_gradients(before, X, y).numpy().mean(0)
    product = dense_hessian(before, X, y).numpy() @ delta
    ends = np.cumsum([change.numel() for change in changes])[:-1]
    first = [part.sum() for part in np.split(gradient * delta, ends)]
    second = [part.sum() for part in np.split(gradient * delta + delta * product / 2, ends)]
    return dict(zip(names, first, strict=True)), dict(zip(names, second, strict=True))
