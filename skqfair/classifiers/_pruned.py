"""Magnitude pruning of a network, to compare quantization with."""

from numbers import Integral, Real

from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from skorch.history import History

from skqfair.classifiers._all_or_nothing import all_or_nothing
from skqfair.classifiers._base import NetworkClassifier
from skqfair.classifiers._layer_bits import warn_of_float
from skqfair.exceptions import DivergedTrainingError
from skqfair.networks import LEARNING_RATE_RATIO, Tuning, fine_tune
from skqfair.quantization import SCOPES, HeldMasks, QuantizationScheme, float_size, prune, sparse_size

__all__ = ["PrunedClassifier"]

_NOTHING_QUANTIZED = QuantizationScheme(weight_bits=None)


class PrunedClassifier(NetworkClassifier):
    r"""Train a network, then set its smallest weights to zero.

    Magnitude pruning, the other way to make a network small: of n weights the
    :math:`\mathrm{round}(amount \cdot n)` of smallest magnitude become zero. ``model_size_`` is what a
    sparse storage takes, the positions of the non-zeros included. The weights are those that
    :class:`QuantizedClassifier` quantizes, so that the two can be compared at the same bytes, see
    :func:`skqfair.quantization.amount_for_size`.

    Parameters
    ----------
    estimator : skorch classifier, FrozenEstimator of one, TorchClassifier or None, default=None
        The network. With ``CrossEntropyLoss`` its module returns logits, with skorch's default
        ``NLLLoss`` probabilities, in a ``NeuralNetBinaryClassifier`` one logit. A net is cloned and
        trained; a frozen one, or a trained module in a :class:`~skqfair.networks.TorchClassifier`, is
        copied and not trained again (beware: scores on data that it was trained on leak). None is
        :func:`skqfair.networks.make_classifier`.
    amount : float, default=0.5
        Share of the weights that is set to zero, at least 0 and below 1.
    scope : {"global", "layer"}, default="global"
        One threshold for all weights together, or the same share of each.
    finetune_epochs : int, default=0
        Epochs of training after the pruning, in which the zeros stay zero. The net trains as it does,
        with its optimizer, iterators and callbacks (less checkpoints).
    finetune_lr : float or None, default=None
        Learning rate at the start of the fine-tuning; None is 0.3 times that of the net. It falls to 0
        along a cosine, unless the net has a schedule of its own.
    memory : str, path, joblib.Memory or None, default=None
        Caches the float training. The key covers data, hyper-parameters, seed and the code of the
        network.
    random_state : int, RandomState or None, default=None
        Seed of training and fine-tuning. An int makes fits bitwise repeatable at the same number of
        torch threads; None draws a fresh seed and bypasses ``memory``.
    verbose : int, default=0
        1 prints a line for each stage of the fit. The epochs are printed by the net's own ``verbose``.

    Attributes
    ----------
    estimator_ : skorch.NeuralNetClassifier
        The trained float net.
    module_ : torch.nn.Module
        The pruned module, in eval mode.
    float_classifier_ : QuantizedClassifier
        The same network in float as a fitted classifier: same X, labels and probabilities.
    classes_ : ndarray of shape (C,)
        Class labels.
    n_features_in_ : int
        ``X.shape[1]``.
    feature_names_in_ : ndarray of str
        Column names, where X had names.
    layer_bits_ : dict of str to int
        By parameter name; 32 for all, the weights stay in float.
    layer_amounts_ : dict of str to float
        Share of zeros in every weight that can be pruned, by parameter name.
    threshold_ : float or dict of str to float
        The largest magnitude that was set to zero; with ``scope="layer"`` of each weight, by
        parameter name.
    history_ : skorch.history.History
        History of the fine-tuning.
    model_size_ : int
        Bytes of the weights in the smallest of three layouts each, see
        :class:`skqfair.quantization.SparseTensor`, and all that is not pruned.
    compression_ratio_ : float
        Bytes in float32 over ``model_size_``.

    See Also
    --------
    QuantizedClassifier : Fewer bits for each weight, in the place of fewer weights.
    skqfair.quantization.amount_for_size : The amount at which a module fits a number of bytes.
    skqfair.metrics.change_report : What changed for each group, with intervals.

    Notes
    -----
    ``sensitive_features`` are checked by ``fit`` and not used otherwise: magnitude pruning does not
    know of groups. They are accepted so that one search can compare it with the quantized classifiers.

    References
    ----------
    Han, S., Pool, J., Tran, J. & Dally, W. J. (2015). Learning both weights and connections for
    efficient neural networks. NeurIPS.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skqfair import PrunedClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = PrunedClassifier(amount=0.9, random_state=0).fit(X, y)
    >>> zeros = {name: int((p == 0).sum()) for name, p in clf.module_.named_parameters()}
    >>> zeros["hidden0.weight"] + zeros["hidden1.weight"] + zeros["output.weight"]  # of 8,896
    8006
    >>> round(clf.compression_ratio_)
    8
    """

    _parameter_constraints = {
        **NetworkClassifier._parameter_constraints,
        "amount": [Interval(Real, 0, 1, closed="left")],
        "scope": [StrOptions(set(SCOPES))],
        "finetune_epochs": [Interval(Integral, 0, None, closed="left")],
        "finetune_lr": [Interval(Real, 0, None, closed="neither"), None],
    }

    def __init__(
        self,
        estimator=None,
        *,
        amount=0.5,
        scope="global",
        finetune_epochs=0,
        finetune_lr=None,
        memory=None,
        random_state=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.amount = amount
        self.scope = scope
        self.finetune_epochs = finetune_epochs
        self.finetune_lr = finetune_lr
        self.memory = memory
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    @all_or_nothing
    def fit(self, X, y=None, *, sensitive_features=None, sample_weight=None, **fit_params):
        """Train the network (unless it is frozen), prune it, and fine-tune what is left.

        Parameters
        ----------
        X : array-like of shape (n, d) or (n, ...), frame, sparse matrix, memmap, Dataset or dict
            Samples; for several inputs a dict of arrays by the names that ``forward`` takes.
        y : array-like of shape (n,), optional
            Labels of any type; None for a Dataset of torch whose items are (x, label).
        sensitive_features : array-like of shape (n,) or (n, k), Series, frame or names, optional
            Group of each sample; checked, but not used.
            A name or a list of names stands for columns of a frame X, which stay in it.
        sample_weight : array-like of shape (n,), optional
            Weights of the losses, in training and fine-tuning; only their ratios count.
        **fit_params
            Handed to the fit of the net, the same for every batch. ``epochs`` is for the float
            training; the fine-tuning has ``finetune_epochs``.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad input; the message names the argument, what came, and the remedy.
        skqfair.exceptions.ModuleOutputError
            If the outputs of the module do not fit its criterion.
        skqfair.exceptions.UntrainedNetworkError
            If a frozen net has never been trained.
        skqfair.exceptions.DivergedTrainingError
            If the loss of the fine-tuning becomes NaN or infinite.
        """
        trained = self._fit_float(
            X,
            y,
            sensitive_features,
            sample_weight,
            fit_params,
            before_training=_NOTHING_QUANTIZED.resolve,
        )
        warn_of_float(trained.network.module, None, "pruned")
        self._say("pruning")
        pruned = prune(trained.network.module, self.amount, scope=self.scope)
        history = self._fine_tune(trained, pruned, fit_params) if self.finetune_epochs else History()
        self._publish(trained)
        self.module_, self.history_, self.threshold_ = pruned.module.eval(), history, pruned.threshold
        self.layer_bits_ = _NOTHING_QUANTIZED.resolve(self.module_)
        parameters = dict(self.module_.named_parameters())
        self.layer_amounts_ = {
            name: float((parameters[name] == 0).double().mean()) for name in pruned.masks
        }
        self.model_size_ = sparse_size(self.module_)
        self.compression_ratio_ = float_size(self.module_) / self.model_size_
        return self

    def _fine_tune(self, trained, pruned, fit_params):
        """Train the weights that are left, and return the history."""
        self._say(f"fine-tuning for {self.finetune_epochs} epochs")
        masks, net = HeldMasks(pruned), trained.network.net
        options = {"lr": self.finetune_lr, "n_epochs": self.finetune_epochs, "seed": trained.seed}
        tuning = Tuning(masks, **options)
        remedy = (
            f"Lower finetune_lr (None: {LEARNING_RATE_RATIO} times that of the net, lr={net.lr}), or "
            "set finetune_epochs=0. With memory the float net is not trained again."
        )
        try:
            history, _ = fine_tune(
                net,
                tuning,
                trained.X,
                trained.y,
                sample_weight=trained.sample_weight,
                fit_params=fit_params,
            )
        except DivergedTrainingError as error:
            raise DivergedTrainingError(
                f"fine-tuning of the pruned network diverged. {remedy}"
            ) from error
        masks.finish()
        for name, parameter in pruned.module.named_parameters():
            if not parameter.isfinite().all():
                raise DivergedTrainingError(
                    f"fine-tuning diverged: the weight {name} is not finite at its end. {remedy}"
                )
        return history
