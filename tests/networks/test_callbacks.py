"""Callbacks and validation data of the user's, in folds and in the fine-tuning."""

import os

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed
from skorch.callbacks import Callback, Checkpoint, LRScheduler
from skorch.dataset import Dataset
from skorch.helper import predefined_split
from torch.optim import lr_scheduler
from torch.utils.data import TensorDataset

from skqfair import FairQATClassifier, PrunedClassifier, QuantizedClassifier
from skqfair.networks import make_classifier


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(240, 5)).astype(np.float32)
    return X, np.array(["no", "yes"])[(X[:, 0] + 0.3 * rng.normal(size=240) > 0).astype(int)]


def fit_in(folder, X, y, flip, epochs=6):
    """A fit whose first epoch is its best: later ones learn noise at a high rate."""
    os.chdir(folder)
    y = np.where(y == "yes", "no", "yes") if flip else y
    net = make_classifier(
        max_epochs=epochs,
        callbacks=[("best", Checkpoint(monitor=None if flip else "train_loss_best", load_best=True))],
    )
    clf = QuantizedClassifier(net, weight_bits=None, random_state=int(flip)).fit(X, y)
    return np.mean(clf.predict(X) == y)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_folds_at_the_same_time_load_their_own_checkpoints(data, tmp_path, monkeypatch, backend):
    """They have the same file names in the same folder, and opposite labels."""
    monkeypatch.chdir(tmp_path)
    run = Parallel(n_jobs=2, backend=backend)
    scores = run(delayed(fit_in)(tmp_path, *data, flip) for flip in (False, True) * 3)
    assert min(scores) > 0.8
    assert sorted(os.listdir(tmp_path)) == ["criterion.pt", "history.json", "optimizer.pt", "params.pt"]


def test_the_files_are_where_they_were_asked_for(data, tmp_path):
    X, y = data
    checkpoint = Checkpoint(dirname=tmp_path / "kept", f_params="weights.pt", monitor=None)
    clf = FairQATClassifier(
        make_classifier(max_epochs=2, callbacks=[checkpoint]), finetune_epochs=1, random_state=0
    ).fit(X, y)
    assert {"weights.pt", "history.json"} <= set(os.listdir(tmp_path / "kept"))
    assert not [name for name in os.listdir(tmp_path / "kept") if name.startswith(".fit")]
    stored = torch.load(tmp_path / "kept" / "weights.pt")
    for name, values in clf.estimator_.module_.state_dict().items():
        assert values.equal(stored[name])
    checkpoints = [c for _, c in clf.estimator_.callbacks_ if isinstance(c, Checkpoint)]
    assert [c.dirname for c in checkpoints] == [tmp_path / "kept"]


def test_a_fit_that_fails_leaves_no_folder(data, tmp_path):
    class Failing(Callback):
        def on_epoch_end(self, net, **kwargs):
            raise RuntimeError("stop")

    callbacks = [Checkpoint(dirname=tmp_path, monitor=None), Failing()]
    with pytest.raises(RuntimeError, match="stop"):
        QuantizedClassifier(make_classifier(callbacks=callbacks), random_state=0).fit(*data)
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".fit")]


@pytest.mark.parametrize("kind", [QuantizedClassifier, FairQATClassifier, PrunedClassifier])
@pytest.mark.parametrize("labels", [("no", "yes"), (1, 2), (True, False), (0, 1)])
def test_validation_data_have_the_labels_of_y(data, kind, labels):
    X, y = data
    y = np.where(y == "yes", labels[1], labels[0])
    split = predefined_split(Dataset(X[200:], y[200:]))
    net = make_classifier(max_epochs=4, lr=0.05, train_split=split)
    clf = kind(net, random_state=0).fit(X[:200], y[:200])
    best = max(clf.estimator_.history[:, "valid_acc"])
    assert best > 0.8
    positions = np.searchsorted(clf.classes_, y[200:])
    others = [Dataset(X[200:], positions)] if labels != (1, 2) else []
    if isinstance(labels[0], int):
        others.append(TensorDataset(torch.as_tensor(X[200:]), torch.as_tensor(y[200:])))
    for other in others:
        net.set_params(train_split=predefined_split(other))
        same = kind(net, random_state=0).fit(X[:200], y[:200])
        np.testing.assert_allclose(
            clf.estimator_.history[:, "valid_loss"], same.estimator_.history[:, "valid_loss"]
        )


def test_validation_data_of_other_labels(data):
    X, y = data
    net = make_classifier(train_split=predefined_split(Dataset(X, np.full(240, "maybe"))))
    with pytest.raises(ValueError, match=r"predefined_split have labels \['maybe'\] that y lacks"):
        QuantizedClassifier(net, random_state=0).fit(X, y)


class Rates(Callback):
    """Notes the learning rate of each step."""

    def on_batch_begin(self, net, training=False, **kwargs):
        if training:
            RATES.append(net.optimizer_.param_groups[0]["lr"])


RATES = []
CYCLE = {"policy": lr_scheduler.OneCycleLR, "max_lr": 0.2, "step_every": "batch"}
LINEAR = {"policy": lr_scheduler.LinearLR, "start_factor": 1.0, "end_factor": 0.01}


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize(
    ("options", "highest"),
    [
        ({**CYCLE, "total_steps": 40}, 0.06),
        ({**CYCLE, "epochs": 10, "steps_per_epoch": 4}, 0.06),
        ({"policy": lr_scheduler.CosineAnnealingLR, "T_max": 10}, 0.003),
        ({**LINEAR, "total_iters": 10}, 0.003),
    ],
)
def test_schedules_are_stretched_to_the_fine_tuning(data, options, highest, learned):
    X, y = data
    RATES.clear()
    callbacks = [("rates", Rates()), ("schedule", LRScheduler(**options))]
    net = make_classifier(max_epochs=10, batch_size=64, lr=0.01, callbacks=callbacks)
    FairQATClassifier(
        net,
        finetune_epochs=5,
        calibration="learned" if learned else "mse",
        random_state=0,
    ).fit(X, y)
    rates = RATES[40:]
    assert len(rates) == 20
    assert max(rates) == pytest.approx(highest, rel=0.05)
    assert rates[-1] < 0.35 * max(rates)
    assert np.argmax(rates) <= 8  # OneCycleLR rises for 30 % of the steps


def test_the_rate_that_is_asked_for_is_the_highest_of_a_cycle(data):
    X, y = data
    RATES.clear()
    cycle = LRScheduler(lr_scheduler.OneCycleLR, max_lr=0.2, total_steps=16, step_every="batch")
    net = make_classifier(max_epochs=4, batch_size=64, callbacks=[("r", Rates()), ("s", cycle)])
    FairQATClassifier(net, finetune_epochs=3, finetune_lr=0.01, random_state=0).fit(X, y)
    assert max(RATES[16:]) == pytest.approx(0.01, rel=0.05)
    assert len(RATES) == 16 + 12
