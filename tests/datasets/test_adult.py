import numpy as np
import pandas as pd

from skqfair.datasets import load_adult


def test_the_whole_file():
    adult = load_adult()
    assert adult.data.shape == (32561, 13)
    assert "fnlwgt" not in adult.data
    assert adult.target.value_counts().to_dict() == {"<=50K": 24720, ">50K": 7841}  # as UCI documents it
    missing = adult.data.isna().sum()
    assert missing[missing > 0].to_dict() == {
        "workclass": 1836,
        "occupation": 1843,
        "native-country": 583,
    }
    first = adult.data.iloc[0]
    assert (first["age"], first["workclass"], first["hours-per-week"]) == (39, "State-gov", 40)
    assert not any(
        str(c).startswith(" ") for name in ("race", "education") for c in adult.data[name].cat.categories
    )
    assert adult.sensitive_features["race"].nunique() == 5
    assert adult.sensitive_features["sex"].value_counts().to_dict() == {"Male": 21790, "Female": 10771}
    assert adult.feature_names == list(adult.data.columns)
    assert "CC BY 4.0" in adult.DESCR
    assert "10.24432/C5XW20" in adult.DESCR


def test_other_forms():
    X, y = load_adult(return_X_y=True)
    assert isinstance(X, pd.DataFrame)
    assert isinstance(y, pd.Series)
    adult = load_adult(as_frame=False)
    assert isinstance(adult.data, np.ndarray)
    assert adult.data.shape == (32561, 13)
    assert adult.sensitive_features.shape == (32561, 2)
    assert set(adult.target) == {"<=50K", ">50K"}


def test_each_call_returns_a_copy():
    adult = load_adult()
    adult.data.iloc[0, 0] = -1
    assert load_adult().data.iloc[0, 0] == 39
