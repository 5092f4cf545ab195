"""The skorch classifier that feeds batches fast and carries sample weights."""

import inspect
from math import prod

import numpy as np
import torch
from skorch import NeuralNet, NeuralNetClassifier
from skorch.utils import to_tensor

from skqfair.networks._augmentation import augmented
from skqfair.networks._batches import BatchLoader, TensorData
from skqfair.networks._mlp import MLP
from skqfair.networks._training import TensorTraining, tensor_training, without_extras

__all__ = ["TensorNetClassifier", "make_classifier"]


class TensorNetClassifier(TensorTraining, NeuralNetClassifier):
    """A skorch classifier for arrays: fast batches, sample weights, sizes found at fit.

    Batches are slices of tensors, in the order in which skorch draws them, so that training gives the
    same network, bit for bit, in less time. Arguments of the module named ``n_features``,
    ``in_channels`` or ``n_classes`` that are not given are found from the data at fit.

    Parameters
    ----------
    module : torch module (class or instance)
        The network.
    *args
        Further positional arguments of :class:`skorch.NeuralNetClassifier`.
    augment : callable, default=None
        See :func:`make_classifier`.
    dataset, iterator_train, iterator_valid : types
        As in skorch, with tensor data and their loader as defaults.
    **kwargs
        Everything else that :class:`skorch.NeuralNetClassifier` takes.

    See Also
    --------
    make_classifier : The same with defaults for everything.
    """

    def __init__(
        self,
        module,
        *args,
        augment=None,
        dataset=TensorData,
        iterator_train=BatchLoader,
        iterator_valid=BatchLoader,
        **kwargs,
    ):
        super().__init__(
            module,
            *args,
            dataset=dataset,
            iterator_train=iterator_train,
            iterator_valid=iterator_valid,
            **kwargs,
        )
        self.augment = augment

    def __setattr__(self, name, value):
        """Set an attribute; ``augment`` may be a module that is no part of the net."""
        if name == "augment":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def train_step_single(self, batch, **fit_params):
        """Take a step on the augmented batch."""
        if self.augment is not None:
            x, y = batch
            inputs = to_tensor(without_extras(x), device=self.device)
            changed = augmented(self.augment, inputs)
            batch = ({**x, "X": changed} if inputs is not x and isinstance(x, dict) else changed), y
        return super().train_step_single(batch, **fit_params)

    def fit(self, X, y, sample_weight=None, **fit_params):
        """Train from scratch.

        Parameters
        ----------
        X : array of shape (n, ...)
            Inputs, in the dtype that the module takes.
        y : array of shape (n,)
            Classes 0..C-1.
        sample_weight : array of shape (n,), optional
            Weights of the losses; only their ratios count.
        **fit_params
            As in skorch: handed to every batch.

        Returns
        -------
        self
        """
        self.find_sizes(X, y)
        with tensor_training(self, sample_weight):
            return super().fit(X, y, **fit_params)

    def get_params(self, deep=True, **kwargs):
        """Return the parameters, without skorch's note of those that it is still to check."""
        params = super().get_params(deep=deep, **kwargs)
        return {name: value for name, value in params.items() if name != "_params_to_validate"}

    def initialize_module(self):
        """Create the module, with the sizes that were found and not given."""
        found = self.__dict__.get("sizes_", {})
        kwargs = {**found, **self.get_params_for("module")}
        if isinstance(self.module, torch.nn.Module) and not self.get_params_for("module"):
            kwargs = {}
        self.module_ = self.initialized_instance(self.module, kwargs)
        return self

    def find_sizes(self, X, y):
        """Find the sizes that the module wants from the data."""
        if not isinstance(self.module, type) or not hasattr(X, "shape"):
            return
        shape = X.shape[1:]
        sizes = {
            "n_features": prod(shape),
            "in_channels": shape[0] if len(shape) else 1,
            "n_classes": int(np.max(y) if not isinstance(y, torch.Tensor) else y.max()) + 1,
        }
        wanted = inspect.signature(self.module).parameters
        known = sizes if len(X.shape) > 1 else {"n_classes"}  # of several inputs none has the sizes
        self.sizes_ = {name: sizes[name] for name in known if name in wanted}


def make_classifier(
    module=MLP,
    *,
    criterion=torch.nn.CrossEntropyLoss,
    optimizer=torch.optim.Adam,
    lr=0.003,
    max_epochs=20,
    batch_size=128,
    train_split=None,
    verbose=0,
    iterator_train__shuffle=True,
    augment=None,
    **kwargs,
):
    """Return a skorch classifier with sensible defaults, the one behind ``estimator=None``.

    Parameters
    ----------
    module : type or instance of torch.nn.Module, default=MLP
        The network. Its arguments ``n_features``, ``in_channels`` and ``n_classes`` are found at fit.
    criterion, optimizer, lr, max_epochs, batch_size, train_split, verbose : object
        As in skorch. All samples are used for training; ``verbose=1`` prints each epoch.
    iterator_train__shuffle : bool, default=True
        Shuffle the samples in each epoch.
    augment : Module or callable, default=None
        ``(batch) -> batch``, random changes of the inputs in training and fine-tuning; a tensor of the
        same shape and dtype, on the device of the net. Not applied in validation, prediction,
        calibration and diagnostics. :class:`ImageAugmentation` is one for images.
    **kwargs
        Further parameters of :class:`skorch.NeuralNetClassifier`, e.g. ``module__hidden_sizes``,
        ``callbacks`` or ``device``.

    Returns
    -------
    TensorNetClassifier
        Not trained.

    Raises
    ------
    TypeError
        If ``module`` is no module, or ``augment`` cannot be called. In a fit, ``augment`` that changes
        shape or dtype, or makes values that are not finite, is a ValueError.

    Notes
    -----
    A module that was trained without skorch is a :class:`TorchClassifier`.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skqfair import QuantizedClassifier
    >>> from skqfair.networks import make_classifier
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> net = make_classifier(module__hidden_sizes=(16,), lr=0.01)
    >>> clf = QuantizedClassifier(net, weight_bits=4, random_state=0).fit(X, y)
    >>> clf.module_.hidden0
    Linear(in_features=4, out_features=16, bias=True)
    """
    if not callable(module):
        raise TypeError(
            f"module must be a torch module (class or instance), got {module!r}; the package has "
            "skqfair.networks.MLP and ConvNet."
        )
    own = set(inspect.signature(module).parameters) if isinstance(module, type) else set()
    known = inspect.signature(NeuralNetClassifier.__init__).parameters
    known = known.keys() | inspect.signature(NeuralNet.__init__).parameters.keys()
    for name in sorted(set(kwargs) & own - known):
        raise TypeError(
            f"{name} is an argument of {module.__name__}, not of the classifier: pass module__{name}."
        )
    if augment is not None and not callable(augment):
        raise TypeError(
            f"augment must be a function or module, batch -> batch, got {augment!r}; for images pass "
            "skqfair.networks.ImageAugmentation()."
        )
    return TensorNetClassifier(
        module,
        criterion=criterion,
        optimizer=optimizer,
        lr=lr,
        max_epochs=max_epochs,
        batch_size=batch_size,
        train_split=train_split,
        verbose=verbose,
        iterator_train__shuffle=iterator_train__shuffle,
        augment=augment,
        **kwargs,
    )
