"""A fit that fails leaves no half of an estimator behind."""

from functools import wraps

from skqfair.exceptions import DivergedTrainingError

__all__ = ["all_or_nothing"]


def all_or_nothing(fit):
    """Let a fit that fails leave its estimator as it was.

    One whose fine-tuning diverges leaves the float net that it has trained, to look at.
    """

    @wraps(fit)
    def wrapped(self, *args, **kwargs):
        before = dict(vars(self))
        try:
            return fit(self, *args, **kwargs)
        except DivergedTrainingError:
            raise
        except BaseException:  # Ctrl-C too
            vars(self).clear()
            vars(self).update(before)
            raise

    return wrapped
