"""Mitigations side by side over seeds and splits, on faces or on Adult; prints a Markdown table.

    python tests/benchmarks/study_mitigation.py run utkface --path UTKFace --seeds 0 5 --out faces.jsonl
    python tests/benchmarks/study_mitigation.py table faces.jsonl

Every seed is another split (70/30, stratified) and another float network; all variants of a seed start
from that network. A run goes on where its file ends.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import t as student
from sklearn.compose import make_column_transformer
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from skorch.callbacks import LRScheduler

from skqfair import FairQATClassifier, QuantizedClassifier, fairness_violation_observed
from skqfair.datasets import load_adult, load_utkface
from skqfair.networks import ConvNet, make_classifier

EPOCHS = 4
TUNED = {"finetune_epochs": EPOCHS}
BALANCED = {**TUNED, "sampling": "balanced"}
VARIANTS = {
    "float": {"weight_bits": None, "finetune_epochs": 0},
    "float, balanced (control)": {**BALANCED, "weight_bits": None},
    "3 bits, post-training": {"weight_bits": 3, "kind": QuantizedClassifier},
    "3 bits, post-training, balanced calibration and BatchNorm": {
        "weight_bits": 3,
        "kind": QuantizedClassifier,
        "recalibrate_batchnorm": True,
    },
    "3 bits, no mitigation": {**TUNED, "weight_bits": 3},
    "3 bits, balanced": {**BALANCED, "weight_bits": 3},
    "3 bits, balanced, learned scales": {**BALANCED, "weight_bits": 3, "calibration": "learned"},
    "3 bits, weighted loss": {**TUNED, "weight_bits": 3, "mitigation_weight": 1.0},
    "minimax 3 bits, balanced": {**BALANCED, "layer_bits": "auto", "bit_budget": 3},
    "3 bits, weighted loss, gap penalty": {
        **TUNED,
        "weight_bits": 3,
        "mitigation_weight": 1.0,
        "gap_penalty": 0.5,
    },
    "minimax 3 bits, weighted loss, gap penalty": {
        **TUNED,
        "layer_bits": "auto",
        "bit_budget": 3,
        "mitigation_weight": 1.0,
        "gap_penalty": 0.5,
    },
    "FairQuant at 3 bits": {
        **TUNED,
        "layer_bits": "fairquant",
        "bit_budget": 3,
        "gap_penalty": 0.5,
    },
    "2 bits, first and last 8, balanced": {
        **BALANCED,
        "weight_bits": 2,
        "layer_bits": "first_last_8",
    },
    "2 bits, first and last 8, balanced, learned scales": {
        **BALANCED,
        "weight_bits": 2,
        "layer_bits": "first_last_8",
        "calibration": "learned",
    },
}


class FastConvNet(ConvNet):
    """The same network, in the memory format that is faster on a CPU."""

    def forward(self, x):
        return super().forward(x.contiguous(memory_format=torch.channels_last))


def faces(path):
    """Return X, y, groups and the float net: ethnicity as target and group, 48 x 48."""
    data = load_utkface(path, image_size=48, n_jobs=2)
    X = (data.data.astype(np.float32) / 255 - 0.5) / 0.25
    y = np.unique(data.target.astype(str), return_inverse=True)[1].astype(np.int64)
    schedule = ("lr", LRScheduler("CosineAnnealingLR", T_max=8))
    widths = (8, 24, 48, 96)
    net = make_classifier(FastConvNet, module__widths=widths, max_epochs=8, lr=0.005, batch_size=64)
    return X, y, y, net.set_params(callbacks=[schedule])


def adult(_):
    """Return X, y, groups and the float net: race x sex."""
    data = load_adult()
    frame = data.data.drop(columns=["race", "sex"])
    words = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
    numbers = [name for name in frame if name not in words]
    encode = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=50, sparse_output=False)
    X = make_column_transformer((StandardScaler(), numbers), (encode, words)).fit_transform(frame)
    groups = data.sensitive_features.astype(str).agg(", ".join, axis=1).to_numpy()
    y = (data.target == ">50K").to_numpy().astype(np.int64)
    return X.astype(np.float32), y, groups, make_classifier(max_epochs=8, lr=0.002)


def read(file):
    """Return the rows of a file, none if it is not there."""
    lines = Path(file).read_text().splitlines() if Path(file).exists() else []
    return [json.loads(line) for line in lines]


def run(name, path, seeds, out, only):
    """Append one line for each seed and variant that the file does not have."""
    torch.set_num_threads(1)
    X, y, groups, net = {"utkface": faces, "adult": adult}[name](path)
    done = {(row["seed"], row["variant"]) for row in read(out)}
    for seed in seeds:
        wanted = [v for v in VARIANTS if (not only or v in only) and (seed, v) not in done]
        if not wanted:
            continue
        strata = y.astype(str) + np.char.add(" ", groups.astype(str))
        train, test = train_test_split(
            np.arange(len(y)), test_size=0.3, stratify=strata, random_state=seed
        )
        torch.manual_seed(seed)
        trained = net.fit(X[train], y[train])
        frozen = FrozenEstimator(trained.set_params(callbacks=None))
        for variant in wanted:
            options = dict(VARIANTS[variant])
            kind = options.pop("kind", FairQATClassifier)
            clf = kind(frozen, random_state=seed, **options)
            clf.fit(X[train], y[train], sensitive_features=groups[train])
            predicted = clf.predict(X[test])
            weights = clf.quantized_weights_.values()
            row = {
                "seed": seed,
                "variant": variant,
                "accuracy": float(np.mean(predicted == y[test])),
                "fvo": fairness_violation_observed(y[test], predicted, sensitive_features=groups[test]),
                "bits": sum(w.codes.numel() * np.mean(w.bits) for w in weights)
                / max(1, sum(w.codes.numel() for w in weights)),
                "bytes": clf.model_size_,
            }
            with Path(out).open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)
        net = {"utkface": faces, "adult": adult}[name](path)[3]


def interval(values):
    """Mean and 95 % t-interval over seeds, as text."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return f"{values.mean():.3f}"
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.3f} ± {half:.3f}"


def table(files):
    """Print the table of all results, and the paired differences."""
    rows = pd.DataFrame([row for file in files for row in read(file)])
    rows = rows.drop_duplicates(["seed", "variant"])
    fvo = rows.pivot_table(index="seed", columns="variant", values="fvo")
    accuracy = rows.pivot_table(index="seed", columns="variant", values="accuracy")
    control, peer = "float, balanced (control)", "FairQuant at 3 bits"
    print(
        "| variant | seeds | bits | bytes | accuracy | FVO | FVO / float | FVO - control "
        "| accuracy - control | FVO - FairQuant |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for variant in [v for v in VARIANTS if v in fvo]:
        own = rows[rows["variant"] == variant]
        ratio = fvo[variant].mean() / fvo["float"][fvo[variant].notna()].mean()
        differences = [
            interval((values[variant] - values[base]).dropna()) if base in values else ""
            for values, base in ((fvo, control), (accuracy, control), (fvo, peer))
        ]
        bits = "float" if own["bits"].mean() == 0 else f"{own['bits'].mean():.2f}"
        print(
            f"| {variant} | {len(own)} | {bits} | {own['bytes'].mean():.0f} | "
            f"{interval(own['accuracy'])} | {interval(own['fvo'])} | {ratio:.2f} | "
            + " | ".join(differences)
            + " |"
        )


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts = parser.add_subparsers(dest="command", required=True)
    runs = parts.add_parser("run")
    runs.add_argument("data", choices=["utkface", "adult"])
    runs.add_argument("--path", help="folder of UTKFace")
    runs.add_argument("--seeds", nargs=2, type=int, default=(0, 5), help="first, and one past the last")
    runs.add_argument("--out", required=True)
    runs.add_argument("--only", nargs="*", default=None, help="names of variants")
    parts.add_parser("table").add_argument("files", nargs="+")
    options = parser.parse_args()
    if options.command == "table":
        table(options.files)
    else:
        run(options.data, options.path, range(*options.seeds), options.out, options.only)


if __name__ == "__main__":
    main()
