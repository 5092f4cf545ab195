"""
Which rounding, which mitigation, at which price? On faces
==========================================================

What do few bits take from whom on UTKFace (target and groups: ethnicity), what gives it back, and what
brings the gap below that of the float network? Pass the folder with the files, e.g.
``python examples/faces/fairer_low_bits.py ~/UTKFace --seed 0 --out runs/16-0.npz``, once for each seed,
then ``--summary runs/*.npz`` for the figures of each seed, which ``draw.py`` shows.

Of 6,000 people 4,200 train, 900 fit the offsets and 900 are measured: the latter are used for neither
training nor selection. Controls train on the 900 of the offsets too, so that every variant has had the
same labels.
"""

import argparse
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from float_and_low_bits import float_net
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split

from skqfair import FairOffsetClassifier, FairQATClassifier, QuantizedClassifier
from skqfair.datasets import load_utkface
from skqfair.metrics import group_report

N_TRAIN, N_OFFSETS, N_TEST = 4200, 900, 900
DROPS = (0.01, 0.02, 0.03)


def rounded(options, n_train):
    """Return unfitted classifiers by name, none of them fine-tuned; all round the same float network."""
    shared = shared_parameters(options, n_train)
    squares, moved = {"rounding": "least_squares"}, {"rounding": "gptq", "recalibrate_batchnorm": True}
    quantized = partial(QuantizedClassifier, **shared)
    return {
        "float": quantized(weight_bits=None),
        **{f"{bits} bits, nearest": quantized(weight_bits=bits) for bits in (8, 4, 3, 2)},
        **{f"{bits} bits, least squares": quantized(weight_bits=bits, **squares) for bits in (3, 2, 4)},
        **{f"{bits} bits, GPTQ": quantized(weight_bits=bits, **moved) for bits in (3, 2)},
        "W4A4, nearest": quantized(weight_bits=4, activation_bits=4),
        "W4A4, least squares": quantized(weight_bits=4, activation_bits=4, **squares),
        "W4A8, least squares": quantized(weight_bits=4, activation_bits=8, **squares),
        "2 bits, ends 8, least squares": quantized(weight_bits=2, layer_bits="first_last_8", **squares),
    }


def tuned(options, n_train):
    """Return unfitted classifiers by name that are fine-tuned."""
    shared = {"finetune_epochs": options.epochs // 2, "finetune_lr": 0.05}
    shared |= shared_parameters(options, n_train)
    soft = {"distillation": 0.9, "temperature": 2.0, "rounding": "least_squares"}
    return {
        "3 bits, fine-tuned": FairQATClassifier(weight_bits=3, **shared),
        "2 bits, fine-tuned": FairQATClassifier(weight_bits=2, **shared),
        "3 bits, distilled": FairQATClassifier(weight_bits=3, **soft, **shared),
        "2 bits, distilled": FairQATClassifier(weight_bits=2, **soft, **shared),
        "3 bits, FairQuant's rule": FairQATClassifier(
            layer_bits="fairquant", bit_budget=3, gap_penalty=0.5, **shared
        ),
        "3 bits, loss weights and gap penalty": FairQATClassifier(
            weight_bits=3, mitigation_weight=0.5, gap_penalty=0.5, **shared
        ),
    }


def shared_parameters(options, n_train, seed=0):
    """Return what the classifiers have in common."""
    net = float_net(n_train, widths=options.widths, max_epochs=options.epochs)
    net.set_params(device=options.device, verbose=0)
    return {"estimator": net, "random_state": options.seed + seed, "memory": options.cache}


def fitted(clf, X, y):
    """Return the classifier, fitted with the target as the group, without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return clf.fit(X, y, sensitive_features=y)


def run(options):
    """Fit all variants of one seed and write their probabilities for those who are measured."""
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
    kept = {"y_offsets": y[offsets].astype(str), "y_test": y[test].astype(str)}

    def keep(name, clf):
        kept[f"offsets/{name}"] = clf.predict_proba(X[offsets])
        kept[f"test/{name}"] = clf.predict_proba(X[test])
        kept[f"bytes/{name}"] = clf.model_size_
        np.savez_compressed(options.out, **kept)
        accuracy = (clf.predict(X[test]) == y[test]).mean()
        print(f"{options.out}: {name}: accuracy {accuracy:.3f}, {clf.model_size_:,} bytes", flush=True)

    for name, clf in {**rounded(options, N_TRAIN), **tuned(options, N_TRAIN)}.items():
        keep(name, fitted(clf, X[train], y[train]))
    teachers = [
        FrozenEstimator(
            fitted(
                QuantizedClassifier(weight_bits=None, **shared_parameters(options, N_TRAIN, seed)),
                X[train],
                y[train],
            )
        )
        for seed in (0, 100, 200)
    ]
    for bits in (3, 2):
        clf = tuned(options, N_TRAIN)[f"{bits} bits, distilled"].set_params(teacher=teachers)
        keep(f"{bits} bits, distilled from three", fitted(clf, X[train], y[train]))
    more = np.concatenate([train, offsets])
    controls = {**rounded(options, len(more)), **tuned(options, len(more))}
    for name in ("float", "3 bits, least squares", "3 bits, distilled"):
        clf = fitted(controls[name], X[more], y[more])
        keep(f"{name}, trained on the samples of the offsets too", clf)


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose X are the probabilities."""

    def __init__(self, classes_):
        self.classes_ = classes_

    def fit(self, X, y):
        """There is nothing to fit."""
        return self

    def predict_proba(self, X):
        """Return X."""
        return X


def summary(paths, out):
    """Write accuracy, FVO and worst group of each variant and seed, with and without offsets."""
    rows = []
    for path in paths:
        kept, (width, seed) = np.load(path), Path(path).stem.split("-")
        y_offsets, y_test = kept["y_offsets"], kept["y_test"]
        classes = np.unique(y_test)
        predicted = {}
        for name in (key.removeprefix("test/") for key in kept.files if key.startswith("test/")):
            probabilities = kept[f"test/{name}"]
            predicted[name, None] = classes[probabilities.argmax(1)]
            for drop in DROPS:
                clf = FairOffsetClassifier(
                    FrozenEstimator(Given(classes)), max_accuracy_drop=drop, random_state=0
                )
                clf = fitted(clf, kept[f"offsets/{name}"], y_offsets)
                predicted[name, drop] = clf.predict(probabilities)
        for (name, drop), labels in predicted.items():
            report = group_report(y_test, labels, sensitive_features=y_test, random_state=0)
            rows.append(
                {
                    "width": width,
                    "seed": seed,
                    "variant": name,
                    "drop": drop,
                    "bytes": int(kept[f"bytes/{name}"]),
                    "accuracy": (labels == y_test).mean(),
                    "fvo": report.attrs["fvo"],
                    "worst_accuracy": report["accuracy"].min(),
                }
            )
    pd.DataFrame(rows).round(5).to_csv(out, index=False)


def main():
    """Run one seed, or write the figures of several."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("folder", nargs="?", help="with the files of UTKFace")
    parser.add_argument("--seed", type=int, default=0, help="of the split and the training")
    parser.add_argument("--image-size", type=int, default=48)
    parser.add_argument("--widths", type=int, nargs="+", default=(16, 32, 64))
    parser.add_argument("--epochs", type=int, default=40, help="of the float training")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cache", help="folder that keeps the trained networks")
    parser.add_argument("--out", help="file for the probabilities, WIDTH-SEED.npz")
    parser.add_argument("--summary", nargs="+", help="such files, to print their figures as CSV")
    options = parser.parse_args()
    if options.summary:
        summary(options.summary, options.out or sys.stdout)
    else:
        options.out = options.out or f"{options.widths[0]}-{options.seed}.npz"
        run(options)


if __name__ == "__main__":
    main()
