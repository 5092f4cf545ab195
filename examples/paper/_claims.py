"""The paper's claims, each as comparisons over seeds; see ``_verdicts`` for what is made of them."""

from dataclasses import dataclass

import numpy as np

__all__ = ["CLAIMS", "Claim"]


@dataclass(frozen=True)
class Claim:
    """What the paper says, what is measured, the figure, and a function that yields comparisons."""

    key: str
    text: str
    measured: str
    figure: str
    comparisons: object


CLAIMS = []


def _claim(key, text, measured, figure):
    def add(function):
        CLAIMS.append(Claim(key, text, measured, figure, function))
        return function

    return add


# ------------------------------------------------------------------ disparity


@_claim(
    "grows",
    "Disparate impact grows as bits fall.",
    "rank correlation of fewer bits (float first) with FVO",
    "precision",
)
def _grows(r, task):
    for q in r.quantizers:
        for label, both in (("weights", False), ("weights and activations", True)):
            steps = [r.fvo(task, "float"), *(r.fvo(task, q, b, b if both else None) for b in r.bits)]
            ranks = np.arange(len(steps))
            yield f"{q}, {label}", r.correlation(ranks, np.array(steps))


@_claim(
    "minority loss",
    "It falls on minority groups: their loss rises more.",
    "rank correlation of small group size with excess loss, mean over few bits",
    "minorities",
)
def _minority_loss(r, task):
    yield from _minority(r, task, lambda keys: r.by_group("loss", task, *keys), sign=1)


@_claim(
    "minority accuracy",
    "It falls on minority groups: their accuracy drops more.",
    "rank correlation of small group size with accuracy drop, mean over few bits",
    "minorities",
)
def _minority_accuracy(r, task):
    yield from _minority(r, task, lambda keys: r.by_group("accuracy", task, *keys), sign=-1)


def _minority(r, task, column, sign):
    small = -r.sizes(task)
    for q in r.quantizers:
        for label, both in (("weights", False), ("weights and activations", True)):
            found = [
                r.correlation(small, sign * (column((q, b, b if both else None)) - column(("float",))))
                for b in r.few
            ]
            yield f"{q}, {label}", r.mean(found)


@_claim(
    "compound",
    "Quantizing weights and activations compounds.",
    "FVO with both less FVO with weights alone; loss with both less the sum of what each costs alone "
    "(mean of groups); means over few bits",
    "precision",
)
def _compound(r, task):
    for q in r.quantizers:
        gap = [r.fvo(task, q, b, b) - r.fvo(task, q, b) for b in r.few]
        yield f"{q}, FVO beyond weights alone", r.mean(gap)
        extra = []
        for b in r.few:
            base, weights, activations, both = (
                r.by_group("loss", task, *keys).mean(axis=0)
                for keys in (("float",), (q, b), (q, None, b), (q, b, b))
            )
            extra.append((both - base) - (weights - base) - (activations - base))
        yield f"{q}, loss beyond the sum", r.mean(extra)


@_claim(
    "cause",
    "Sparsity is a cause of the disparity.",
    "intervention: FVO with the plain quantizer's zeros and nothing rounded, against float, and against "
    "the same rounding without these zeros",
    "zeros",
)
def _cause(r, task):
    for b in r.few:
        zeros = r.fvo(task, "zeros", b)
        yield f"{b} bits, zeros alone against float", zeros - r.fvo(task, "float")
        yield f"{b} bits, zeros alone against rounding alone", zeros - r.fvo(task, "rounding", b)


@_claim(
    "extreme",
    "At 2 bits the disparity is extreme.",
    "FVO at the fewest bits less twice that of the float net, or less the middle between that and 1 "
    "where this is smaller, weights",
    "precision",
)
def _extreme(r, task):
    start = r.fvo(task, "float")
    for q in r.quantizers:
        yield f"{q}, {r.fewest} bits", r.fvo(task, q, r.fewest) - np.minimum(2 * start, (1 + start) / 2)


@_claim(
    "moderate",
    "At 8 and 16 bits it is moderate.",
    "FVO at 8 and at 16 bits is above the float net's, and below that at the fewest bits, weights",
    "precision",
)
def _moderate(r, task):
    for q in r.quantizers:
        for b in (b for b in r.bits if b >= 8):
            yield f"{q}, {b} bits above float", r.fvo(task, q, b) - r.fvo(task, "float")
            yield f"{q}, {b} bits below {r.fewest}", r.fvo(task, q, r.fewest) - r.fvo(task, q, b)


@_claim(
    "low",
    "Before quantization the disparity is low.",
    "FVO of the float net is below what chance alone would show (its 95 % quantile were all groups "
    "served alike)",
    "precision",
)
def _low(r, task):
    yield "float", r.model("fvo_chance", task, "float") - r.fvo(task, "float")


# ------------------------------------------------------------------ forward pass


@_claim(
    "sparsity",
    "Quantization makes weights sparse, the more the fewer bits.",
    "share of zeros at each step to fewer bits",
    "cascade",
)
def _sparsity(r, task):
    for q in r.quantizers:
        for more, fewer in zip((None, *r.bits), r.bits, strict=False):
            before = r.model("sparsity", task, q, more) if more else r.model("sparsity", task, "float")
            name = f"{more} to {fewer} bits" if more else f"float to {fewer} bits"
            yield f"{q}, {name}", r.model("sparsity", task, q, fewer) - before


def _against_float(r, task, column):
    for q in r.quantizers:
        for b in r.few:
            yield f"{q}, {b} bits", r.model(column, task, q, b) - r.model(column, task, "float")


def _variance_lost(r, task, method, b):
    before = r.model("logit_variance", task, "float")
    return np.log(before / r.model("logit_variance", task, method, b))


@_claim(
    "variance",
    "The variance of the logits falls.",
    "log ratio of that of the float net to that at few bits, weights",
    "cascade",
)
def _variance(r, task):
    for q in r.quantizers:
        for b in r.few:
            yield f"{q}, {b} bits", _variance_lost(r, task, q, b)


@_claim(
    "variance by zeros",
    "Sparsity is what lowers the variance of the logits.",
    "intervention: log ratio of the float net's variance to that with the plain quantizer's zeros and "
    "nothing rounded, and to that more than for the same rounding without these zeros",
    "zeros",
)
def _variance_by_zeros(r, task):
    for b in r.few:
        zeros, rounding = (_variance_lost(r, task, method, b) for method in ("zeros", "rounding"))
        yield f"{b} bits, zeros alone against float", zeros
        yield f"{b} bits, zeros alone against rounding alone", zeros - rounding


@_claim("loss", "The loss rises.", "against float, at few bits, weights", "cascade")
def _loss(r, task):
    yield from _against_float(r, task, "loss")


@_claim(
    "boundary",
    "The softmax moves toward the decision boundary.",
    "closeness to the boundary against float, at few bits, weights",
    "cascade",
)
def _boundary(r, task):
    yield from _against_float(r, task, "boundary_closeness")


# ------------------------------------------------------------------ gradients and curvature


def _steeper(column, sizes):
    def comparisons(r, task):
        small = -r.sizes(task)
        for q in r.quantizers:
            found = [r.correlation(small, r.curvature(column, sizes, task, q, b)) for b in r.few]
            yield q, r.mean(found)

    return comparisons


def _grown(column):
    def comparisons(r, task):
        for q in r.quantizers:
            for b in r.few:
                before = r.curvature(column, "matched", task, "float")
                ratio = np.log(r.curvature(column, "matched", task, q, b) / before)
                yield f"{q}, {b} bits", ratio.mean(axis=0)

    return comparisons


for _column, _name in (("gradient_norm", "gradient norms"), ("hessian_max_eigenvalue", "eigenvalues")):
    _full = "gradient norms" if _column == "gradient_norm" else "largest Hessian eigenvalues"
    for _sizes, _how in (("plain", "plain"), ("matched", "at matched group sizes")):
        _claim(
            f"{_name}, {_sizes}",
            f"After quantization the {_full} of minorities are larger, {_how}.",
            f"rank correlation of small group size with the {_name}, mean over few bits, weights",
            "curvature",
        )(_steeper(_column, _sizes))
    _claim(
        f"{_name} grow",
        f"Quantization raises the {_full} of groups.",
        "log ratio to float, mean of groups, at few bits, weights, the same samples",
        "curvature",
    )(_grown(_column))

# ------------------------------------------------------------------ pruning and mitigation


@_claim(
    "per byte",
    "Quantization keeps accuracy better than pruning at the same bytes.",
    "accuracy less that of the pruned net that is no larger; fine-tuned nets: QAT",
    "pruning",
)
def _per_byte(r, task):
    for q in r.quantizers:
        for b in r.bits:
            difference = r.model("accuracy", task, q, b) - r.model("accuracy", task, "pruned", b)
            yield f"{q}, {b} bits", difference
    b = r.mitigated
    tuned = r.model("accuracy", task, "pruned, fine-tuned", b)
    yield f"QAT, {b} bits", r.model("accuracy", task, "QAT", b) - tuned


@_claim(
    "against pruning",
    "Post-training quantization widens gaps more than pruning to the same bytes.",
    "FVO less that of the pruned net that is no larger",
    "pruning",
)
def _against_pruning(r, task):
    for q in r.quantizers:
        for b in r.bits:
            yield f"{q}, {b} bits", r.fvo(task, q, b) - r.fvo(task, "pruned", b)


@_claim(
    "against pruning, accuracy",
    "Post-training quantization widens gaps more than pruning to the same accuracy.",
    "FVO less that of pruned nets at the accuracy of the quantized one, interpolated between the pruned "
    "ones and float, at few bits",
    "pruning",
)
def _against_pruning_at_equal_accuracy(r, task):
    keys = [("float",), *(("pruned", b) for b in r.bits)]
    accuracy, fvo = (np.stack([r.model(c, task, *key) for key in keys]) for c in ("accuracy", "fvo"))
    for q in r.quantizers:
        for b in r.few:
            own = zip(r.model("accuracy", task, q, b), accuracy.T, fvo.T, strict=True)
            pruned = [np.interp(a, *_sorted(x, y)) for a, x, y in own]
            yield f"{q}, {b} bits", r.fvo(task, q, b) - np.array(pruned)


def _sorted(x, y):
    order = np.argsort(x)
    return x[order], y[order]


@_claim(
    "repair",
    "QAT with sampling and weighted loss repairs the gap.",
    "FVO below that after quantization without training (PTQ), below that of plain QAT, and more than "
    "half of what PTQ added to the float net's gone; without and with mixed precision",
    "mitigation",
)
def _repair(r, task):
    ptq, qat = (r.fvo(task, name, r.mitigated) for name in ("PTQ", "QAT"))
    half = (ptq + r.fvo(task, "float")) / 2
    for name in ("QAT, sampling, weights", "QAT, sampling, weights, mixed"):
        own = r.fvo(task, name, r.mitigated)
        yield f"{name}: below PTQ", ptq - own
        yield f"{name}: below QAT", qat - own
        yield f"{name}: half of what PTQ added is gone", half - own


def _added(first, second):
    def comparisons(r, task):
        yield (
            f"{first} less {second}",
            r.fvo(task, first, r.mitigated) - r.fvo(task, second, r.mitigated),
        )

    return comparisons


for _key, _text, _pair in (
    ("batchnorm", "Re-estimated BatchNorm narrows the gap after PTQ.", ("PTQ", "PTQ, BatchNorm")),
    (
        "minimax",
        "Minimax bits narrow the gap, at the same bits.",
        ("QAT, sampling, weights", "QAT, sampling, weights, minimax"),
    ),
    ("bound", "A bound on each group's loss of accuracy narrows the gap.", ("QAT", "QAT, bound")),
):
    _claim(_key, f"{_text} (Not in the paper.)", "difference in FVO", "mitigation")(_added(*_pair))
