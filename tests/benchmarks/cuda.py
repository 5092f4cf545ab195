"""Seconds on a CUDA device: an epoch beside a loop by hand, fine-tuning, widths, predictions.

python tests/benchmarks/cuda.py [--device cpu --images 64 --channels 4 8]
"""

import argparse
import time

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator

from skqfair import FairQATClassifier, QuantizedClassifier
from skqfair.networks import ConvNet, TorchClassifier, make_classifier

BATCH = 128


def network(channels):
    torch.manual_seed(0)
    return ConvNet(3, 10, widths=channels, blocks_per_stage=2)


def wait(device):
    if device != "cpu":
        torch.cuda.synchronize()


def seconds(device, function, repeats=3):
    """The least of some runs, after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        wait(device)
        start = time.perf_counter()
        function()
        wait(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def by_hand(module, X, y, device, *, on_device):
    """An epoch of a plain loop; with the data on the device, or a copy of each batch."""
    module = module.to(device).train()
    optimizer, loss = torch.optim.Adam(module.parameters(), lr=3e-3), torch.nn.CrossEntropyLoss()
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    if on_device:
        X, y = X.to(device), y.to(device)

    def epoch():
        order = torch.randperm(len(X), device=X.device)
        for rows in order.split(BATCH):
            optimizer.zero_grad()
            loss(module(X[rows].to(device)), y[rows].to(device)).backward()
            optimizer.step()

    return epoch


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--images", type=int, default=8192)
    parser.add_argument("--channels", type=int, nargs="+", default=[64, 128, 256, 512])
    options = parser.parse_args()
    channels = tuple(options.channels)
    device, rng = options.device, np.random.default_rng(0)
    X = rng.normal(size=(options.images, 3, 32, 32)).astype(np.float32)
    y = np.arange(options.images) % 10
    trained = FrozenEstimator(TorchClassifier(network(channels).to(device), n_classes=10, device=device))
    net = make_classifier(
        ConvNet,
        module__widths=channels,
        module__blocks_per_stage=2,
        max_epochs=1,
        batch_size=BATCH,
        device=device,
    )

    def quantize(*widths):
        for bits in widths:
            QuantizedClassifier(trained, weight_bits=bits, random_state=0).fit(X, y)

    def tune(epochs):
        return FairQATClassifier(trained, finetune_epochs=epochs, random_state=0).fit(X, y)

    fitted = QuantizedClassifier(trained, weight_bits=4, random_state=0).fit(X, y)
    module = network(channels).to(device).eval()
    resident = torch.from_numpy(X).to(device)

    def alone():
        with torch.no_grad():
            return [module(part) for part in resident.split(BATCH)]

    measured = {
        "epoch by hand, batches copied": seconds(
            device, by_hand(network(channels), X, y, device, on_device=False)
        ),
        "epoch by hand, data on the device": seconds(
            device, by_hand(network(channels), X, y, device, on_device=True)
        ),
        "fit of one float epoch, 8 bits": seconds(
            device, lambda: QuantizedClassifier(net, random_state=0).fit(X, y), 1
        ),
        "epoch of fine-tuning at 4 bits": seconds(device, lambda: tune(2), 1)
        - seconds(device, lambda: tune(1), 1),
        "one width": seconds(device, lambda: quantize(4), 1),
        "five widths": seconds(device, lambda: quantize(8, 6, 4, 3, 2), 1),
        "predictions of the module alone": seconds(device, alone),
        "predictions of the classifier": seconds(device, lambda: fitted.predict(X)),
    }
    name = torch.cuda.get_device_name() if device != "cpu" else "CPU"
    print(f"{name}, torch {torch.__version__}, {options.images} images, batches of {BATCH}")
    for what, time_ in measured.items():
        print(f"{what:<36}{time_:9.3f} s")


if __name__ == "__main__":
    main()
