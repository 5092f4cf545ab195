"""The stages of the study: each measures some versions of one float network, trained once."""

import copy
import warnings

import torch
from sklearn.frozen import FrozenEstimator

from paper._measure import CurvatureSamples, measure
from paper._tasks import make_net
from skqfair import FairQATClassifier, PrunedClassifier, QuantizedClassifier
from skqfair.exceptions import AccuracyBoundWarning, CompoundedMitigationWarning
from skqfair.quantization import amount_for_size

__all__ = ["FLOAT", "MITIGATIONS", "QUANTIZERS", "mitigated_bits", "run_stage", "stages"]

FLOAT = 32  # "bits" of what is not quantized
QUANTIZERS = {
    "plain": {"granularity": "per_tensor", "calibration": "minmax"},
    "default": {"granularity": "per_channel", "calibration": "mse"},
}
_SAMPLING, _WEIGHTS = {"sampling": "balanced"}, {"mitigation_weight": 1.0}
_BOTH = {"sampling": "balanced", "mitigation_weight": 0.5}  # both count: 1.0 would overshoot
_MIXED, _MINIMAX = {"layer_bits": "fairquant"}, {"layer_bits": "auto"}
MITIGATIONS = {
    "PTQ": (QuantizedClassifier, {}),
    "PTQ, BatchNorm": (QuantizedClassifier, {"recalibrate_batchnorm": True}),
    "QAT": (FairQATClassifier, {}),
    "QAT, sampling": (FairQATClassifier, _SAMPLING),
    "QAT, weights": (FairQATClassifier, _WEIGHTS),
    "QAT, mixed": (FairQATClassifier, _MIXED),
    "QAT, sampling, weights": (FairQATClassifier, _BOTH),
    "QAT, sampling, weights, mixed": (FairQATClassifier, {**_BOTH, **_MIXED}),
    "QAT, sampling, weights, minimax": (FairQATClassifier, {**_BOTH, **_MINIMAX}),
    "QAT, bound": (FairQATClassifier, {"accuracy_bound": 0.01}),
    "float, sampling, weights": (FairQATClassifier, {**_BOTH, "weight_bits": None}),
}


def stages():
    """Return the names of the stages after the float training; each is one piece of work."""
    return [
        "quantized",
        "zeros",
        "pruned",
        *(f"curvature {name}" for name in QUANTIZERS),
        *(f"mitigation {name}" for name in MITIGATIONS),
    ]


def mitigated_bits(bits):
    """Return the width of the mitigations: the second fewest bits, 3 of the default ones."""
    return sorted(bits)[min(1, len(bits) - 1)]


def run_stage(stage, task, seed, split, bits, curvature_samples, memory):
    """Return the rows of a stage, by table. The float net is trained once, and then in ``memory``."""
    run = _Run(task, seed, split, sorted(bits, reverse=True), curvature_samples, memory)
    kind, _, name = stage.partition(" ")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CompoundedMitigationWarning)  # meant: the paper's combination
        warnings.simplefilter("ignore", AccuracyBoundWarning)  # what it comes to is measured below
        getattr(run, kind)(*([name] if name else []))
    return run.tables


class _Run:
    """One stage of one seed and task."""

    def __init__(self, task, seed, split, bits, curvature_samples, memory):
        self.task, self.seed, self.split, self.bits = task, seed, split, bits
        self.curvature_samples, self.memory = curvature_samples, memory
        self.tables = {"models": [], "groups": [], "curvature": []}
        trained = self.fit(QuantizedClassifier, make_net(task), weight_bits=None, memory=memory)
        # its schedule ends with its training; a fine-tuning has its own
        self.net = FrozenEstimator(trained.estimator_.set_params(callbacks=None))
        self.trained = trained

    def fit(self, kind, estimator=None, groups=False, **options):
        estimator = self.net if estimator is None else estimator
        clf = kind(estimator, random_state=self.seed, **options)
        routed = {"sensitive_features": self.split.groups_train} if groups else {}
        return clf.fit(self.split.X_train, self.split.y_train, **routed)

    def keys(self, method, weights=FLOAT, activations=FLOAT):
        names = {"task": self.task.name, "seed": self.seed, "method": method}
        return {**names, "weights": weights, "activations": activations}

    def add(self, clf, *keys):
        model, groups = measure(clf, self.split, **self.keys(*keys))
        self.tables["models"].append(model)
        self.tables["groups"].extend(groups)

    def float(self):
        self.add(self.trained, "float")

    def quantized(self):
        """Weights, activations, and both, by both quantizers."""
        for name, quantizer in QUANTIZERS.items():
            for b in self.bits:
                for weights, activations in ((b, None), (None, b), (b, b)):
                    options = {"weight_bits": weights, "activation_bits": activations, **quantizer}
                    clf = self.fit(QuantizedClassifier, **options)
                    self.add(clf, name, weights or FLOAT, activations or FLOAT)

    def zeros(self):
        """What becomes 0 and what is rounded, apart: interventions on the plain quantizer."""
        rng = torch.Generator().manual_seed(self.seed)
        for b in self.bits:
            quantized = self.fit(QuantizedClassifier, weight_bits=b, **QUANTIZERS["plain"])
            changes = {"zeros": {}, "rounding": {}, "zeros at random": {}}
            for name, weight in dict(self.net.module_.named_parameters()).items():
                if name not in quantized.quantized_weights_:
                    continue
                new = quantized.quantized_weights_[name]
                rounded, zero = new.dequantize().to(weight), new.codes == 0
                at_random = zero.flatten()[torch.randperm(zero.numel(), generator=rng)].view_as(zero)
                changes["zeros"][name] = weight.masked_fill(zero, 0)
                changes["rounding"][name] = rounded.where(~zero, weight)
                changes["zeros at random"][name] = weight.masked_fill(at_random, 0)
            for method, weights in changes.items():
                self.add(
                    self.fit(QuantizedClassifier, self.changed(weights), weight_bits=None), method, b
                )

    def changed(self, weights):
        """Return the float net with other weights."""
        net = copy.deepcopy(self.net.estimator)
        with torch.no_grad():
            for name, parameter in net.module_.named_parameters():
                parameter.copy_(weights.get(name, parameter))
        return FrozenEstimator(net)

    def pruned(self):
        """As many zeros as it takes to be no larger than the quantized network."""
        for b in self.bits:
            size = self.fit(QuantizedClassifier, weight_bits=b, **QUANTIZERS["default"]).model_size_
            amount = amount_for_size(self.net.module_, size)
            self.add(self.fit(PrunedClassifier, amount=amount), "pruned", b)
            if b == mitigated_bits(self.bits):
                epochs = self.task.finetune_epochs
                tuned = self.fit(PrunedClassifier, amount=amount, finetune_epochs=epochs)
                self.add(tuned, "pruned, fine-tuned", b)

    def curvature(self, name):
        """Gradient norms and largest Hessian eigenvalues by group, weights quantized.

        From 8 bits on networks hardly differ from float: eigenvalues at matched sizes only.
        """
        samples = CurvatureSamples(self.split, self.curvature_samples, self.seed)
        versions = [(name, b) for b in self.bits]
        if name == "plain":  # the float net, once
            versions.insert(0, ("float", FLOAT))
        for method, b in versions:
            bits = None if b == FLOAT else b
            clf = self.fit(QuantizedClassifier, weight_bits=bits, **QUANTIZERS[name])
            keys = {"task": self.task.name, "seed": self.seed, "method": method, "weights": b}
            rows = samples.measure(clf.module_, only_matched=8 <= b < FLOAT, **keys)
            self.tables["curvature"].extend(rows)

    def mitigation(self, name):
        """One mitigation at one width, of as many bits per weight as all the others."""
        kind, options = MITIGATIONS[name]
        bits = mitigated_bits(self.bits)
        options = {"weight_bits": bits, **options}
        if "layer_bits" in options:
            options["bit_budget"] = bits
        if kind is FairQATClassifier:
            options["finetune_epochs"] = self.task.finetune_epochs
        clf = self.fit(kind, groups=True, **options)
        self.add(clf, name, options["weight_bits"] or FLOAT)
