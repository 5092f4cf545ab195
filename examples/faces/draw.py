"""
Pictures and tables of the figures on faces
===========================================

``figures.csv`` has what ``fairer_low_bits.py --summary`` wrote; ``python examples/faces/draw.py`` draws
two pictures from it and prints the tables of the guide. Intervals are 95 % t intervals of means over
seeds.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import stats

HERE = Path(__file__).parent
PICTURES = HERE.parent.parent / "docs" / "_static"
NAMES = {"16": "0.08 M weights", "32": "0.31 M weights"}
ROUNDING = {
    "nearest": "rounded to nearest",
    "least squares": "least-squares rounding, not trained",
    "fine-tuned": "fine-tuned, 20 epochs",
}
FRONTIER = {
    "float": ("float", "k", "s"),
    "3 bits, least squares": ("3 bits, least squares", "C1", "o"),
    "2 bits, ends 8, least squares": ("2 bits, ends 8, least squares", "C2", "o"),
    "3 bits, distilled": ("3 bits, distilled", "C0", "o"),
    "3 bits, FairQuant's rule": ("3 bits, FairQuant's rule", "C3", "D"),
    "3 bits, loss weights and gap penalty": ("3 bits, loss weights and gap penalty", "C4", "^"),
    "3 bits, nearest": ("3 bits, nearest", "C5", "v"),
}


def mean_and_half(values):
    """Return the mean and half the length of its interval."""
    return values.mean(), stats.t.ppf(0.975, len(values) - 1) * values.sem()


def load():
    """Return the figures of every seed, with the difference to its float network."""
    figures = pd.read_csv(HERE / "figures.csv", dtype={"width": str})
    plain = figures["drop"].isna()
    floats = figures[plain & (figures["variant"] == "float")].set_index(["width", "seed"])
    for column in ("accuracy", "fvo"):
        reference = figures[["width", "seed"]].join(floats[column], on=["width", "seed"])[column]
        figures[f"{column}_change"] = figures[column] - reference
    return figures


def draw_bits(figures):
    """Draw what 8 to 2 bits change, for three ways to get there."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    plain = figures[(figures["width"] == "16") & figures["drop"].isna()]
    for ax, column in zip(axes, ("fvo_change", "accuracy_change"), strict=True):
        for shift, (rule, label) in zip((-0.08, 0.0, 0.08), ROUNDING.items(), strict=True):
            bits = [b for b in (8, 4, 3, 2) if f"{b} bits, {rule}" in set(plain["variant"])]
            values = [plain.loc[plain["variant"] == f"{b} bits, {rule}", column] for b in bits]
            means, halves = np.array([mean_and_half(value) for value in values]).T
            places = np.array([(8, 4, 3, 2).index(b) for b in bits]) + shift
            ax.errorbar(places, means, halves, fmt="o-", capsize=3, label=label)
        ax.axhline(0, color="0.6", lw=1, zorder=0)
        ax.set(xticks=range(4), xticklabels=(8, 4, 3, 2), xlabel="bits of the weights")
    axes[0].set(title="FVO minus the float network's")
    axes[1].set(title="accuracy minus the float network's")
    axes[1].legend(loc="lower left")
    figure.savefig(PICTURES / "faces.png", dpi=110)


def draw_frontier(figures):
    """Draw accuracy against FVO: a line for each network, along the drops of its offsets."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.6), sharex=True, sharey=True, layout="constrained")
    for ax, (width, title) in zip(axes, NAMES.items(), strict=True):
        for variant, (label, color, marker) in FRONTIER.items():
            chosen = figures[(figures["width"] == width) & (figures["variant"] == variant)]
            points = np.array(
                [
                    (*mean_and_half(part["accuracy"]), *mean_and_half(part["fvo"]))
                    for _, part in chosen.groupby(chosen["drop"].fillna(0.0))
                ]
            )
            accuracy, half, fvo, half_fvo = points.T
            ax.plot(accuracy, fvo, "-", color=color, lw=1)
            first, others = slice(0, 1), slice(1, None)
            for part, face in ((first, color), (others, "none")):
                ax.errorbar(
                    *(accuracy[part], fvo[part], half_fvo[part], half[part]),
                    fmt=marker,
                    color=color,
                    markerfacecolor=face,
                    elinewidth=0.6,
                    label=label if part is first else None,
                )
        n_seeds = figures.loc[figures["width"] == width, "seed"].nunique()
        ax.set(xlabel="accuracy", title=f"{title}, {n_seeds} seeds")
    axes[0].set(ylabel="FVO", xlim=(0.62, 0.82), ylim=(0, 1))
    axes[0].legend(fontsize=8, loc="upper left")
    figure.savefig(PICTURES / "faces_frontier.png", dpi=110)


def tables(figures):
    """Return the lines of a table for each network."""
    with_offsets = ["float", "3 bits, least squares", "2 bits, ends 8, least squares"]
    for width, title in NAMES.items():
        chosen = figures[figures["width"] == width]
        yield f"| {title} | KiB | accuracy / FVO | accuracy − float | FVO − float |"
        yield "|---|---|---|---|---|"
        for (variant, drop), part in chosen.groupby(["variant", "drop"], dropna=False, sort=False):
            if not np.isnan(drop) and variant not in with_offsets:
                continue
            name = variant if np.isnan(drop) else f"{variant}, offsets, drop {drop:.2f}"
            cells = [
                f"{part['bytes'].mean() / 1024:.0f}",
                f"{part['accuracy'].mean():.3f} / {part['fvo'].mean():.3f}",
            ]
            for column in ("accuracy_change", "fvo_change"):
                mean, half = mean_and_half(part[column])
                cells.append("" if name == "float" else f"{mean:+.3f} ± {half:.3f}")
            yield ("| " + " | ".join([name, *cells]) + " |").replace("-0.", "−0.")


if __name__ == "__main__":
    table = load()
    draw_bits(table)
    draw_frontier(table)
    print("\n".join(tables(table)))
