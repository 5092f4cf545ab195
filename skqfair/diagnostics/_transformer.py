"""The diagnostics as a scikit-learn transformer."""

import numbers

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from skqfair._groups import columns_of
from skqfair._rows import Inputs, validate_rows
from skqfair._seeding import draw_seed
from skqfair._validation import check_aligned, check_sample_shape
from skqfair._warnings import warn
from skqfair.curvature import Problem
from skqfair.diagnostics._compressed import Predictor, find_compressed, with_compressed
from skqfair.diagnostics._forward import forward_pass, logit_features, sample_losses
from skqfair.diagnostics._labels import encode, label_positions
from skqfair.diagnostics._layers import layer_modules, layer_report
from skqfair.diagnostics._matched_samples import derive
from skqfair.diagnostics._reports import (
    attribution,
    eigenvalue_table,
    excess_from_weights,
    forward_columns,
    group_report,
    no_measures,
)
from skqfair.diagnostics._versions import check_names, find_versions, take_apart
from skqfair.exceptions import NoCurvatureWarning
from skqfair.networks import read_weights
from skqfair.quantization import CALIBRATIONS, QuantizationScheme, check_bits
from skqfair.storage import SavedState

__all__ = ["QuantizationDiagnostics"]


class QuantizationDiagnostics(SavedState, TransformerMixin, BaseEstimator):
    r"""Explain, by group and by layer, what quantization does to a network.

    Follows the steps by which coarser weights and activations become a gap between groups: sparsity,
    activations, logits, softmax, loss and accuracy, gradients and curvature. Every figure is
    measured on the data that fit is given.

    Parameters
    ----------
    estimator : skorch or skqfair classifier, FrozenEstimator of a fitted one, TorchClassifier, or None
        A frozen one is diagnosed as it is; an unfitted one is cloned and trained in fit; None means
        :func:`~skqfair.networks.make_classifier`. A classifier of skqfair is diagnosed at the bits that
        it has, beside its own float net, :class:`~skqfair.FairQATClassifier` also beside its latent
        weights. A :class:`~skqfair.networks.TorchClassifier` counts as frozen, and so does an
        :class:`~skqfair.export.OnnxClassifier`, which is looked at as it predicts: the columns of its
        logits, no others.
    weight_bits : int or sequence of int, default=(8, 4, 2)
        Widths to which a skorch net is quantized, 2..16.
    activation_bits : int or None, default=None
        Bits of the inputs of layers, 2..16; None leaves them float.
    granularity : {"per_channel", "per_tensor"} or ("per_group", n), default="per_channel"
        One scale for each output channel of a weight, one in all, or one for each n inputs of an output
        channel, as in :class:`~skqfair.QuantizedClassifier`.
    calibration : {"minmax", "percentile", "mse"}, default="mse"
        How scales are chosen.
    n_eigenvalues : int, default=1
        How many of the largest Hessian eigenvalues. 0 leaves curvature out, which takes most of the
        time: its columns are NaN.
    match_group_sizes : bool, default=True
        Compare gradients and curvature on equally many samples of each group, those of the smallest,
        over five draws. Without, the smaller group looks sharper only because it is smaller.
    max_samples : int or None, default=None
        At most so many samples of each group for what needs gradients; None takes all.
    compressed : dict of str to fitted classifier, default=None
        Models that something else compressed, by name, to be looked at beside the float one:
        :class:`~skqfair.export.OnnxClassifier`, :class:`~skqfair.networks.TorchClassifier` or any other.
        They have the columns of their predictions and, where weights can be read, of their layers.
        ``weight_bits=()`` leaves out all others. Behind the steps of a frozen pipeline they take what
        the last step takes, unless they are pipelines themselves.
    random_state : int, RandomState or None, default=None
        Seed of the training, the calibration sample and the draws.
    n_jobs : int or None, default=None
        Processes for the draws and groups; None is 1.
    verbose : int, default=0
        1 shows the progress.

    Attributes
    ----------
    group_report_ : DataFrame
        Index (bits, group), "float" among the bits. On all samples: ``count``, ``accuracy``, ``loss``
        (cross-entropy), ``logit_variance``, ``margin``, ``boundary_closeness``, ``confidence``,
        ``flip_rate`` against the float net; ``excess_loss`` over the float net, with ``_low`` and
        ``_high``, paired 95 % intervals that hold for all groups together; ``excess_loss_weights``, what
        rounding the weights alone costs (in a :class:`~skqfair.FairQATClassifier`, over its latent
        weights). On up to ``max_samples`` of each group:
        ``excess_loss_first_order`` and ``excess_loss_second_order``, what the expansion predicts for
        ``excess_loss_weights``. On ``n_matched`` samples of each group, means over the draws:
        ``gradient_norm``, ``gradient_norm_debiased``, ``hessian_max_eigenvalue``,
        ``hessian_min_eigenvalue`` and ``hessian_trace``, and of each ``_low`` and ``_high``: the 95 %
        interval in which the value of as many other people of the group is expected; NaN for a group
        with a single draw, all its samples. The debiased norm is the root of the mean of squares, 0
        where that is below 0. ``.attrs["hessian_trace_method"]`` says "exact" or
        "stochastic" for each width. Compressed models have the columns up to ``flip_rate``, and
        ``excess_loss``.
    layer_report_ : DataFrame
        Index (bits, layer): ``n_weights``, ``sparsity``, ``sqnr_db``, ``saturation`` of the weights.
        ``.attrs["reasons"]`` says, by name and layer, why those of a compressed model are NaN.
    attribution_ : DataFrame
        Index (bits, layer, group): ``excess_loss_first_order`` and ``excess_loss_second_order``, which
        add up to those of the group; ``activation_sqnr_db``, signal to noise of the layer's outputs;
        ``clipping_rate`` of its inputs, NaN where they are not quantized.
    hessian_eigenvalues_ : Series
        The largest eigenvalues by (bits, group, rank).
    classes_ : ndarray
        Labels.
    n_features_in_ : int
        Second dimension of X.
    feature_names_in_ : ndarray of str
        Where X had names.

    See Also
    --------
    skqfair.metrics.group_report : Accuracy by group with intervals.
    skqfair.displays.GroupDiagnosticsDisplay : The report as a picture.

    Notes
    -----
    Calibration of activations uses the data of fit. Everything runs in eval mode on copies of the
    network. Residuals of eigenvalues are at most 0.1 %; in networks of more than 10,000 weights 1 % for
    the largest (whose error is of the order of its square) and 10 % for the smallest (errors of 1 to
    6 % were measured).

    References
    ----------
    Bellam, A. & Kim, J.-E. (2025). Explaining how quantization disparately skews a model.
    arXiv:2509.07222.

    Examples
    --------
    >>> import numpy as np
    >>> from skqfair import QuantizationDiagnostics
    >>> from skqfair.networks import make_classifier
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(400, 5)).astype("float32")
    >>> y, groups = X[:, 0] + X[:, 1] > 0, np.where(rng.random(400) < 0.3, "a", "b")
    >>> net = make_classifier(module__hidden_sizes=(16,), max_epochs=5, lr=0.01)
    >>> diagnostics = QuantizationDiagnostics(net, weight_bits=(4, 2), random_state=0)
    >>> diagnostics.fit(X, y, sensitive_features=groups).group_report_.index.to_list()
    [('float', 'a'), ('float', 'b'), (4, 'a'), (4, 'b'), (2, 'a'), (2, 'b')]
    >>> diagnostics.transform(X).shape
    (400, 16)
    """

    _parameter_constraints = {
        "estimator": "no_validation",
        "weight_bits": [Interval(numbers.Integral, 2, 16, closed="both"), "array-like"],
        "activation_bits": [Interval(numbers.Integral, 2, 16, closed="both"), None],
        "granularity": "no_validation",  # by QuantizationScheme
        "calibration": [StrOptions(set(CALIBRATIONS))],
        "n_eigenvalues": [Interval(numbers.Integral, 0, None, closed="left")],
        "match_group_sizes": ["boolean"],
        "max_samples": [Interval(numbers.Integral, 2, None, closed="left"), None],
        "compressed": [dict, None],
        "random_state": ["random_state"],
        "n_jobs": [numbers.Integral, None],
        "verbose": ["verbose"],
    }

    __metadata_request__fit = {"sensitive_features": True}

    def __init__(
        self,
        estimator=None,
        *,
        weight_bits=(8, 4, 2),
        activation_bits=None,
        granularity="per_channel",
        calibration="mse",
        n_eigenvalues=1,
        match_group_sizes=True,
        max_samples=None,
        compressed=None,
        random_state=None,
        n_jobs=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.weight_bits = weight_bits
        self.activation_bits = activation_bits
        self.granularity = granularity
        self.calibration = calibration
        self.n_eigenvalues = n_eigenvalues
        self.match_group_sizes = match_group_sizes
        self.max_samples = max_samples
        self.compressed = compressed
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, *, sensitive_features=None):
        """Train the network unless it is frozen, quantize it, and make the reports.

        Parameters
        ----------
        X : array-like of shape (n, d) or (n, ...), frame, sparse matrix, memmap or Dataset
            Samples.
        y : array-like of shape (n,), optional
            Labels of any type, of the classes that the estimator knows; None for a Dataset of torch
            whose items are (x, label).
        sensitive_features : array-like of shape (n,) or (n, k), Series, frame or names, optional
            Group of each sample; None puts all into one group, "all".

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad input; the message names the argument, what came, and the remedy.
        TypeError
            If the estimator is of another kind.

        Warns
        -----
        SmallGroupWarning
            If gradients and curvature are compared on fewer than 64 samples.
        NoCurvatureWarning
            If an operation of the network has no second derivative, or the model is an exported one:
            those columns are then NaN.
        """
        QuantizationScheme(granularity=self.granularity)  # or its error
        widths = np.ravel(np.asarray(self.weight_bits, dtype=object))
        for bits in widths:
            check_bits(bits, "weight_bits")
        if not len(widths) and not self.compressed:
            raise ValueError(
                "weight_bits must have at least one width, 2..16, where there are no compressed models; "
                "it is empty."
            )
        check_aligned(X, y, "y", "X")
        sensitive_features = columns_of(X, sensitive_features)
        check_names(self.estimator, X)
        self._before, estimator = take_apart(self.estimator)
        given, X = X, X if self._before is None else self._before.transform(X)
        X, y = validate_rows(self, X, y)
        if isinstance(X, Inputs):
            raise TypeError(
                f"X has the inputs {list(X.sample_shape)}, but the diagnostics are of networks with "
                "one; compare the predictions of such networks in a CompressionAudit."
            )
        groups = encode(sensitive_features, len(X))
        self._seed = draw_seed(self.random_state)
        versions, self.classes_ = find_versions(self, estimator, X, y, sensitive_features)
        codes = label_positions(y, self.classes_)
        self._versions, self._shape = versions, X.shape[1:]
        names = [version.name for version in versions]
        self._compressed = find_compressed(self.compressed, self.classes_, names)
        others = {p.name: p.of(X, given) for p in self._compressed}
        if isinstance(versions[0], Predictor):
            self._report_forward(versions[0], X, codes, groups, others)
        else:
            self._report(versions, versions[0].input(X), codes, groups, others)
        return self

    def _report_forward(self, predictor, X, y, groups, others):
        """Make the reports of a model that only predicts: what needs its layers is NaN, or not there."""
        beside = "" if others else "there is no float net beside it, and "
        warn(
            f"{type(predictor.classifier).__name__} only predicts: {beside}"
            "what needs its layers, gradients and curvature is NaN. Diagnose the estimator for these.",
            NoCurvatureWarning,
        )
        name, logits = predictor.name, predictor.logits(X)
        columns = forward_columns({name: logits}, y, groups, others)
        nothing = no_measures(columns, groups)
        self.group_report_ = group_report(columns, nothing, groups.index, np.zeros_like(groups.counts))
        self.hessian_eigenvalues_ = eigenvalue_table({}, groups.index)
        read = getattr(predictor.classifier, "read_weights", dict)
        self.layer_report_ = with_compressed(layer_report([], {}), self._compressed, read())
        self.attribution_ = attribution({}, {}, {}, groups.index)

    def _report(self, versions, X, y, groups, others):
        modules = {version.name: version.differentiable() for version in versions}
        versions[0].check_inputs(modules["float"], X)
        layers = layer_modules(versions, modules["float"])
        logits, sqnr, clipping = forward_pass(versions, X, groups, layers=layers)
        problems = {
            version.name: Problem(modules[version.name], X, y, groups, forward=version.forward)
            for version in versions
        }
        losses = {name: sample_losses(values, y) for name, values in logits.items()}
        columns = forward_columns(logits, y, groups, others)
        for version in versions:
            columns[version.name]["excess_loss_weights"] = excess_from_weights(
                version, modules, losses, X, y, groups
            )
        derivatives = derive(
            versions,
            problems,
            groups,
            n_eigenvalues=self.n_eigenvalues,
            match=self.match_group_sizes,
            max_samples=self.max_samples,
            seed=self._seed,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
        )
        for name, by_groups in derivatives.expansions.items():
            for i, order in enumerate(("first", "second")):
                totals = [sum(terms[i].values()) for terms in by_groups]
                columns[name][f"excess_loss_{order}_order"] = np.array(totals)
        self.group_report_ = group_report(
            columns,
            no_measures(columns, groups) | derivatives.measured,
            groups.index,
            derivatives.n_matched,
        )
        self.group_report_.attrs["hessian_trace_method"] = {
            name: problem.trace_method for name, problem in problems.items() if self.n_eigenvalues
        }
        self.hessian_eigenvalues_ = eigenvalue_table(derivatives.eigenvalues, groups.index)
        weights = read_weights(modules["float"])
        self.layer_report_ = with_compressed(layer_report(versions, modules), self._compressed, weights)
        self.attribution_ = attribution(derivatives.expansions, sqnr, clipping, groups.index)

    def transform(self, X):
        """Return what the logits of each sample say, at every width.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Samples, shaped as in fit.

        Returns
        -------
        ndarray of float64, shape (n, features)
            For the float net and each width ``logit_variance`` (over the classes), ``margin`` (of the
            two largest probabilities), ``boundary_closeness`` (1 minus the sum of squared
            probabilities) and ``confidence`` (the largest probability); for each width ``logit_shift``
            (root mean square difference from the float logits over the classes; for compressed models
            after the mean over the classes was taken off) and ``flip`` (1 where the prediction differs
            from the float net's).
        """
        check_is_fitted(self)
        given, X = X, X if self._before is None else self._before.transform(X)
        X = validate_rows(self, X, reset=False)
        check_sample_shape(X, self._shape, "the diagnostics were fitted on")
        columns, reference = [], None
        for version in self._versions:
            logits = version.logits(version.input(X))
            columns.extend(logit_features(logits).values())
            if reference is None:
                reference = logits
                continue
            columns.append(np.sqrt(np.square(logits - reference).mean(axis=1)))
            columns.append((logits.argmax(1) != reference.argmax(1)).astype(float))
        for predictor in self._compressed:  # whose logits are known but for a constant of each row
            logits, predicted = predictor.of(X, given)
            columns.extend(logit_features(logits).values())
            shift = logits - reference
            columns.append(shift.std(axis=1))
            columns.append((predicted != reference.argmax(1)).astype(float))
        return np.column_stack(columns)

    def get_feature_names_out(self, input_features=None):
        """Return the names of the columns of transform.

        Parameters
        ----------
        input_features : array-like of str or None
            Not used; there for scikit-learn.

        Returns
        -------
        ndarray of str
            E.g. "margin_float" and "logit_shift_4bit".
        """
        check_is_fitted(self)
        names = []
        for version in [*self._versions, *self._compressed]:
            own = f"{version.name}bit" if isinstance(version.name, int) else version.name
            features = ["logit_variance", "margin", "boundary_closeness", "confidence"]
            if version.name != self._versions[0].name:
                features += ["logit_shift", "flip"]
            names.extend(f"{feature}_{own.replace(' ', '_')}" for feature in features)
        return np.array(names, dtype=object)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "group_report_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.sparse = True
        return tags
