"""scikit-learn's own checks. The list of expected failures may only shrink."""

import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from skqfair import FairOffsetClassifier, FairQATClassifier, PrunedClassifier, QuantizedClassifier

_BATCHES = "mini-batches of a weighted sample are not those of the sample repeated or removed"
EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data": _BATCHES,
    "check_sample_weight_equivalence_on_sparse_data": _BATCHES,
}


@parametrize_with_checks(
    [
        QuantizedClassifier(),
        QuantizedClassifier(weight_bits=4, activation_bits=8),
        FairQATClassifier(finetune_epochs=3),
        FairQATClassifier(
            finetune_epochs=1, calibration="learned", activation_bits=8, layer_bits="first_last_8"
        ),
        PrunedClassifier(),
        PrunedClassifier(scope="layer", finetune_epochs=2),
        FairOffsetClassifier(LogisticRegression(), cv=2),
    ],
    expected_failed_checks=lambda estimator: EXPECTED_FAILURES,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.filterwarnings("ignore::skqfair.exceptions.LimitedOffsetsWarning")
def test_scikit_learn(estimator, check):
    check(estimator)
