"""What is deprecated warns for two minor versions, and then goes."""

import functools
import inspect
import warnings

__all__ = ["deprecated"]


def deprecated(*, since, instead):
    """Let a function or class warn when it is called, until it is removed two minor versions later.

    Parameters
    ----------
    since : str
        The version that deprecates it, such as "0.2".

    instead : str
        What to use instead, as the end of the sentence "use ...".

    Returns
    -------
    decorate : callable
        It keeps name, signature and type: a class stays a class, and its subclasses warn too.

    Examples
    --------
    >>> import warnings
    >>> from skqfair._deprecation import deprecated
    >>> @deprecated(since="0.2", instead="double")
    ... def twice(x):
    ...     return 2 * x
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     twice(4)
    8
    >>> print(caught[0].message)
    twice is deprecated since skqfair 0.2 and will be removed in 0.4; use double
    """
    major, minor = (int(part) for part in since.split(".")[:2])

    def decorate(obj):
        message = (
            f"{obj.__name__} is deprecated since skqfair {since} and will be removed in "
            f"{major}.{minor + 2}; use {instead}"
        )
        called = obj.__init__ if inspect.isclass(obj) else obj

        @functools.wraps(called)
        def warn_first(*args, **kwargs):
            warnings.warn(message, FutureWarning, stacklevel=2)
            return called(*args, **kwargs)

        if not inspect.isclass(obj):
            return warn_first
        obj.__init__ = warn_first
        return obj

    return decorate
