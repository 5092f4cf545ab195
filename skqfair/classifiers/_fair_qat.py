"""Quantization-aware training with mitigations."""

from functools import partial
from numbers import Integral, Real

from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from skorch.history import History

from skqfair.classifiers._all_or_nothing import all_or_nothing
from skqfair.classifiers._base import NetworkClassifier, observe
from skqfair.classifiers._layer_bits import (
    BIT_CONSTRAINTS,
    build_scheme,
    check_layer_bits,
    warn_of_float,
)
from skqfair.classifiers._mitigations import (
    Validation,
    bound_report,
    build_penalties,
    check_mitigations,
    expected_draws,
    hold_out,
    loss_weights,
)
from skqfair.classifiers._rounding import start_from_codes
from skqfair.classifiers._teachers import build_distillation, check_teacher
from skqfair.exceptions import DivergedTrainingError
from skqfair.mitigation import BALANCES, SAMPLINGS, cell_report, make_cells
from skqfair.networks import Tuning, fine_tune
from skqfair.quantization import CALIBRATIONS, FakeQuantization, plain_copy

__all__ = ["FairQATClassifier"]


class FairQATClassifier(NetworkClassifier):
    r"""Train a network, then fine-tune it with fake quantization so that groups lose less.

    Mixed-precision quantization-aware training with dataset sampling and weighted losses. The float
    net is trained first (once for a whole grid, with ``memory``); then its weights are fine-tuned
    while every step runs on the quantized ones, :math:`\hat w = S \cdot T(w)`, and the gradient goes
    straight through the rounding. All mitigations act in the fine-tuning only.

    Parameters
    ----------
    estimator : skorch classifier, FrozenEstimator of one, TorchClassifier or None, default=None
        The network, as in :class:`QuantizedClassifier`. Its optimizer, callbacks, ``train_split`` and
        iterators serve the fine-tuning too; but callbacks that set, load or store weights
        (``Initializer``, ``LoadInitState``, ``Checkpoint``, ``TrainEndCheckpoint``) act in the float
        training only, so that their files hold the float net.
    weight_bits : int or None, default=4
        Bits of the weights, 2..16; None leaves them in float: the control that shows what the
        mitigation does without quantization.
    activation_bits : int or None, default=None
        Bits of the inputs of Linear, Conv and recurrent layers, 2..16; None leaves them in float.
    layer_bits : dict of str to (int, None or sequence of int), str or None, default=None
        Patterns to bits, or the rule "auto", "fairquant" or "first_last_8", as in
        :class:`QuantizedClassifier`.
    bit_budget : float or None, default=None
        Mean bits per weight, for "auto" (2 to 8) and "fairquant".
    granularity : {"per_channel", "per_tensor"} or ("per_group", n), default="per_channel"
        What shares a scale: a channel, a weight, or n inputs of a channel; :class:`QuantizedClassifier`.
    calibration_size : int, default=1024
        Training samples used for activation ranges and sensitivities, equally many of each group.
    calibration : {"minmax", "percentile", "mse", "learned"}, default="mse"
        How scales are found: from the largest magnitude, its 99.99th percentile, or the clip with the
        least squared error, estimated anew at the start of each epoch; or "learned": trained with the
        weights (LSQ).
    finetune_epochs : int, default=5
        Epochs of fine-tuning; 0 is post-training quantization.
    finetune_lr : float or None, default=None
        Learning rate at the start of the fine-tuning; None is 0.3 times that of the net. It falls to
        0 along a cosine, unless the net has an ``LRScheduler`` of its own. Parameter groups of the
        optimizer keep their ratios.
    sampling : {"balanced", "oversample", "undersample"} or None, default=None
        "balanced" draws every cell equally often, n draws an epoch, with replacement; "oversample"
        repeats samples of smaller cells up to the largest; "undersample" takes as many of each cell
        as the smallest has, drawn anew each epoch.
    mitigation_weight : float, default=0.0
        :math:`\lambda` in [0, 1]: a sample of cell a has loss weight :math:`(n / (K n_a))^\lambda`,
        scaled to mean 1, with K cells. 0 leaves the losses as they are, 1 lets cells count equally.
    balance : {"group", "group_class", "class"}, default="group"
        The cells that ``sampling`` and ``mitigation_weight`` balance.
    gap_penalty : float, default=0.0
        :math:`\mu`: adds :math:`\mu` times the difference of the largest and the smallest mean group
        loss in the batch.
    accuracy_bound : float or None, default=None
        :math:`\epsilon`: no group may lose more than this accuracy against the float net, on the
        training data; enforced with Lagrange multipliers, reported in ``accuracy_bound_``.
    distillation : float, default=0.0
        :math:`\alpha` in [0, 1], the weight of a teacher's soft labels: the loss of a sample is
        :math:`(1 - \alpha) CE + \alpha T^2 KL(q \| p)`, with the probabilities of teacher and student
        to the power 1/T. The penalties act on the losses of the labels alone.
    temperature : float, default=2.0
        T.
    teacher : FrozenEstimator of a fitted classifier, TorchClassifier, list of them, default=None
        None is the own float net. Others have the same classes and take the same X; of several the mean
        of their probabilities is taught. With ``augment`` of the net they are asked anew for every
        batch. One that was trained on other samples brings these in: compare like with like.
    validation_fraction : float or None, default=None
        Part of the training data, drawn from each class of each group, that is neither trained nor
        fine-tuned on; the epoch with the least mean of the group losses there is kept. A frozen net
        may have seen it.
    rounding : {"nearest", "gptq", "least_squares"}, default="nearest"
        The start of the fine-tuning: the float weights, or the codes of that rule; then fewer epochs do.
    activation_scheme : {"symmetric", "affine"}, default="symmetric"
        As in :class:`QuantizedClassifier`; a zero point stays what it is at the start.
    activation_calibration : {"minmax", "percentile", "mse"} or None, default=None
        How the ranges of activations are found; None is as ``calibration``.
    quantize_parameters : dict of str to int, default=None
        Weights to quantize beside those of Linear, Conv, recurrent, Embedding and attention modules:
        patterns as in ``layer_bits`` on parameters that a module uses in its own way, to the axis of
        their output channels, e.g. ``{"*.c_attn.weight": 1}``. A warning names what stays in float.
    memory : str, path, joblib.Memory or None, default=None
        Caches the float training, the sensitivities and the teacher's outputs.
    random_state : int, RandomState or None, default=None
        Seed. An int makes fits bitwise repeatable at the same number of torch threads; None draws a
        fresh seed and bypasses ``memory``.
    verbose : int, default=0
        1 prints a line for each stage of the fit. The epochs are printed by the net's own ``verbose``.

    Attributes
    ----------
    estimator_ : skorch.NeuralNetClassifier
        The trained float net.
    module_ : torch.nn.Module
        The quantized module, in eval mode.
    latent_module_ : torch.nn.Module
        The fine-tuned float weights behind ``module_``.
    history_ : skorch.history.History
        History of the fine-tuning.
    best_epoch_ : int or None
        The epoch that was kept, from 1, with ``validation_fraction``.
    cell_weights_ : DataFrame
        By cell: ``count`` of samples, ``draws`` in an epoch, mean ``loss_weight``, and
        ``effective_weight`` of a sample relative to the average one.
    accuracy_bound_ : DataFrame
        By group: accuracy on the training data of the float and of the quantized net, the drop, and
        the final multiplier. Only with ``accuracy_bound``.
    float_classifier_ : QuantizedClassifier
        The same network in float as a fitted classifier: same X, labels and probabilities.
    classes_ : ndarray of shape (C,)
        Class labels.
    n_features_in_ : int
        ``X.shape[1]``.
    feature_names_in_ : ndarray of str
        Column names, where X had names.
    layer_bits_ : dict of str to (int or ndarray of int)
        Bits of every parameter of two or more dimensions, by name; 32 where it stays in float.
    model_size_ : int
        Bytes of packed codes, scales and all that stays in float.
    compression_ratio_ : float
        Bytes in float32 over ``model_size_``.
    quantized_weights_ : dict of str to QuantizedTensor
        Codes and scales.

    See Also
    --------
    QuantizedClassifier : Quantization without fine-tuning.
    skqfair.metrics.change_report : What changed for each group, with intervals.

    Notes
    -----
    A gap is measured on the data at hand, with its interval; no setting guarantees fairness. Compare
    with the float net that had the same mitigation (``weight_bits=None``), to see what quantization
    costs and what the mitigation brings.

    References
    ----------
    Bellam, A. & Kim, J.-E. (2025). Explaining how quantization disparately skews a model.
    arXiv:2509.07222.

    Hinton, G., Vinyals, O. & Dean, J. (2015). Distilling the knowledge in a neural network.
    arXiv:1503.02531.

    Esser, S. K. et al. (2020). Learned step size quantization. ICLR.

    Woergaard, T. & Selvan, R. (2026). FairQuant: fairness-aware mixed-precision quantization for
    medical image classification. arXiv:2602.23192.

    Hashemizadeh, M. et al. (2024). Balancing act: constraining disparate impact in sparse models. ICLR.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skqfair import FairQATClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> groups = (X[:, 0] > 6.5).astype(int)
    >>> clf = FairQATClassifier(weight_bits=3, sampling="balanced", random_state=0)
    >>> clf = clf.fit(X, y, sensitive_features=groups)
    >>> clf.cell_weights_["count"].tolist()
    [120, 30]
    >>> clf.cell_weights_["effective_weight"].round(2).tolist()
    [0.62, 2.5]
    >>> len(clf.history_)
    5
    """

    _parameter_constraints = {
        **NetworkClassifier._parameter_constraints,
        **BIT_CONSTRAINTS,
        "calibration": [StrOptions({*CALIBRATIONS, "learned"})],
        "finetune_epochs": [Interval(Integral, 0, None, closed="left")],
        "finetune_lr": [Interval(Real, 0, None, closed="neither"), None],
        "sampling": [StrOptions(set(SAMPLINGS)), None],
        "mitigation_weight": [Interval(Real, 0, 1, closed="both")],
        "balance": [StrOptions(set(BALANCES))],
        "gap_penalty": [Interval(Real, 0, None, closed="left")],
        "accuracy_bound": [Interval(Real, 0, 1, closed="both"), None],
        "distillation": [Interval(Real, 0, 1, closed="both")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "teacher": "no_validation",
        "validation_fraction": [Interval(Real, 0, 1, closed="neither"), None],
    }

    def __init__(
        self,
        estimator=None,
        *,
        weight_bits=4,
        activation_bits=None,
        layer_bits=None,
        bit_budget=None,
        granularity="per_channel",
        calibration_size=1024,
        calibration="mse",
        finetune_epochs=5,
        finetune_lr=None,
        sampling=None,
        mitigation_weight=0.0,
        balance="group",
        gap_penalty=0.0,
        accuracy_bound=None,
        distillation=0.0,
        temperature=2.0,
        teacher=None,
        validation_fraction=None,
        rounding="nearest",
        activation_scheme="symmetric",
        activation_calibration=None,
        quantize_parameters=None,
        memory=None,
        random_state=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.weight_bits = weight_bits
        self.activation_bits = activation_bits
        self.layer_bits = layer_bits
        self.bit_budget = bit_budget
        self.granularity = granularity
        self.calibration_size = calibration_size
        self.calibration = calibration
        self.finetune_epochs = finetune_epochs
        self.finetune_lr = finetune_lr
        self.sampling = sampling
        self.mitigation_weight = mitigation_weight
        self.balance = balance
        self.gap_penalty = gap_penalty
        self.accuracy_bound = accuracy_bound
        self.distillation = distillation
        self.temperature = temperature
        self.teacher = teacher
        self.validation_fraction = validation_fraction
        self.rounding = rounding
        self.activation_scheme = activation_scheme
        self.activation_calibration = activation_calibration
        self.quantize_parameters = quantize_parameters
        self.memory = memory
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    @all_or_nothing
    def fit(self, X, y=None, *, sensitive_features=None, sample_weight=None, **fit_params):
        """Train the network (unless it is frozen), then fine-tune it with fake quantization.

        Parameters
        ----------
        X : array-like of shape (n, d) or (n, ...), frame, sparse matrix, memmap, Dataset or dict
            Samples; for several inputs a dict of arrays by the names that ``forward`` takes.
        y : array-like of shape (n,), optional
            Labels of any type; None for a Dataset of torch whose items are (x, label).
        sensitive_features : array-like of shape (n,) or (n, k), Series, frame or names, optional
            Groups of samples, or names of columns of a frame X; needed by all but ``balance="class"``.
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
            If the loss of the fine-tuning becomes NaN or infinite; ``estimator_`` is then the
            trained float net.
        """
        check_mitigations(self, sensitive_features)
        check_teacher(self)
        check_layer_bits(self.layer_bits, self.bit_budget, self.weight_bits, self.granularity)
        trained = self._fit_float(
            X,
            y,
            sensitive_features,
            sample_weight,
            fit_params,
            before_training=build_scheme(self, self._calibration).resolve,
            hold_out=None if self.validation_fraction is None else partial(hold_out, self),
        )
        self._forget()
        self._publish(trained)
        scheme = build_scheme(self, self._calibration, trained, lambda: self._calibration_rows(trained))
        if scheme.quantizes_weights:
            warn_of_float(trained.network.module, self.quantize_parameters)
        fake = self._fake_quantization(trained, scheme)
        cells = make_cells(self.balance, trained.y, trained.classes, trained.groups)
        weights, draws = loss_weights(self, trained, cells), expected_draws(self, cells)
        tuning = Tuning(
            fake,
            lr=self.finetune_lr,
            n_epochs=self.finetune_epochs,
            sampling=self.sampling,
            cells=cells.codes,
            seed=trained.seed,
            penalties=build_penalties(self, trained),
            distillation=build_distillation(self, trained),
            validation=None if trained.held_out is None else Validation(trained),
        )
        if tuning.penalties:
            tuning.groups = trained.groups.codes
        self.history_, self.best_epoch_ = History(), None
        if self.finetune_epochs:
            self._say(f"fine-tuning for {self.finetune_epochs} epochs")
            self.history_, self.best_epoch_ = fine_tune(
                trained.network.net,
                tuning,
                trained.X,
                trained.y,
                sample_weight=weights,
                fit_params=fit_params,
            )
        quantized = fake.finish()
        self.latent_module_ = fake.module.eval()
        _check_latent(self.latent_module_)
        self.cell_weights_ = cell_report(cells, weights, draws)
        self._publish_quantized(trained, quantized)
        if self.accuracy_bound is not None:
            self.accuracy_bound_ = bound_report(self, trained, tuning.penalties[-1])
        return self

    @property
    def _calibration(self):
        """How scales are found that are not learned."""
        return "mse" if self.calibration == "learned" else self.calibration

    def __sklearn_is_fitted__(self):
        return hasattr(self, "module_")

    def _forget(self):
        """Drop what an earlier fit left, so that nothing of it stays beside a new float net."""
        for name in [name for name in vars(self) if name.endswith("_") and not name.startswith("_")]:
            if name not in ("n_features_in_", "feature_names_in_"):
                delattr(self, name)

    def _fake_quantization(self, trained, scheme):
        network = trained.network
        module = plain_copy(network.module)
        observing = scheme.activation_bits is not None
        rows = self._calibration_rows(trained)
        statistics = self._float_statistics(trained) if observing else None
        if self.rounding != "nearest" and scheme.quantizes_weights:
            start_from_codes(module, trained, scheme, statistics, rows, self.rounding)
        return FakeQuantization(
            module,
            scheme,
            learned=self.calibration == "learned",
            statistics=statistics,
            observe=partial(observe, network, module, trained.X[rows] if observing else None),
        )


def _check_latent(module):
    for name, parameter in module.named_parameters():
        if not parameter.isfinite().all():
            raise DivergedTrainingError(
                f"fine-tuning diverged: the weight {name} is not finite at its end. Lower "
                "finetune_lr. The float net is kept in estimator_."
            )
