"""Post-training quantization of a network."""

from sklearn.base import _fit_context
from sklearn.utils._param_validation import StrOptions

from skqfair._seeding import seeded
from skqfair.classifiers._all_or_nothing import all_or_nothing
from skqfair.classifiers._base import NetworkClassifier
from skqfair.classifiers._layer_bits import (
    BIT_CONSTRAINTS,
    build_scheme,
    check_layer_bits,
    warn_of_float,
)
from skqfair.classifiers._minimax_rounding import check_minimax, compensate_worst_group
from skqfair.classifiers._rounding import compensate
from skqfair.quantization import convert, has_batchnorm, move_batchnorm

__all__ = ["QuantizedClassifier"]


class QuantizedClassifier(NetworkClassifier):
    r"""Train a network, then quantize its weights and activations.

    Post-training quantization: each weight becomes an integer code times a scale,
    :math:`\hat w = S \cdot \mathrm{clamp}(\mathrm{round}(w / S), -q, q)` with
    :math:`q = 2^{b-1} - 1`. The bits are a hyper-parameter like any other, so that ``GridSearchCV``
    can search over them; with ``memory`` each fold's network is trained once for the whole grid.

    Parameters
    ----------
    estimator : skorch classifier, FrozenEstimator of one, TorchClassifier or None, default=None
        The network. With ``CrossEntropyLoss`` its module returns logits, with skorch's default
        ``NLLLoss`` probabilities, in a ``NeuralNetBinaryClassifier`` one logit. A net is cloned and
        trained; a frozen one, or a trained module in a :class:`~skqfair.networks.TorchClassifier`, is
        copied and not trained again (beware: scores on data that it was trained on leak). None is
        :func:`skqfair.networks.make_classifier`, a multilayer perceptron whose sizes are found at fit;
        pass ``make_classifier()`` to search over its parameters.
    weight_bits : int or None, default=8
        Bits of the weights, 2..16; None leaves them in float.
    activation_bits : int or None, default=None
        Bits of the inputs of Linear, Conv and recurrent layers, 2..16; None leaves them in float.
    layer_bits : dict of str to (int, None or sequence of int), str or None, default=None
        Patterns (:mod:`fnmatch`, on names of parameters or modules) to bits, the rest as
        ``weight_bits``. A plain name goes before a pattern with wildcards; among equals the later
        holds. Or a rule: "auto" chooses 2, 3, 4, 6 or 8 bits for each layer under ``bit_budget`` so
        that the worst group loses least, see :func:`skqfair.quantization.allocate_bits`;
        "fairquant" 2, 4 or 8 bits for each channel by its importance to the groups;
        "first_last_8" gives the first and the last layer 8 bits.
    bit_budget : float or None, default=None
        Mean bits per weight, for "auto" (2 to 8) and "fairquant".
    granularity : {"per_channel", "per_tensor"} or ("per_group", n), default="per_channel"
        One scale per output channel of a weight, or one per weight. With ``("per_group", 32)`` each 32
        columns (inputs) of an output channel of Linear and attention modules, and of matrices that
        ``quantize_parameters`` names, have one; other layers, and those of no more columns, one per
        channel.
    calibration : {"minmax", "percentile", "mse"}, default="mse"
        How scales are found: the largest magnitude, its 99.99th percentile, or the clip with the
        least squared error.
    calibration_size : int, default=1024
        Training samples used for activation ranges, rounding and statistics, drawn at random.
    calibration_groups : {"balanced", "proportional", "minimax"}, default="balanced"
        With sensitive features, the samples for activation ranges and rounding are equally many of
        each group (with replacement where a group is smaller), or as many as the group has. "minimax"
        takes them as "balanced" does, then raises the weight that the group whose loss rises most has
        in the rounding, in five rounds, and keeps the best: five times the time of the rounding. At
        2 bits it narrowed the gap on digits and widened it on faces: compare on data held out.
    rounding : {"nearest", "gptq", "least_squares"}, default="nearest"
        How weights are rounded: each to its nearest code; column by column with the error spread over
        the columns left; or to the codes whose outputs on the calibration samples are nearest to the
        float network's, which measured best; see :func:`~skqfair.quantization.compensate_rounding`.
        It costs no training, and no byte.
    rounding_inputs : {"quantized", "float"}, default="quantized"
        Whose inputs of layers these rules go by: with "quantized" a layer minds what those before it
        have lost already. Those of the float network serve all widths of a search and are cached by
        ``memory``; at 2 bits least squares lost far more by them in a convolutional network.

        .. versionadded:: 0.2
    bias_correction : bool, default=False
        Add to each bias what quantization took from the mean of that output.
    activation_scheme : {"symmetric", "affine"}, default="symmetric"
        With "affine" the inputs of a layer that may be negative get a zero point, so that all codes are
        used: worth several dB at 4 bits after SiLU, GELU or LeakyReLU.
    activation_calibration : {"minmax", "percentile", "mse"} or None, default=None
        How the ranges of activations are found; None is as ``calibration``.
    quantize_parameters : dict of str to int, default=None
        Weights to quantize beside those of Linear, Conv, recurrent, Embedding and attention modules:
        patterns as in ``layer_bits`` on parameters that a module uses in its own way, to the axis of
        their output channels, e.g. ``{"*.c_attn.weight": 1}``. A warning names what stays in float.
    recalibrate_batchnorm : bool, default=False
        Move the statistics of BatchNorm layers by what quantization changed, on as many samples drawn
        plainly; see :func:`~skqfair.quantization.move_batchnorm`.
    memory : str, path, joblib.Memory or None, default=None
        Caches the float training. The key covers data, hyper-parameters, seed and the code of the
        network.
    random_state : int, RandomState or None, default=None
        Seed of training and calibration. An int makes fits bitwise repeatable at the same number of
        torch threads; None draws a fresh seed and bypasses ``memory``.
    verbose : int, default=0
        1 prints a line for each stage of the fit. The epochs are printed by the net's own ``verbose``.

    Attributes
    ----------
    estimator_ : skorch.NeuralNetClassifier
        The trained float net.
    module_ : torch.nn.Module
        The quantized module, in eval mode.
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
    skqfair.metrics.group_report : Accuracy by group.
    skqfair.make_fairness_scorer : FVO as a scorer for searches.

    Notes
    -----
    ``sensitive_features`` are used by ``fit`` for the calibration sample only; prediction never needs
    them. Rows of two-dimensional input are predicted in small blocks of one size, the last one padded,
    so that a row's prediction does not depend on the rows beside it; where the rows of a module see
    each other, in batches of the net's batch size.

    References
    ----------
    Bellam, A. & Kim, J.-E. (2025). Explaining how quantization disparately skews a model.
    arXiv:2509.07222.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skqfair import QuantizedClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = QuantizedClassifier(weight_bits=4, random_state=0).fit(X, y)
    >>> clf.layer_bits_
    {'hidden0.weight': 4, 'hidden1.weight': 4, 'output.weight': 4}
    >>> clf.model_size_, round(clf.compression_ratio_, 1)
    (6008, 6.1)
    """

    _parameter_constraints = {
        **NetworkClassifier._parameter_constraints,
        **BIT_CONSTRAINTS,
        "calibration": [StrOptions({"minmax", "percentile", "mse"})],
        "calibration_groups": [StrOptions({"balanced", "proportional", "minimax"})],
        "rounding_inputs": [StrOptions({"quantized", "float"})],
        "bias_correction": ["boolean"],
        "recalibrate_batchnorm": ["boolean"],
    }

    def __init__(
        self,
        estimator=None,
        *,
        weight_bits=8,
        activation_bits=None,
        layer_bits=None,
        bit_budget=None,
        granularity="per_channel",
        calibration="mse",
        calibration_size=1024,
        calibration_groups="balanced",
        rounding="nearest",
        rounding_inputs="quantized",
        bias_correction=False,
        activation_scheme="symmetric",
        activation_calibration=None,
        quantize_parameters=None,
        recalibrate_batchnorm=False,
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
        self.calibration = calibration
        self.calibration_size = calibration_size
        self.calibration_groups = calibration_groups
        self.rounding = rounding
        self.rounding_inputs = rounding_inputs
        self.bias_correction = bias_correction
        self.activation_scheme = activation_scheme
        self.activation_calibration = activation_calibration
        self.quantize_parameters = quantize_parameters
        self.recalibrate_batchnorm = recalibrate_batchnorm
        self.memory = memory
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    @all_or_nothing
    def fit(self, X, y=None, *, sensitive_features=None, sample_weight=None, **fit_params):
        """Train the network (unless it is frozen) and quantize it.

        Parameters
        ----------
        X : array-like of shape (n, d) or (n, ...), frame, sparse matrix, memmap, Dataset or dict
            Samples; for several inputs a dict of arrays by the names that ``forward`` takes.
        y : array-like of shape (n,), optional
            Labels of any type; None for a Dataset of torch whose items are (x, label).
        sensitive_features : array-like of shape (n,) or (n, k), Series, frame or names, optional
            Group of each sample, to balance the calibration sample; needed for "minimax".
            A name or a list of names stands for columns of a frame X, which stay in it.
        sample_weight : array-like of shape (n,), optional
            Weights of the losses in training; only their ratios count. Unused where the net is frozen.
        **fit_params
            Handed to the fit of the net, the same for every batch.

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
        """
        check_layer_bits(self.layer_bits, self.bit_budget, self.weight_bits, self.granularity)
        minimax = self.calibration_groups == "minimax"
        if minimax:
            check_minimax(self.rounding, self.bias_correction, sensitive_features)
        trained = self._fit_float(
            X,
            y,
            sensitive_features,
            sample_weight,
            fit_params,
            before_training=build_scheme(self, self.calibration).resolve,
        )
        self._say("quantization")
        scheme = build_scheme(self, self.calibration, trained, lambda: self._calibration_rows(trained))
        if scheme.quantizes_weights:
            warn_of_float(trained.network.module, self.quantize_parameters)
        statistics = None
        if scheme.activation_bits is not None:
            statistics = self._float_statistics(trained)
        quantized = convert(trained.network.module, scheme, statistics)
        if self.rounding != "nearest" or self.bias_correction:
            compensated = compensate_worst_group if minimax else compensate
            quantized = compensated(
                trained,
                quantized,
                self._calibration_rows(trained),
                rounding=self.rounding,
                inputs=self.rounding_inputs,
                bias_correction=self.bias_correction,
            )
        if self.recalibrate_batchnorm and has_batchnorm(quantized.module):
            network, sample = trained.network, trained.X[self._calibration_rows(trained, balanced=False)]
            with seeded(trained.seed):
                move_batchnorm(quantized.module, network.module, lambda m: network.outputs(sample, m))
        self._publish_quantized(trained, quantized)
        return self
