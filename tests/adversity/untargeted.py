"""Public names that are not fuzzed, and why."""

_CONSTANT = "a constant"
_ERROR = "an error or a warning: it says what it is given"
_HOLDS = "holds what the functions that have targets made"
_INSIDE = "for the rooms above, not in the reference: what has targets checks first"
_PLOTS = "draws tables that the package made; tests/displays gives it odd ones"
_SKORCH = "a part of skorch or torch, with their arguments"


def _named(reason, room, names):
    return {f"skqfair.{room}{name}": reason for name in names.split()}


UNTARGETED = {
    "skqfair.__version__": _CONSTANT,
    "skqfair.FairOffsetClassifier": "wraps classifiers that have targets; its arithmetic has three",
    "skqfair.parallel.warm_up": "passes X and y to estimators that have targets",
    "skqfair.quantization.quantized_size": "called by the target of convert",
    "skqfair.quantization.float_moments": "called by the target of compensate_rounding",
    "skqfair.mitigation.AccuracyBound": "called by the target of GapPenalty",
    **_named(_CONSTANT, "curvature.", "MAX_ITER"),
    **_named(_CONSTANT, "mitigation.", "BALANCES SAMPLINGS STRENGTHS"),
    **_named(_CONSTANT, "networks.", "LEARNING_RATE_RATIO SKORCH_CLASSIFIERS"),
    **_named(
        _CONSTANT, "quantization.", "ACTIVATION_SCHEMES CALIBRATIONS CHOICES FLOAT_BITS ROUNDINGS SCOPES"
    ),
    **_named(_HOLDS, "metrics.", "ChanceBand ModelComparison"),
    **_named(
        _HOLDS,
        "quantization.",
        "ActivationQuantizer ActivationStatistics FakeQuantization HeldMasks PrunedModule "
        "QuantizedModule QuantizedTensor",
    ),
    **_named(
        _PLOTS,
        "displays.",
        "BitWidthDisplay GroupDiagnosticsDisplay HessianSpectrumDisplay LayerSensitivityDisplay "
        "OffsetFrontierDisplay",
    ),
    **_named(_SKORCH, "networks.", "BatchLoader TensorData TensorNetClassifier"),
    **_named(_INSIDE, "classifiers.", "NetworkClassifier"),
    **_named(
        _INSIDE,
        "curvature.",
        "Hessian Problem check_second_derivative closed_form_holds differentiable_copy evaluating "
        "extreme_eigenvalues group_trace mean_gradient on_a_copy sample_square_norms trace_method",
    ),
    **_named(
        _INSIDE,
        "networks.",
        "Distillation Network TensorTraining Tuning fine_tune prediction_view read_weights "
        "tensor_training",
    ),
    **_named(
        _INSIDE,
        "quantization.",
        "channel_shape check_bits drop_quantizers input_quantizers left_in_float plain q_max "
        "round_alone",
    ),
    **_named(_INSIDE, "storage.", "Cache SavedState fingerprint"),
    **_named(
        _ERROR,
        "exceptions.",
        "AccuracyBoundWarning AuditFailure CacheBypassWarning CompoundedMitigationWarning "
        "DivergedTrainingError DoubleBackwardError EmptyGroupWarning ExportError LimitedOffsetsWarning "
        "ManyGroupsWarning ModuleOutputError NearestRoundingWarning NoCurvatureWarning "
        "NoModelWithinLimitsWarning ParityError ParityWarning SmallCellWarning SmallGroupWarning "
        "TrainingSamplesWarning UnclearSamplesWarning UnknownLabelWarning UnquantizedWeightsWarning "
        "UntrainedNetworkError",
    ),
}
