import numpy as np
import pytest

from skqfair.networks import MLP, ConvNet, make_classifier

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)


def test_sizes_are_found_at_fit():
    net = make_classifier(max_epochs=1).fit(X, Y)
    assert net.module_.hidden0.in_features == 6
    net.fit(X[:, :3], np.arange(300) % 5)
    assert net.module_.hidden0.in_features == 3
    assert net.module_.output.out_features == 5
    images = make_classifier(ConvNet, max_epochs=1, module__widths=(4,))
    images.fit(RNG.random((20, 2, 5, 5)).astype(np.float32), np.arange(20) % 2)
    assert images.module_.stem[0].in_channels == 2
    with pytest.raises(TypeError, match="module must be a torch module"):
        make_classifier("convnet")
    instance = make_classifier(MLP(6, 2), max_epochs=1).fit(X, Y)
    assert instance.module_.hidden0.out_features == 128
