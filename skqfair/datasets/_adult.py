"""The Adult census data, shipped with the package."""

import lzma
from importlib import resources

import pandas as pd
from sklearn.utils import Bunch

__all__ = ["load_adult"]

_COLUMNS = [
    *("age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation"),
    *("relationship", "race", "sex", "capital-gain", "capital-loss", "hours-per-week"),
    *("native-country", "income"),
]
_DESCR = """\
Adult (Census Income)
---------------------
The training file of the UCI Adult data set: 32,561 adults from the 1994 census of the United States.
The target says whether a person's income is above 50,000 dollars a year ("<=50K", ">50K").

Columns: the raw 14 less `fnlwgt`, the sampling weight of the census, which is no property of a person.
Missing values ("?" in the file; workclass, occupation, native-country) are NaN. Race and sex are among
the columns and, as the sensitive features, also apart.

Source: Becker, B. & Kohavi, R. (1996). Adult [Dataset]. UCI Machine Learning Repository.
https://doi.org/10.24432/C5XW20
Licence: Creative Commons Attribution 4.0 International (CC BY 4.0). The file is unchanged but for
compression.

The data are three decades old, from one country, and their labels describe a society with unequal
chances: they serve to study methods, not people.
"""


def load_adult(*, return_X_y: bool = False, as_frame: bool = True) -> Bunch | tuple:
    """Load the UCI Adult data, where the target is an income above 50,000 dollars.

    The file comes with the package; nothing is downloaded.

    Parameters
    ----------
    return_X_y : bool, default=False
        Return ``(data, target)`` only.
    as_frame : bool, default=True
        Return pandas objects; else numpy arrays of objects.

    Returns
    -------
    Bunch or (data, target)
        With ``data`` (32,561 x 13: the raw columns less fnlwgt; text columns categorical), ``target``
        ("<=50K" or ">50K"), ``sensitive_features`` (race and sex, categorical), ``feature_names``,
        ``target_names`` and ``DESCR``.

    Notes
    -----
    Source: Becker, B. & Kohavi, R. (1996). Adult. UCI Machine Learning Repository,
    https://doi.org/10.24432/C5XW20. Licence: CC BY 4.0.

    Examples
    --------
    >>> from skqfair.datasets import load_adult
    >>> adult = load_adult()
    >>> adult.data.shape
    (32561, 13)
    >>> adult.sensitive_features.value_counts().head(2)
    race   sex
    White  Male      19174
           Female     8642
    Name: count, dtype: int64
    """
    path = resources.files("skqfair.datasets") / "data" / "adult.data.xz"
    with path.open("rb") as packed, lzma.open(packed, "rt", encoding="ascii") as file:
        frame = pd.read_csv(
            file,
            header=None,
            names=_COLUMNS,
            skipinitialspace=True,
            na_values="?",
            keep_default_na=False,
        )
    target = frame.pop("income").astype(object)
    frame = frame.drop(columns="fnlwgt")
    text = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
    frame[text] = frame[text].astype(object).astype("category")
    sensitive = frame[["race", "sex"]].copy()
    data = frame
    if not as_frame:
        data, target, sensitive = frame.to_numpy(dtype=object), target.to_numpy(), sensitive.to_numpy()
    if return_X_y:
        return data, target
    return Bunch(
        data=data,
        target=target,
        sensitive_features=sensitive,
        feature_names=list(frame.columns),
        target_names=["<=50K", ">50K"],
        DESCR=_DESCR,
    )
