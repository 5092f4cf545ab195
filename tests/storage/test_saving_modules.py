"""skops files of networks of every kind."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from module_zoo import ZOO, build
from nets import skorch_net, small
from saving import path, same, saved
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from torch import nn
from torch.nn import functional as F

from skqfair import FairQATClassifier, QuantizedClassifier
from skqfair.networks import MLP, ConvNet, make_classifier

LOW = {"weight_bits": 3, "activation_bits": 6, "random_state": 0}


@pytest.mark.parametrize("name", [name for name in ZOO if not name.endswith("_norm")])
def test_every_kind_of_module(name):
    module, data = build(name)
    X, y = data.numpy(), np.arange(6) % 3
    clf = QuantizedClassifier(make_classifier(module, max_epochs=2), **LOW).fit(X, y)
    data = skops.io.dumps(clf)
    untrusted = skops.io.get_untrusted_types(data=data)
    user = {path(type(m)) for m in clf.module_.modules() if type(m).__module__ == "module_zoo"}
    assert set(untrusted) == {path(QuantizedClassifier), *user}
    loaded = skops.io.loads(data, trusted=untrusted)
    same(loaded.module_, clf.module_)
    same(loaded.estimator_.module_.state_dict(), clf.estimator_.module_.state_dict())
    np.testing.assert_array_equal(loaded.decision_function(X), clf.decision_function(X))
    np.testing.assert_array_equal(
        loaded.estimator_.predict_proba(X), clf.estimator_.predict_proba(X), strict=True
    )


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("norm", "what"),
    [
        (nn.utils.weight_norm, "WeightNorm"),
        (nn.utils.spectral_norm, "SpectralNorm"),
        (nn.utils.parametrizations.weight_norm, "a parametrization .*; remove it with remove_param"),
        (nn.utils.parametrizations.spectral_norm, "a parametrization .*; remove it with remove_param"),
    ],
)
def test_reparametrized_modules_are_refused(norm, what):
    clf = QuantizedClassifier(make_classifier(nn.Sequential(norm(nn.Linear(6, 3)))))
    with pytest.raises(TypeError, match=f"estimator > module > _modules > 0.*: .*{what}"):
        skops.io.dumps(clf)


def test_the_wrapper_of_compile_is_left_out(problem):
    X, y, _ = problem
    clf = QuantizedClassifier(small(), random_state=0).fit(X, y)
    clf.estimator_.module_ = torch.compile(clf.estimator_.module_, backend="eager")
    loaded = saved(clf, QuantizedClassifier)
    assert type(loaded.estimator_.module_) is MLP
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))


def test_images_in_the_layout_of_their_channels():
    X = np.random.default_rng(0).normal(size=(20, 3, 8, 8)).astype(np.float32)
    y = np.arange(20) % 2
    module = ConvNet(3, 2, widths=(8, 16)).to(memory_format=torch.channels_last)
    clf = QuantizedClassifier(make_classifier(module, max_epochs=1), random_state=0).fit(X, y)
    loaded = saved(clf, QuantizedClassifier)
    for found, expected in zip(
        loaded.estimator_.module_.parameters(), clf.estimator_.module_.parameters(), strict=True
    ):
        assert found.stride() == expected.stride()
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))


def twice(x):
    return 2 * x


class Everything(nn.Module):
    """Activations as functions, tied and half-precision tensors, a buffer out of the state."""

    def __init__(self, n_features, n_classes):
        super().__init__()
        self.first, self.last = nn.Linear(n_features, n_features), nn.Linear(n_features, n_classes)
        self.alias, self.last.register = self.first, nn.ParameterList([self.first.weight])
        self.activations = [F.gelu, torch.tanh, F.relu, twice, partial(F.leaky_relu, negative_slope=0.1)]
        self.register_buffer("shift", torch.ones(1, dtype=torch.bfloat16), persistent=False)
        self.register_buffer("nothing", None)
        self.half, self.flags = torch.ones(2, dtype=torch.half), torch.tensor([True, False])
        self.size = torch.Size([2, 3])
        self.by_number = {1: "one", (2, 3): {4, 5}, None: frozenset({6}), 2.5: float("inf")}
        self.draws, self.dtype, self.device = np.random.RandomState(0), torch.int8, torch.device("cpu")
        self.frame = pd.DataFrame(
            {"a": [1, 2], "b": ["x", None], "c": pd.Categorical(["u", "v"], ["v", "u"], ordered=True)},
            index=pd.MultiIndex.from_tuples([("s", 1), ("t", 2)], names=["letter", None]),
        )
        self.frame["d"] = pd.array([1, None], dtype="Int64")
        self.frame.attrs["note"] = {"of": [1]}

    def forward(self, x):
        for activation in self.activations:
            x = activation(self.alias(x) + self.shift)
        return self.last(x)


def test_a_module_of_the_users_with_everything_in_it(problem):
    X, y, _ = problem
    clf = FairQATClassifier(make_classifier(Everything, max_epochs=1), **LOW).fit(X, y)
    user = [Everything, twice]
    loaded = saved(clf, FairQATClassifier, *user)
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))
    for before, module in (
        (clf.module_, loaded.module_),
        (clf.estimator_.module_, loaded.estimator_.module_),
        (clf.latent_module_, loaded.latent_module_),
    ):
        assert module.alias is module.first
        assert module.last.register[0] is module.first.weight
        assert module.activations[:4] == [F.gelu, torch.tanh, F.relu, twice]
        assert module.activations[4].keywords == {"negative_slope": 0.1}
        assert module.by_number == before.by_number
        assert type(module.size) is torch.Size
        assert (module.dtype, module.device) == (torch.int8, torch.device("cpu"))
        assert module.draws.randint(1000) == np.random.RandomState(0).randint(1000)
        assert "shift" not in module.state_dict()
        same(module.frame, before.frame)
        same([module.shift, module.half, module.flags], [before.shift, before.half, before.flags])
    assert (
        loaded.estimator_.optimizer_.param_groups[0]["params"][0]
        is loaded.estimator_.module_.first.weight
    )


class OwnCallback(Callback):
    def __init__(self, callback=None):
        self.callback = callback


class OwnNet(NeuralNetClassifier):
    def infer(self, x, **fit_params):
        return super().infer(x * 2, **fit_params)


def test_the_users_own_net_and_callback(problem):
    X, y, _ = problem
    clf = QuantizedClassifier(skorch_net(OwnNet, callbacks=[OwnCallback(twice)]), random_state=0)
    loaded = saved(clf.fit(X, y), QuantizedClassifier, OwnNet, OwnCallback, twice)
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))
    assert type(loaded.estimator_) is OwnNet
