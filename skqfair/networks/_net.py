"""The skorch classifier that feeds batches fast and carries sample weights."""

import inspect
import weakref
from contextlib import contextmanager
from math import prod

import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from skorch.dataset import Dataset
from torch.utils.data import DataLoader, Subset, default_collate

from skqfair.networks._batches import BatchLoader, TensorData, WeightedCollate, WeightedData
from skqfair.networks._mlp import MLP

__all__ = ["TensorNetClassifier", "make_classifier", "prediction_view", "tensor_training"]


# The submodules of each module in training, so that its mode is checked without a walk over the tree.
_SUBMODULES = weakref.WeakKeyDictionary()


class _TensorTraining:
    """What is added to a skorch classifier: sample weights in the batch, and less work around it."""

    def __reduce__(self):
        """Pickle as the net's own class, also while it is extended."""
        own = type(self).__dict__.get("_extended_class", type(self))
        return object.__new__, (own,), self.__getstate__()

    def notify(self, method_name, **cb_kwargs):
        """Call the callbacks, less those that inherit a method which does nothing."""
        if super().notify.__func__ is not NeuralNetClassifier.notify:
            return super().notify(method_name, **cb_kwargs)
        getattr(self, method_name)(self, **cb_kwargs)
        nothing = getattr(Callback, method_name, None)
        for _, callback in self.callbacks_:
            if getattr(type(callback), method_name, None) is not nothing:
                getattr(callback, method_name)(self, **cb_kwargs)

    def _set_training(self, training=True):
        """Switch modules between training and evaluation, where they are not there already."""
        for name in self._modules + self._criteria:
            module = getattr(self, name + "_")
            if not isinstance(module, torch.nn.Module):
                continue
            below = _SUBMODULES.get(module)
            if below is None:
                below = _SUBMODULES[module] = [m for m in module.modules() if m is not module]
            if module.training is not training or any(m.training is not training for m in below):
                module.train(training)

    def get_dataset(self, X, y=None):
        """Return the dataset, with weights while training with them."""
        dataset = super().get_dataset(X, y)
        weights = self.__dict__.get("sample_weight_")
        return dataset if weights is None or y is None else WeightedData(dataset, weights)

    def get_iterator(self, dataset, training=False):
        """Return the loader; a collate function of the user's gets the items without their weights."""
        iterator = super().get_iterator(dataset, training=training)
        inner = dataset.dataset if isinstance(dataset, Subset) else dataset
        collate = getattr(iterator, "collate_fn", default_collate)
        if isinstance(inner, WeightedData) and collate is not default_collate:
            iterator.collate_fn = WeightedCollate(collate)
        return iterator

    def infer(self, x, **fit_params):
        """Call the module on a batch, less its weights."""
        if isinstance(x, dict) and "sample_weight" in x:
            x = x["X"]
        return super().infer(x, **fit_params)

    def get_loss(self, y_pred, y_true, X=None, training=False, **kwargs):
        r"""Return the loss of a batch; with weights :math:`\sum_i w_i \ell_i / \sum_i c_i`.

        :math:`c_i` is what sample i counts in the criterion's own mean: its class weight, 1 if there
        are none, 0 for an ignored class.
        """
        if not (isinstance(X, dict) and "sample_weight" in X):
            return super().get_loss(y_pred, y_true, X, training=training, **kwargs)
        criterion = self.criterion_
        reduction, criterion.reduction = criterion.reduction, "none"
        try:
            losses = super().get_loss(y_pred, y_true, X["X"], training=training, **kwargs)
        finally:
            criterion.reduction = reduction
        if training:
            self.__dict__["sample_weight_used_"] = True
        weight = X["sample_weight"].to(losses)
        if losses.shape != weight.shape:
            raise ValueError(
                f"sample_weight cannot be applied: get_loss of {type(self).__name__} returns shape "
                f"{tuple(losses.shape)} for a batch of {len(weight)}, even with the criterion's "
                "reduction='none'; return one loss for each sample, or fit without sample_weight."
            )
        if reduction == "sum":
            return (weight * losses).sum()
        if type(criterion) not in (torch.nn.CrossEntropyLoss, torch.nn.NLLLoss):
            return (weight * losses).mean()
        y_true = y_true.to(losses.device)
        share = (y_true != criterion.ignore_index).to(losses)
        if criterion.weight is not None:
            share = share * criterion.weight[y_true.clamp(0, len(criterion.weight) - 1)]
        return (weight * losses).sum() / share.sum()


class TensorNetClassifier(_TensorTraining, NeuralNetClassifier):
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
            "n_classes": int(torch.as_tensor(y).max()) + 1,
        }
        wanted = inspect.signature(self.module).parameters
        self.sizes_ = {name: size for name, size in sizes.items() if name in wanted}


_EXTENDED = weakref.WeakKeyDictionary()
_DEFAULTS = {"dataset": Dataset, "iterator_train": DataLoader, "iterator_valid": DataLoader}
_OURS = {"dataset": TensorData, "iterator_train": BatchLoader, "iterator_valid": BatchLoader}


def _extended(own):
    """Return the class with :class:`_TensorTraining` in front, itself if it is there already."""
    if issubclass(own, _TensorTraining):
        return own
    if own not in _EXTENDED:
        members = {"_extended_class": own, "__doc__": own.__doc__, "__module__": own.__module__}
        _EXTENDED[own] = type(own.__name__, (_TensorTraining, own), members)
    return _EXTENDED[own]


@contextmanager
def tensor_training(net, sample_weight=None):
    """Let any skorch classifier weight its losses, and take batches from tensors, inside the block.

    The net's class is extended for that time and given back, so that methods that its own class
    overrides still run. A net with a dataset or iterators of its own keeps them.

    Parameters
    ----------
    net : NeuralNetClassifier
        Trained inside the block.
    sample_weight : array of shape (n,), optional
        Weights, scaled here to mean 1.

    Yields
    ------
    NeuralNetClassifier
        The same net.
    """
    own, before = type(net), {name: net.__dict__[name] for name in _DEFAULTS}
    net.__class__ = _extended(own)
    if before == _DEFAULTS:
        net.__dict__.update(_OURS)
    if sample_weight is not None:
        weights = torch.as_tensor(sample_weight, dtype=torch.float64)
        net.__dict__["sample_weight_"] = (weights / weights.mean()).float()
    try:
        yield net
        if sample_weight is not None and "sample_weight_used_" not in net.__dict__:
            raise ValueError(
                f"sample_weight had no effect: {own.__name__} computes its loss without get_loss; call "
                "self.get_loss(y_pred, y, X=Xi, training=True) in its train_step_single, or fit without "
                "sample_weight."
            )
    finally:
        if sample_weight is not None:
            net.__dict__.pop("sample_weight_", None)
            net.__dict__.pop("sample_weight_used_", None)
        net.__dict__.update(before)
        net.__class__ = own


def prediction_view(net, module):
    """Return a net that shares all with ``net`` but predicts with ``module``, in fast batches.

    Parameters
    ----------
    net : NeuralNetClassifier
        A trained net; not changed, and not copied.
    module : torch.nn.Module
        The module to predict with.
    """
    view = object.__new__(_extended(type(net)))
    view.__dict__.update(net.__dict__)
    view.__dict__["module_"] = module
    if all(net.__dict__[name] is default for name, default in _DEFAULTS.items()):
        view.__dict__.update(_OURS)
    return view


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
        If ``module`` is no module.

    Notes
    -----
    For a module that was trained without skorch, pass the instance and ``max_epochs=0``: it keeps its
    weights, and is only quantized.

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
        **kwargs,
    )
