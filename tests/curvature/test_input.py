"""Bad input, odd but good input, and what is left as it was."""

import functools

import numpy as np
import pytest
import torch
from curvature_zoo import KINDS, make
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from skqfair.curvature import (
    group_gradient_norms,
    group_hessian_eigenvalues,
    group_hessian_trace,
    per_sample_gradient_norms,
)
from skqfair.exceptions import DoubleBackwardError

GROUPED = (group_gradient_norms, group_hessian_eigenvalues, group_hessian_trace)


def samples_only(module, X, y, groups, **options):
    return per_sample_gradient_norms(module, X, y, **options)


EVERY = (*GROUPED, samples_only)


@pytest.fixture
def given():
    return make("mlp")


@pytest.mark.parametrize("of", EVERY)
def test_bad_modules(given, of):
    module, X, y, groups = given
    with pytest.raises(TypeError, match=r"module must be a torch\.nn\.Module, got dict"):
        of({}, X, y, groups)
    with pytest.raises(ValueError, match="no trainable weights"):
        of(nn.ReLU(), X, y, groups)
    with pytest.raises(ValueError, match="no trainable weights"):
        of(module.requires_grad_(False), X, y, groups)


@pytest.mark.parametrize("of", EVERY)
def test_modules_that_cannot_be_differentiated(of):
    class Detached(nn.Linear):
        def forward(self, x):
            return super().forward(x).detach()

    with pytest.raises(ValueError, match="does not depend on its trainable weights"):
        of(Detached(6, 3), torch.randn(4, 6), [0, 1, 2, 0], list("aabb"))


@pytest.mark.parametrize("of", EVERY)
def test_bad_samples(given, of):
    module, X, y, groups = given
    with pytest.raises(ValueError, match="y must have one entry for each sample: expected 24, got 23"):
        of(module, X, y[1:], groups)
    with pytest.raises(ValueError, match="X is empty"):
        of(module, X[:0], y[:0], groups[:0])
    for bad in (0, -1, 2.5, "many"):
        with pytest.raises(ValueError, match="batch_size must be a whole number"):
            of(module, X, y, groups, batch_size=bad)


@pytest.mark.parametrize("of", GROUPED)
def test_bad_groups(given, of):
    module, X, y, groups = given
    with pytest.raises(ValueError, match="expected 24, got 23"):
        of(module, X, y, groups[1:])
    missing = groups.astype(object)
    missing[3] = None
    with pytest.raises(ValueError, match="missing"):
        of(module, X, y, missing)


@pytest.mark.parametrize("of", EVERY)
def test_a_loss_that_is_not_finite_is_named_with_its_row(given, of):
    module, X, y, groups = given
    X[7, 2] = float("nan")
    for batch_size in (None, 2):
        with pytest.raises(ValueError, match=r"loss of 1 samples is not finite \(first: row 7\)"):
            of(module, X, y, groups, batch_size=batch_size)


def test_bad_options(given):
    bad = [
        ({"which": "LM"}, "which must be 'LA'"),
        ({"k": 0}, "k must be a whole number from 1"),
        ({"k": 1.5}, "k must be a whole number"),
        ({"k": None}, "k must be a whole number"),
        ({"k": 10**6}, "k must be a whole number from 1 to 152"),
        ({"v0": np.zeros((3, 2))}, "v0 must have shape"),
        ({"tol": 0}, "tol must be"),
        ({"tol": -1e-3}, "tol must be"),
        ({"max_iter": 0}, "max_iter must be"),
        ({"k": 5, "max_iter": 4}, "max_iter must be"),
    ]
    for options, message in bad:
        with pytest.raises(ValueError, match=message):
            group_hessian_eigenvalues(*given, **options)
    n_weights = sum(p.numel() for p in given[0].parameters())
    with pytest.raises(ValueError, match="v0 has values that are not finite"):
        group_hessian_eigenvalues(*given, v0=np.full((3, 1, n_weights), np.nan))
    with pytest.raises(ValueError, match="method must be"):
        group_hessian_trace(*given, method="hutchinson")


def test_too_few_products_warn_with_the_group(given):
    with pytest.warns(ConvergenceWarning, match=r"2 products were not enough .* of group") as found:
        values = group_hessian_eigenvalues(*given, max_iter=2)
    assert len(found) == 3
    assert values.shape == (3, 1)
    assert found[0].filename == __file__


def state_of(module):
    return {
        "modes": [m.training for m in module.modules()],
        "grad": [(p.requires_grad, p.grad, None if p.grad is None else p.grad.clone(), p.clone())
                 for p in module.parameters()],
        "buffers": [b.clone() for b in module.buffers()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
                  for m in module.modules()],
        "random": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].copy(),  # noqa: NPY002
        "flags": (
            torch.backends.mha.get_fastpath_enabled(),
            torch.backends.mkldnn.enabled,
            torch.backends.cudnn.enabled,
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.mem_efficient_sdp_enabled(),
            torch.is_grad_enabled(),
        ),
    }  # fmt: skip


def assert_same(one, two):
    for key in ("modes", "hooks", "flags"):
        assert one[key] == two[key], key
    for (flag, grad, copy, weight), (flag2, grad2, copy2, weight2) in zip(
        one["grad"], two["grad"], strict=True
    ):
        assert flag == flag2
        assert grad is grad2
        assert grad is None or torch.equal(copy, copy2)
        assert torch.equal(weight, weight2)
    assert all(torch.equal(a, b) for a, b in zip(one["buffers"], two["buffers"], strict=True))
    assert torch.equal(one["random"], two["random"])
    assert (one["numpy"] == two["numpy"]).all()


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("of", EVERY)
@pytest.mark.parametrize("name", ["mlp", "convnet", "attention", "lstm", "gru", "words"])
def test_everything_is_left_as_it_was(name, of, fails):
    module, X, y, groups = make(name)
    parts = list(module.modules())
    module.train()
    parts[-1].eval()  # mixed modes
    weights = list(module.parameters())
    weights[0].requires_grad_(False)
    for p in weights[1:3]:
        p.grad = torch.ones_like(p)
    if fails:
        weights[-1].data[0] = float("nan")
    before = state_of(module)
    with torch.no_grad():
        if fails:
            with pytest.raises(ValueError, match="not finite"):
                of(module, X, y, groups)
        else:
            of(module, X, y, groups)
    if fails:
        for state in (before, after := state_of(module)):
            for _, _, _, weight in state["grad"]:
                weight.nan_to_num_()
        assert_same(before, after)
    else:
        assert_same(before, state_of(module))


def test_several_eigenvalues_leave_the_generator_alone():
    """A space of products that ends early needs new starts."""
    module, X = nn.Linear(3, 2, bias=False), torch.eye(3)
    before = torch.get_rng_state()
    found = group_hessian_eigenvalues(module, X, [0, 1, 0], ["a"] * 3, k=5)
    assert torch.equal(before, torch.get_rng_state())
    assert found.shape == (1, 5)


@pytest.mark.parametrize("of", EVERY)
def test_dropout_is_off(given, of):
    module, X, y, groups = given
    expected = of(module.eval(), X, y, groups)
    np.testing.assert_array_equal(of(module.train(), X, y, groups), expected)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


class OnceModule(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x):
        return Once.apply(self.linear(x))


class Native(nn.Module):
    """torch's differentiable distances of p = 1 have a second derivative, those of cdist have none."""

    def __init__(self):
        super().__init__()
        self.centres = nn.Parameter(torch.randn(3, 6))

    def forward(self, x):
        return -torch.cdist(x, self.centres, p=3.0)


def differentiable_twice(module, X):
    weight = next(module.parameters())
    (gradient,) = torch.autograd.grad(module(X).square().sum(), weight, create_graph=True)
    try:
        torch.autograd.grad(gradient.sum(), weight)
    except (RuntimeError, NotImplementedError):
        return False
    return True


@pytest.mark.parametrize(
    ("module", "names"), [(OnceModule, "once_differentiable"), (Native, "cdist_backward")]
)
def test_operations_without_second_derivative_are_named(module, names):
    torch.manual_seed(0)
    module, X, y = module(), torch.randn(12, 6), torch.randint(3, (12,))
    groups = ["a", "b"] * 6
    if differentiable_twice(module, X):
        pytest.skip("this version of torch differentiates it twice")
    for of in (group_hessian_eigenvalues, group_hessian_trace):
        for batch_size in (None, 2):
            with pytest.raises(DoubleBackwardError, match=names):
                of(module, X, y, groups, batch_size=batch_size)
    assert (group_gradient_norms(module, X, y, groups) > 0).all()
    assert (per_sample_gradient_norms(module, X, y) > 0).all()


def by_hand(module, X, y, groups, loss):
    """Gradient norms, eigenvalues and traces, from the dense Hessian of a loss of each sample."""
    module.eval()
    names = [name for name, _ in module.named_parameters()]
    weights = tuple(p.detach() for p in module.parameters())
    n = sum(w.numel() for w in weights)
    norms, tops, traces, spreads = [], [], [], []
    for g in np.unique(groups):
        rows = torch.as_tensor(groups == g)

        def mean(*weights, rows=rows):
            outputs = torch.func.functional_call(
                module, dict(zip(names, weights, strict=True)), (X[rows],)
            )
            return torch.stack(
                [loss(o[None], t[None]) for o, t in zip(outputs, y[rows], strict=True)]
            ).mean()

        gradient = torch.func.grad(mean, tuple(range(len(weights))))(*weights)
        norms.append(float(sum(part.square().sum() for part in gradient)) ** 0.5)
        blocks = torch.autograd.functional.hessian(mean, weights)
        H = torch.cat([torch.cat([b.reshape(p.numel(), -1) for b in row], 1)
                       for p, row in zip(weights, blocks, strict=True)])  # fmt: skip
        assert H.shape == (n, n)
        tops.append(float(torch.linalg.eigvalsh(H)[-1]))
        traces.append(float(H.trace()))
        spreads.append(float(H.norm()) * np.sqrt(2 / 32))  # of as many random probes
    return norms, tops, traces, max(spreads)


CLASS_WEIGHTS = torch.tensor([1.0, 5.0, 0.2], dtype=torch.float64)


def weighted(outputs, target):
    return nn.functional.cross_entropy(outputs, target, reduction="none", weight=CLASS_WEIGHTS)[0]


def ignoring(outputs, target):
    return nn.functional.cross_entropy(outputs, target, reduction="sum", ignore_index=2)


smoothed = functools.partial(nn.functional.cross_entropy, label_smoothing=0.2)
CRITERIA = {
    "weighted": (nn.CrossEntropyLoss(weight=CLASS_WEIGHTS), weighted, None),
    "smoothed": (nn.CrossEntropyLoss(label_smoothing=0.2), smoothed, None),
    "ignored": (nn.CrossEntropyLoss(ignore_index=2), ignoring, None),
    "sum": (nn.CrossEntropyLoss(reduction="sum"), nn.functional.cross_entropy, None),
    "callable": (nn.functional.cross_entropy, nn.functional.cross_entropy, None),
    "mse": (nn.functional.mse_loss, nn.functional.mse_loss, "floats"),
    "mse module": (nn.MSELoss(), nn.functional.mse_loss, "floats"),
    "probabilities": (nn.CrossEntropyLoss(), nn.functional.cross_entropy, "probabilities"),
    "unnormalised": (nn.CrossEntropyLoss(), nn.functional.cross_entropy, "unnormalised"),
}


@pytest.mark.parametrize("name", CRITERIA)
def test_criteria(name):
    module, X, y, groups = make("mlp", torch.float64)
    criterion, loss, targets = CRITERIA[name]
    if targets is not None:
        y = torch.rand(len(X), 3, dtype=torch.float64)
        y = y / y.sum(1, keepdim=True) if targets == "probabilities" else y
    norms, tops, traces, spread = by_hand(module, X, y, groups, loss)
    options = {"criterion": criterion}
    np.testing.assert_allclose(group_gradient_norms(module, X, y, groups, **options), norms, rtol=1e-8)
    found = group_hessian_eigenvalues(module, X, y, groups, tol=1e-6, **options)[:, 0]
    np.testing.assert_allclose(found, tops, rtol=1e-6)
    found, method = group_hessian_trace(module, X, y, groups, return_method=True, **options)
    if targets != "floats" and name != "callable":
        assert method == "exact"
        np.testing.assert_allclose(found, traces, rtol=1e-8)
    else:
        assert method == "stochastic"
        np.testing.assert_allclose(found, traces, atol=3 * spread)


def test_predictions_for_every_position():
    """Logits of shape (n, C, positions), the loss of a sample the mean over its positions."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv1d(4, 3, 1)).double()
    X, y = torch.randn(12, 2, 5, dtype=torch.float64), torch.randint(3, (12, 5))
    groups = np.repeat(["a", "b"], 6)
    norms, tops, traces, spread = by_hand(module, X, y, groups, nn.functional.cross_entropy)
    np.testing.assert_allclose(group_gradient_norms(module, X, y, groups), norms, rtol=1e-8)
    found = group_hessian_eigenvalues(module, X, y, groups, tol=1e-6)[:, 0]
    np.testing.assert_allclose(found, tops, rtol=1e-6)
    np.testing.assert_allclose(group_hessian_trace(module, X, y, groups), traces, atol=3 * spread)


@pytest.mark.parametrize("of", EVERY)
def test_types_of_arrays(given, of):
    module, X, y, groups = given
    expected = of(module, X, y, groups)
    variants = [
        (X.numpy(), y.numpy(), groups),
        (X.numpy().astype(np.float64), y.numpy().astype(np.int32), list(groups)),
        (X.double(), y.to(torch.uint8), groups),
        (np.asfortranarray(X.numpy()), y.tolist(), groups),
        (X.numpy()[::-1][::-1], y.numpy(), groups),
    ]
    frozen = X.numpy().copy()
    frozen.flags.writeable = False
    for variant in [*variants, (frozen, y.numpy(), groups)]:
        np.testing.assert_allclose(of(module, *variant), expected, rtol=1e-5)


@pytest.mark.parametrize("of", EVERY)
def test_one_sample_and_one_group(given, of):
    module, X, y, groups = given
    assert np.isfinite(of(module, X[:1], y[:1], groups[:1])).all()
    assert np.isfinite(of(module, X, y, ["a"] * len(X))).all()


def test_the_order_of_the_groups_is_that_of_their_labels(given):
    module, X, y, groups = given
    swapped = np.array([{"a": 3, "b": 1, "c": 2}[g] for g in groups])
    for of in GROUPED:
        np.testing.assert_allclose(
            of(module, X, y, swapped)[[2, 0, 1]], of(module, X, y, groups), rtol=1e-4
        )


def test_answers_repeat(given):
    one, two = (group_hessian_eigenvalues(*given, k=2, return_eigenvectors=True) for _ in range(2))
    assert (one[0] == two[0]).all()
    assert (one[1] == two[1]).all()
    warm = group_hessian_eigenvalues(*given, k=2, v0=one[1])
    np.testing.assert_allclose(warm, one[0], rtol=1e-3)
    warm = group_hessian_eigenvalues(*given, k=2, v0=torch.as_tensor(one[1]))
    np.testing.assert_allclose(warm, one[0], rtol=1e-3)


def test_every_kind_is_deterministic():
    for name in KINDS:
        module, X, y, _ = make(name)
        np.testing.assert_array_equal(
            per_sample_gradient_norms(module, X, y), per_sample_gradient_norms(module, X, y)
        )
