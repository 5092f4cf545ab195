"""A training epoch and prediction on 20,000 x 100 at batch 128, against a loop written by hand."""

import numpy as np
import torch
from harness import Row, interleaved
from skorch import NeuralNetClassifier
from torch import nn

from skqfair import QuantizedClassifier
from skqfair.networks import MLP, make_classifier

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20_000, 100)).astype(np.float32)
Y = (X[:, :5].sum(1) > 0).astype(np.int64)
TITLE = "Training and prediction: 20,000 x 100, batch 128, Adam, MLP {} "


def hand_epoch(hidden):
    module = MLP(100, 2, hidden_sizes=hidden)
    optimizer, loss = torch.optim.Adam(module.parameters()), nn.CrossEntropyLoss()
    data, target = torch.as_tensor(X), torch.as_tensor(Y)
    module.train()
    for rows in torch.randperm(len(data)).split(128):
        optimizer.zero_grad()
        loss(module(data[rows]), target[rows]).backward()
        optimizer.step()
    return module


def hand_predict(module):
    module.eval()
    with torch.no_grad():
        return torch.cat([module(batch) for batch in torch.as_tensor(X).split(128)]).softmax(1).numpy()


def tables():
    """Yield a title and rows for two sizes of network."""
    for hidden in ((128, 64), (256, 256)):
        options = {"module__hidden_sizes": hidden, "max_epochs": 1, "lr": 0.001}
        ours = make_classifier(**options)
        plain = NeuralNetClassifier(
            MLP,
            module__n_features=100,
            module__n_classes=2,
            criterion=nn.CrossEntropyLoss,
            optimizer=torch.optim.Adam,
            train_split=None,
            verbose=0,
            batch_size=128,
            iterator_train__shuffle=True,
            **options,
        )
        wrapped = QuantizedClassifier(plain, weight_bits=8, calibration="minmax", random_state=0)
        train = interleaved(
            {
                "hand": lambda h=hidden: hand_epoch(h),
                "ours": lambda n=ours: n.fit(X, Y),
                "weighted": lambda n=ours: n.fit(X, Y, sample_weight=np.ones(len(X))),
                "wrapped": lambda c=wrapped: c.fit(X, Y),
                "skorch": lambda n=plain: n.fit(X, Y),
            },
            15,
        )
        module = hand_epoch(hidden)
        predict = interleaved(
            {
                "hand": lambda m=module: hand_predict(m),
                "ours": lambda c=wrapped: c.predict_proba(X),
                "skorch": lambda n=plain: n.predict_proba(X),
            },
            25,
        )
        rows = [
            ("epoch, `make_classifier()`", train, "ours", "1.10"),
            ("epoch, with sample weights", train, "weighted", ""),
            (
                "whole `QuantizedClassifier.fit` of one epoch around a plain skorch net",
                train,
                "wrapped",
                "",
            ),
            ("`QuantizedClassifier.predict_proba`", predict, "ours", "1.25"),
        ]
        yield (
            TITLE.format("-".join(map(str, (100, *hidden, 2)))),
            [
                Row(
                    f"{what} / by hand",
                    f"{times.ratio(name, 'hand'):.2f}",
                    f"<= {target}" if target else "",
                    f"plain skorch {times.ratio('skorch', 'hand'):.2f}",
                )
                for what, times, name, target in rows
            ],
        )
