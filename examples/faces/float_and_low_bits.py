"""
How good is a small network on faces, and what do 8, 4, 3 and 2 bits take from whom?
====================================================================================

The paper trains on UTKFace. Its images are for research only and not part of this package: pass the
folder with the files, e.g. ``python examples/faces/float_and_low_bits.py ~/UTKFace --seed 0``. The
network has 78 thousand weights; augmentation, label smoothing and one cycle of learning rates make it
better than plain training does, and a better float network is what every comparison should begin with.
``--cache`` keeps the training.

Nothing here is tuned on the people that are measured: they are drawn before, and used once.
"""

import argparse
import time

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import train_test_split
from skorch.callbacks import LRScheduler
from torch.optim.lr_scheduler import OneCycleLR

from skqfair import QuantizedClassifier
from skqfair.datasets import load_utkface
from skqfair.displays import BitWidthDisplay
from skqfair.metrics import group_report, model_report
from skqfair.networks import ConvNet, ImageAugmentation, make_classifier

N_TRAIN, N_TEST = 4200, 1800


def float_net(n_train, *, widths=(16, 32, 64), max_epochs=40, batch_size=128):
    """Return the network and its recipe, not trained."""
    n_steps = max_epochs * -(-n_train // batch_size)
    no_decay = {"weight_decay": 0.0}  # norms and biases
    return make_classifier(
        ConvNet,
        module__widths=widths,
        augment=ImageAugmentation(),
        criterion__label_smoothing=0.05,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        optimizer__nesterov=True,
        optimizer__weight_decay=5e-4,
        optimizer__param_groups=[
            ("*norm*", no_decay),
            ("*stem.1.*", no_decay),
            ("*shortcut.1.*", no_decay),
            ("*bias", no_decay),
        ],
        lr=0.008,  # where the cycle begins
        callbacks=[
            (
                "cycle",
                LRScheduler(
                    OneCycleLR, max_lr=0.2, total_steps=n_steps, pct_start=0.15, step_every="batch"
                ),
            )
        ],
        max_epochs=max_epochs,
        batch_size=batch_size,
    )


def main():
    """Train, quantize, and measure on people held out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("folder", help="with the files of UTKFace")
    parser.add_argument("--seed", type=int, default=0, help="of the split and the training")
    parser.add_argument("--image-size", type=int, default=48)
    parser.add_argument("--cache", help="folder that keeps the trained network")
    parser.add_argument("--picture", help="file to save the picture to")
    options = parser.parse_args()

    faces = load_utkface(options.folder, image_size=options.image_size, n_jobs=-1)
    X, y, groups = (
        faces.data.astype(np.float32) / 255,
        faces.target,
        faces.sensitive_features["ethnicity"],
    )
    rows = train_test_split(
        np.arange(len(X)),
        train_size=N_TRAIN,
        test_size=N_TEST,
        stratify=y,
        random_state=options.seed,
    )
    train, test = rows

    predictions, sizes = {}, {}
    for bits, moved in ((None, False), *((b, m) for b in (8, 4, 3, 2) for m in (False, True))):
        start = time.perf_counter()
        clf = QuantizedClassifier(
            float_net(N_TRAIN),
            weight_bits=bits,
            recalibrate_batchnorm=moved,
            memory=options.cache,
            random_state=options.seed,
        )
        clf.fit(X[train], y[train])
        name = "float" if bits is None else f"{bits} bits" + ", BatchNorm moved" * moved
        predictions[name], sizes[name] = clf.predict(X[test]), clf.model_size_
        print(f"{name}: {time.perf_counter() - start:.0f} s, {clf.model_size_:,} bytes", flush=True)

    table = model_report(y[test], predictions, sensitive_features=groups[test], random_state=0)
    columns = ["accuracy", "fvo", "fvo_low", "fvo_high", "fvo_chance", "worst_group", "worst_accuracy"]
    with pd.option_context("display.width", 120):
        print(f"\nOn {N_TEST} people held out (seed {options.seed})")
        print(table[columns].round(3).to_string())
        print("\nThe float network by group")
        report = group_report(
            y[test], predictions["float"], sensitive_features=groups[test], random_state=0
        )
        print(report.iloc[:, :4].round(3).to_string())
    if options.picture:
        display = BitWidthDisplay.from_predictions(
            y[test], predictions, sensitive_features=groups[test], sizes=sizes, random_state=0
        )
        display.figure_.savefig(options.picture, dpi=120)


if __name__ == "__main__":
    main()
