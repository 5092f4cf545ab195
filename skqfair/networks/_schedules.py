"""A schedule of the user's learning rates, from the training to the fine-tuning."""

import copy

import numpy as np
from skorch.callbacks import LRScheduler

__all__ = ["LEARNING_RATE_RATIO", "adapted_schedule"]

LEARNING_RATE_RATIO = 0.3
"""First learning rate of the fine-tuning over that of the training, unless the user gives one."""

# Parameters of torch's schedules that may hold one entry for each parameter group.
_BY_GROUP = ("lr_lambda", "max_lr", "base_lr", "min_lr", "max_momentum", "base_momentum")
# Those that count steps to an end, and those that are rates whatever the optimizer's is.
_STEPS = ("T_max", "total_iters", "milestones")
_RATES = ("max_lr", "base_lr")


def adapted_schedule(callback, n_groups, lr, epochs, steps):
    """Return a callback as it is for the fine-tuning.

    A schedule with an end is stretched to the new number of steps; its own rates are scaled, so that
    the largest is ``lr``; the group of learned scales, which it may lack, goes on as its last.

    Parameters
    ----------
    callback : Callback
        Any; what is no LRScheduler comes back as it is.
    n_groups : int
        Parameter groups, that of learned scales the last.
    lr : float or None
        Largest rate; None is ``LEARNING_RATE_RATIO`` times that of the schedule.
    epochs, steps : pair of int
        Epochs, and steps of an epoch, of the training and of the fine-tuning.
    """
    if not isinstance(callback, LRScheduler):
        return callback
    by_batch, options = callback.step_every == "batch", callback.kwargs
    counts = [e * s if by_batch else e for e, s in zip(epochs, steps, strict=True)]
    share = counts[1] / max(1, counts[0])
    changed = {name: _scaled_steps(options[name], share) for name in _STEPS if name in options}
    if options.get("total_steps") is not None:
        changed["total_steps"] = counts[1]
    if options.get("steps_per_epoch") is not None:
        changed.update(epochs=epochs[1], steps_per_epoch=steps[1])
    if options.get("max_lr") is not None:
        ratio = LEARNING_RATE_RATIO if lr is None else lr / np.max(options["max_lr"])
        changed |= {name: _scaled(options[name], ratio) for name in _RATES if name in options}
    for name, values in {**options, **changed}.items():
        one_for_each = name in _BY_GROUP and isinstance(values, (list, tuple))
        if one_for_each and len(values) == n_groups - 1:
            changed[name] = [*values, values[-1]]
    if changed:
        callback = copy.copy(callback)  # the net may share its own where it cannot be copied
        vars(callback).update(changed)
    return callback


def _scaled_steps(values, share):
    if isinstance(values, (list, tuple)):
        return [max(1, round(value * share)) for value in values]
    return None if values is None else max(1, round(values * share))


def _scaled(values, ratio):
    return [v * ratio for v in values] if isinstance(values, (list, tuple)) else values * ratio
