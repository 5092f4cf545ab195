"""Trained networks with unequal groups, for the benchmarks."""

import numpy as np
import torch
from sklearn.datasets import make_classification
from torch import nn

from skqfair.datasets import load_utkface
from skqfair.networks import MLP, ConvNet, make_classifier

SHARES = {
    2: (0.8, 0.2),
    5: (0.5, 0.25, 0.15, 0.07, 0.03),
    10: (0.3, 0.2, 0.15, 0.1, *[0.05] * 4, 0.03, 0.02),
}


def samples(kind, classes, n, seed):
    """Samples of 100 features and their labels."""
    if kind in ("clusters", "wrong labels"):
        flip = 0.2 if kind == "wrong labels" else 0.01
        options = {"n_informative": 20, "n_clusters_per_class": 1, "flip_y": flip}
        return make_classification(n, 100, n_classes=classes, random_state=seed, **options)
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 100))
    if kind == "random labels":
        return X, rng.integers(0, classes, n)
    logits = X @ rng.normal(size=(100, classes)) + 5 * rng.normal(size=(n, classes))
    return X, logits.argmax(1)  # "noisy scores"


def trained(classes=10, *, kind="clusters", hidden=(256, 256), n=2000, n_groups=5, epochs=10, seed=0):
    """A trained MLP, its samples, and groups of unequal size."""
    X, y = samples(kind, classes, n, seed)
    X, y = torch.as_tensor(X, dtype=torch.float32), torch.as_tensor(y)
    torch.manual_seed(seed)
    module = MLP(100, classes, hidden_sizes=hidden).train()
    optimizer = torch.optim.Adam(module.parameters(), 1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(n).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(X[rows]), y[rows]).backward()
            optimizer.step()
    groups = np.random.default_rng(seed).choice(n_groups, n, p=SHARES[n_groups])
    return module.eval(), X, y, groups


def faces(folder, networks):
    """Yield seed, trained net, samples, labels, groups, training rows and rows held out, of UTKFace.

    ``networks`` is a file of networks of examples/faces, kept by ``torch.save`` as ``{seed: (state dict,
    training rows, rows held out)}``.
    """
    data = load_utkface(folder, image_size=48, n_jobs=-1)
    X = data.data.astype(np.float32) / 255
    classes, y = np.unique(data.target, return_inverse=True)
    groups = data.sensitive_features["ethnicity"].to_numpy(str)
    for seed, (state, train, test) in torch.load(networks, weights_only=False).items():
        net = make_classifier(ConvNet, module__widths=(16, 32, 64), classes=range(len(classes)))
        net.set_params(module__in_channels=3, module__n_classes=len(classes)).initialize()
        net.module_.load_state_dict(state)
        net.history.new_epoch()  # trained elsewhere
        yield seed, net, X, y, groups, train, test


def gradient_pass(module, X, y):
    """One backward for all weights."""
    weights = list(module.parameters())
    return torch.autograd.grad(nn.functional.cross_entropy(module(X), y), weights)
