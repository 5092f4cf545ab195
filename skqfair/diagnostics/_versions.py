"""What is diagnosed: the float net and its quantized versions, each a fitted classifier."""

import copy
import warnings
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import _check_feature_names, check_is_fitted

from skqfair._rows import cast_rows
from skqfair._seeding import draw_seed
from skqfair.classifiers import NetworkClassifier, QuantizedClassifier
from skqfair.curvature import differentiable_copy
from skqfair.diagnostics._compressed import Predictor
from skqfair.exceptions import UnquantizedWeightsWarning
from skqfair.networks import SKORCH_CLASSIFIERS, Network, TorchClassifier
from skqfair.quantization import FLOAT_BITS, QuantizedTensor, drop_quantizers, plain_copy

__all__ = ["Version", "check_names", "find_versions", "take_apart"]

_PROBED = 8  # samples


@dataclass
class Version:
    """One network to look at.

    Attributes
    ----------
    name : "float", "latent", "mixed", "pruned" or int
        Its bits.
    classifier : NetworkClassifier
        Fitted; its ``module_`` predicts.
    weights : dict of str to QuantizedTensor
        Quantized or pruned weights, by parameter name; none for a float network.
    origin : "float" or "latent", or None
        The version whose weights these were before they were quantized.
    """

    name: object
    classifier: NetworkClassifier
    weights: dict
    origin: str | None

    @property
    def network(self):
        """The skorch network around the module."""
        return Network.of_trained(self.classifier.estimator_)

    def logits(self, X):
        """Return the logits of samples in the dtype of the module, as the classifier predicts them."""
        return self.classifier._logits(self.network, X)

    def each_logits(self, X, size):
        """Yield the same, ``size`` samples at a time."""
        network, classifier = self.network, self.classifier
        if network.is_plain and not network.has_own_probabilities and network.returns_logits:
            for outputs in network.each_batch(X, classifier.module_, block=classifier._block):
                yield outputs.double().numpy()
        else:
            for start in range(0, len(X), size):
                yield self.logits(X[start : start + size])

    def rows_at_once(self, X):
        """Return how many samples :meth:`each_logits` takes at a time."""
        return self.classifier._block or self.network.batch_size(len(X))

    def input(self, X):
        """Return samples in the dtype of the module."""
        return cast_rows(X, self.classifier._input_dtype)

    def with_module(self, module):
        """Return the classifier with another module that predicts."""
        other = copy.copy(self.classifier)
        other.module_ = module.eval()
        return other

    def differentiable(self):
        """Return a copy of the module with float inputs, trainable where the float net is."""
        module = plain_copy(self.classifier.module_)
        drop_quantizers(module)
        trainable = dict(self.network.module.named_parameters())
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(trainable[name].requires_grad if name in trainable else True)
        return differentiable_copy(module).eval()

    def check_inputs(self, module, X):
        """Raise if the net changes its samples before the module gets them, e.g. where it collates them.

        What is computed of ``module`` by itself would be of other inputs than what the net predicts.
        """
        network = self.network
        if network.is_plain or network.has_own_probabilities:
            return
        wanted, error = self.logits(X[:_PROBED]), None
        try:
            inputs = torch.from_numpy(np.array(X[:_PROBED])).to(network.net.device or "cpu")
            with torch.no_grad():
                found = (self.forward or _module_alone)(module, inputs).double().cpu().numpy()
        except Exception as failed:
            found, error = np.full_like(wanted, np.inf), failed
        if wanted.shape != found.shape or not np.allclose(found, wanted, 1e-2, 1e-2 * np.ptp(wanted)):
            raise ValueError(
                f"{type(network.net).__name__} changes its samples before the module gets them, as a "
                "collate function (iterator_valid__collate_fn) or a dataset of its own does; gradients "
                "and curvature would be of other inputs than its predictions. Make these changes in the "
                "Dataset, or in X, and leave them out of the net."
            ) from error

    @property
    def forward(self):
        """``(module, X) -> logits`` as the net computes them; None where the module alone does."""
        network = self.network
        plain = network.returns_logits and not network.has_one_logit
        if plain and not network.overrides("infer"):
            return None
        return _Forward(network)


def _module_alone(module, X):
    return module(X)


class _Forward:
    """Logits of all classes, by the net's own infer: of one logit, or of probabilities."""

    def __init__(self, network):
        self.network = network

    def __call__(self, module, X):
        network = self.network
        outputs = network.view(module).infer(X) if network.overrides("infer") else module(X)
        return network.class_logits(outputs)


def take_apart(estimator):
    """Return the steps before the classifier, None where there are none, and the classifier.

    A frozen pipeline is diagnosed by its last step, on what the others make of X.
    """
    if not isinstance(estimator, FrozenEstimator):
        return None, estimator
    inner, steps = estimator.estimator, []
    while isinstance(inner, (Pipeline, FrozenEstimator)):
        if isinstance(inner, Pipeline):
            check_is_fitted(inner)
            steps += [step for _, step in inner.steps[:-1]]
            inner = inner.steps[-1][1]
        else:
            inner = inner.estimator
    before = Pipeline([(str(i), step) for i, step in enumerate(steps)]) if steps else None
    return before, FrozenEstimator(inner)


def check_names(estimator, X):
    """Raise if X has other columns than a frozen estimator was fitted on, as its predict does."""
    fitted = getattr(estimator, "estimator", None)
    if isinstance(estimator, FrozenEstimator) and hasattr(fitted, "feature_names_in_"):
        _check_feature_names(fitted, X, reset=False)


def find_versions(diagnostics, estimator, X, y, sensitive_features):
    """Return the versions, the float one first, and the classes.

    Parameters
    ----------
    diagnostics : QuantizationDiagnostics
        Its parameters.
    estimator : FrozenEstimator or estimator
        What is diagnosed.
    X, y : arrays
        Samples and labels.
    sensitive_features : array-like or None
        For the training and the calibration.

    Returns
    -------
    versions : list of Version, or of one Predictor
    classes : ndarray
    """
    # a TorchClassifier or OnnxClassifier is trained as it is made
    frozen = isinstance(estimator, FrozenEstimator) or hasattr(estimator, "read_weights")
    inner = estimator.estimator if isinstance(estimator, FrozenEstimator) else estimator
    if not frozen and _is_fitted(inner):
        raise ValueError(
            f"estimator is a fitted {type(inner).__name__}; wrap it, FrozenEstimator(estimator), to "
            "have it diagnosed as it is, or pass clone(estimator) to have it trained here."
        )
    if isinstance(inner, NetworkClassifier):
        if frozen:
            check_is_fitted(inner)
        else:
            inner = clone(inner).fit(X, y, sensitive_features=sensitive_features)
        return _of_classifier(inner), inner.classes_
    others = not isinstance(inner, (*SKORCH_CLASSIFIERS, TorchClassifier))
    if frozen and others and (diagnostics.compressed or hasattr(inner, "read_weights")):
        if not hasattr(inner, "predict_proba"):
            raise TypeError(f"estimator must have probabilities; {type(inner).__name__} has none.")
        return [Predictor("float" if diagnostics.compressed else _bits(inner), inner)], inner.classes_
    seed = diagnostics.random_state
    if not isinstance(seed, Integral):  # one for all versions: the same calibration sample
        seed = draw_seed(seed)
    if isinstance(inner, Pipeline):
        _check_net(inner)
    if not frozen:
        options = {"weight_bits": None, "random_state": seed}
        trained = QuantizedClassifier(inner, **options).fit(X, y)
        classes, y = trained.classes_, np.searchsorted(trained.classes_, y)
        estimator = FrozenEstimator(trained.estimator_)
        return _of_net(diagnostics, estimator, X, y, sensitive_features, seed), classes
    if not isinstance(inner, TorchClassifier):
        _check_net(inner)
    versions = _of_net(diagnostics, estimator, X, y, sensitive_features, seed)
    return versions, versions[0].classifier.classes_


def _of_net(diagnostics, frozen, X, y, sensitive_features, seed):
    """Quantize a trained net to each width."""
    whole = QuantizedClassifier(frozen, weight_bits=None, random_state=seed).fit(X, y)
    versions = [Version("float", whole, {}, None)]
    for bits in _widths(diagnostics.weight_bits):
        quantized = QuantizedClassifier(
            frozen,
            weight_bits=bits,
            activation_bits=diagnostics.activation_bits,
            granularity=diagnostics.granularity,
            calibration=diagnostics.calibration,
            random_state=seed,
        )
        with warnings.catch_warnings():
            if len(versions) > 1:  # the first width has said it
                warnings.simplefilter("ignore", UnquantizedWeightsWarning)
            quantized.fit(X, y, sensitive_features=sensitive_features)
        versions.append(Version(bits, quantized, quantized.quantized_weights_, "float"))
    return versions


def _of_classifier(classifier):
    """Return the versions that a fitted classifier holds."""
    network = Network.of_trained(classifier.estimator_)
    whole = copy.copy(classifier)
    whole.module_ = plain_copy(network.module).eval()
    versions = [Version("float", whole, {}, None)]
    origin = "float"
    if hasattr(classifier, "latent_module_"):
        origin = "latent"
        latent = versions[0].with_module(classifier.latent_module_)
        versions.append(Version("latent", latent, {}, None))
    weights = getattr(classifier, "quantized_weights_", {})
    if weights or getattr(classifier, "activation_bits", None) is not None:
        versions.append(Version(_bits(classifier), classifier, weights, origin))
    if hasattr(classifier, "layer_amounts_"):
        versions.append(Version("pruned", classifier, _pruned_weights(classifier), origin))
    return versions


def _pruned_weights(classifier):
    """Return the weights as they are, codes at the scale 1: sparsity and errors are counted alike."""
    parameters = dict(classifier.module_.named_parameters())
    weights = {name: parameters[name].detach() for name in classifier.layer_amounts_}
    return {
        name: QuantizedTensor(weight, weight.new_ones(()), FLOAT_BITS)
        for name, weight in weights.items()
    }


def _bits(classifier):
    """Return the one width of all layers, else "mixed"; "float" weights may have quantized inputs."""
    if not hasattr(classifier, "layer_bits_"):
        return "model"  # of another's making
    widths = {int(b) for bits in classifier.layer_bits_.values() for b in np.ravel(bits)}
    if widths == {32}:
        return "float weights"
    return widths.pop() if len(widths) == 1 else "mixed"


def _widths(weight_bits):
    widths = np.unique(np.ravel(weight_bits))[::-1]
    return [int(bits) for bits in widths]


def _is_fitted(estimator):
    if isinstance(estimator, SKORCH_CLASSIFIERS):
        return bool(getattr(estimator, "initialized_", False) and len(estimator.history or ()))
    return hasattr(estimator, "module_") and hasattr(estimator, "classes_")


def _check_net(inner):
    if not isinstance(inner, SKORCH_CLASSIFIERS):
        raise TypeError(
            "estimator must be a skorch.NeuralNetClassifier, a classifier of skqfair, or a "
            f"FrozenEstimator of a fitted one; got {type(inner).__name__}. Of a search pass its "
            "best_estimator_; a fitted Pipeline goes inside a FrozenEstimator."
        )
