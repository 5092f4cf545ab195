"""
Which mitigation, at which price? Fine-tuning, distillation and class offsets on faces
======================================================================================

What brings the gap of a network of 3 bits down on UTKFace (target and groups: ethnicity), and what does
it cost? Pass the folder with the files, e.g. ``python examples/faces/fairer_low_bits.py ~/UTKFace
--seed 0 --out runs/0.json``, once for each seed, then ``--summary runs/*.json`` for the table.

Of 6,000 people 4,200 train, 900 fit the offsets and 900 are measured: the latter are used for neither
training nor selection. Controls train on the 900 of the offsets too, so that every variant has had the
same labels.
"""

import argparse
import json
import warnings

import numpy as np
import pandas as pd
from float_and_low_bits import float_net
from scipy import stats
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split

from skqfair import FairOffsetClassifier, FairQATClassifier, QuantizedClassifier
from skqfair.datasets import load_utkface

N_TRAIN, N_OFFSETS, N_TEST = 4200, 900, 900
DROPS = (0.01, 0.02)


def variants(n_train, options, widths):
    """Return unfitted classifiers by name; all start from the same float network."""
    net = float_net(n_train, widths=widths).set_params(device=options.device, verbose=0)
    shared = {"estimator": net, "random_state": options.seed, "memory": options.cache}
    tuned = {"finetune_epochs": 20, "finetune_lr": 0.05, **shared}
    soft = {"distillation": 0.9, "temperature": 2.0}
    rounded = {"rounding": "gptq", "recalibrate_batchnorm": True}
    return {
        "float": QuantizedClassifier(weight_bits=None, **shared),
        "3 bits, nearest": QuantizedClassifier(weight_bits=3, **shared),
        "3 bits, GPTQ, BatchNorm moved": QuantizedClassifier(weight_bits=3, **rounded, **shared),
        "2 bits, GPTQ, BatchNorm moved": QuantizedClassifier(weight_bits=2, **rounded, **shared),
        "3 bits, fine-tuned": FairQATClassifier(weight_bits=3, **tuned),
        "3 bits, FairQuant's rule": FairQATClassifier(layer_bits="fairquant", bit_budget=3, **tuned),
        "3 bits, loss weights and gap penalty": FairQATClassifier(
            weight_bits=3, mitigation_weight=0.5, gap_penalty=0.5, **tuned
        ),
        "3 bits, distilled": FairQATClassifier(weight_bits=3, **soft, **tuned),
        "2 bits, distilled": FairQATClassifier(weight_bits=2, **soft, **tuned),
    }


OFFSETS = ("float", "3 bits, GPTQ, BatchNorm moved", "3 bits, distilled", "2 bits, distilled")
CONTROLS = ("float", "3 bits, distilled")


def run(options):
    """Fit all variants of one seed and write labels and predictions of those who are measured."""
    faces = load_utkface(options.folder, image_size=options.image_size, n_jobs=-1)
    X, y = faces.data.astype(np.float32) / 255, np.asarray(faces.target)
    train, others = train_test_split(
        np.arange(len(X)),
        train_size=N_TRAIN,
        test_size=N_OFFSETS + N_TEST,
        stratify=y,
        random_state=options.seed,
    )
    offsets, test = train_test_split(
        others, test_size=N_TEST, stratify=y[others], random_state=options.seed
    )
    more, predictions = np.concatenate([train, offsets]), {}

    def fitted(clf, rows):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return clf.fit(X[rows], y[rows], sensitive_features=y[rows])

    def keep(name, clf):
        predictions[name] = clf.predict(X[test]).tolist()
        correct = np.asarray(predictions[name]) == y[test]
        by_group = pd.Series(correct).groupby(y[test]).mean()
        print(f"{name}: {correct.mean():.3f} / {by_group.max() - by_group.min():.3f}", flush=True)

    for name, clf in variants(len(train), options, options.widths).items():
        keep(name, fitted(clf, train))
        for drop in DROPS if name in OFFSETS else ():
            corrected = FairOffsetClassifier(
                FrozenEstimator(clf), max_accuracy_drop=drop, random_state=options.seed
            )
            keep(f"{name}, offsets {drop}", fitted(corrected, offsets))
    for name, clf in variants(len(more), options, options.widths).items():
        if name in CONTROLS:
            keep(f"{name}, trained on the samples of the offsets too", fitted(clone(clf), more))
    with open(options.out, "w") as file:
        json.dump({"labels": y[test].tolist(), "predictions": predictions}, file)


def summary(paths):
    """Print accuracy and FVO of each variant: mean over seeds, and 95 % t intervals of the mean."""
    rows = {}
    for path in paths:
        with open(path) as file:
            result = json.load(file)
        labels = np.asarray(result["labels"])
        for name, predicted in result["predictions"].items():
            correct = pd.Series(np.asarray(predicted) == labels)
            by_group = correct.groupby(labels).mean()
            row = correct.mean(), by_group.max() - by_group.min(), by_group.min()
            rows.setdefault(name, []).append(row)
    floats = np.asarray(rows["float"])
    table = []
    for name, values in rows.items():
        values = np.asarray(values)
        n = len(values)
        half = stats.t.ppf(0.975, n - 1) * values.std(0, ddof=1) / np.sqrt(n)
        paired = values - floats
        half_paired = stats.t.ppf(0.975, n - 1) * paired.std(0, ddof=1) / np.sqrt(n)
        accuracy, fvo, worst = values.mean(0)
        table.append(
            {
                "variant": name,
                "accuracy": f"{accuracy:.3f} ± {half[0]:.3f}",
                "FVO": f"{fvo:.3f} ± {half[1]:.3f}",
                "worst group": f"{worst:.3f}",
                "accuracy − float": f"{paired[:, 0].mean():+.3f} ± {half_paired[0]:.3f}",
                "FVO − float": f"{paired[:, 1].mean():+.3f} ± {half_paired[1]:.3f}",
            }
        )
    print(f"{len(paths)} seeds, {N_TEST} people each; intervals over seeds")
    print(pd.DataFrame(table).to_markdown(index=False))


def main():
    """Run one seed, or print the table of several."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("folder", nargs="?", help="with the files of UTKFace")
    parser.add_argument("--seed", type=int, default=0, help="of the split and the training")
    parser.add_argument("--image-size", type=int, default=48)
    parser.add_argument("--widths", type=int, nargs="+", default=(16, 32, 64))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cache", help="folder that keeps the trained networks")
    parser.add_argument("--out", default="faces.json", help="file for labels and predictions")
    parser.add_argument("--summary", nargs="+", help="files of several seeds, to print their table")
    options = parser.parse_args()
    if options.summary:
        summary(options.summary)
    else:
        run(options)


if __name__ == "__main__":
    main()
