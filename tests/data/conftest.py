import pandas as pd
import pytest

from mlops_mini.data import datasets


@pytest.fixture(scope="session")
def year():
    return pd.concat([datasets.flights(month) for month in datasets.flight_months()])
