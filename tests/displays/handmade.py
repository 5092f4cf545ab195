"""Tables as QuantizationDiagnostics makes them, small and by hand."""

import numpy as np
import pandas as pd

BITS = ("float", 8, 2)
GROUPS = ("a", "b")
LAYERS = ("0.weight", "2.weight")
INTERVALS = (
    "gradient_norm",
    "gradient_norm_debiased",
    "hessian_max_eigenvalue",
    "hessian_min_eigenvalue",
    "hessian_trace",
)


def product(**levels):
    values = [np.array(level, dtype=object) for level in levels.values()]
    return pd.MultiIndex.from_product(values, names=list(levels))


def group_report(bits=BITS, groups=GROUPS, seed=0):
    """The smaller a group the later it comes; what is float's own has no excess."""
    rng = np.random.default_rng(seed)
    index = product(bits=bits, group=groups)
    damage = np.repeat(np.linspace(0, 1, len(bits)), len(groups))
    share = np.tile(np.arange(1, len(groups) + 1) / len(groups), len(bits)) * damage
    noise = rng.uniform(0, 0.03, len(index))
    report = pd.DataFrame(
        {
            "count": np.tile([4000 // 2**g + 50 - g for g in range(len(groups))], len(bits)),
            "accuracy": 0.9 - 0.3 * share - noise,
            "loss": 0.2 + 1.2 * share + noise,
            "logit_variance": 6 - 4 * share + noise,
            "margin": 0.8 - 0.4 * share,
            "boundary_closeness": 0.1 + 0.4 * share + noise,
            "confidence": 0.9 - 0.3 * share,
            "flip_rate": 0.2 * share,
            "gradient_norm": 0.1 + 0.8 * share + noise,
            "gradient_norm_debiased": 0.1 + 0.7 * share + noise,
            "hessian_max_eigenvalue": 2 + 60 * share + noise,
            "hessian_min_eigenvalue": -1 - 3 * share,
            "hessian_trace": 10 + 90 * share,
            "excess_loss": share,
            "excess_loss_weights": share,
            "excess_loss_first_order": 0.3 * share,
            "excess_loss_second_order": 0.8 * share,
            "n_matched": 64,
        },
        index=index,
    )
    for column in INTERVALS:
        report[f"{column}_low"] = report[column] - 0.1 * abs(report[column])
        report[f"{column}_high"] = report[column] + 0.2 * abs(report[column])
    report.loc[["float"], [c for c in report if c.startswith("excess")]] = np.nan
    return report


def layer_report(bits=BITS[1:], layers=LAYERS):
    index = product(bits=bits, layer=layers)
    return pd.DataFrame(
        {
            "n_weights": np.tile(100 * np.arange(1, len(layers) + 1), len(bits)),
            "sparsity": np.linspace(0.02, 0.6, len(index)),
            "sqnr_db": np.linspace(40, 3, len(index)),
            "saturation": 0.01,
        },
        index=index,
    )


def attribution(bits=BITS[1:], layers=LAYERS, groups=GROUPS, seed=0):
    rng = np.random.default_rng(seed)
    index = product(bits=bits, layer=layers, group=groups)
    return pd.DataFrame(
        {
            "excess_loss_first_order": rng.normal(0, 0.01, len(index)),
            "excess_loss_second_order": rng.normal(0.01, 0.02, len(index)),
            "activation_sqnr_db": rng.uniform(3, 40, len(index)),
            "clipping_rate": rng.uniform(0, 0.02, len(index)),
        },
        index=index,
    )


def eigenvalues(bits=BITS, groups=GROUPS, k=3, seed=0):
    rng = np.random.default_rng(seed)
    index = product(bits=bits, group=groups, rank=range(1, k + 1))
    tops = rng.uniform(2, 60, (len(bits) * len(groups), 1))
    return pd.Series((tops / np.arange(1, k + 1) ** 1.5).ravel(), index=index, dtype=float)
