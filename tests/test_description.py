"""What `mlops-mini describe` says of three use cases, to somebody who has never seen our code."""

import re

import pytest

from mlops_mini import description
from mlops_mini.flights.use_case import FLIGHTS
from tests.tenants.churn import CHURN
from tests.tenants.sensors import STOPS

CASES = {"churn": CHURN, "stops": STOPS, "flights": FLIGHTS}


def described(name: str) -> dict[str, str]:
    """The row of each column, rule and feature as one line, by its table's first words."""
    return {
        f"{title.split(',')[0]}: {row[0]}": " | ".join(row[1:])
        for title, _, rows in description.tables(CASES[name])
        for row in rows
    }


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("churn", "the probability that churned is 1, for each row of customers"),
        ("churn", "known 30 days after billed_at. Months begin and end at midnight in Europe/"),
        ("stops", "A prediction is due 10 minutes after read_at"),
        ("stops", "Models are judged over all rows and by machine and shift"),
        ("flights", "A prediction is due 1 hour before sched_dep_utc"),
        ("flights", "Training: a small Keras network, the default"),
    ],
)
def test_the_summary_says(name, words):
    assert words in description.summary(CASES[name])


@pytest.mark.parametrize(
    ("name", "where", "words"),
    [
        ("churn", "Table customers: customer", "text | no | key | "),
        ("churn", "Table customers: plan", "text | no |  | is basic, family or pro"),
        ("churn", "Table customers: monthly_usd", "number | no |  | is between 0 and 1,000"),
        ("churn", "Table customers: churned", "integer | yes |  | "),
        ("churn", "Rules of customers: customer", "of two rows with the same, the first is kept"),
        ("churn", "Features of churn: plan", "the column plan, as it is | the row itself"),
        (
            "stops",
            "Rules of readings: machine",
            "press, oven, saw and drill each have one row every h",
        ),
        ("stops", "Features of stops: temp_c", "a row is known 5 minutes after its read_at, and"),
        ("stops", "Features of stops: warm_24h", "mean tenths_c of reading events (readings, re"),
        (
            "stops",
            "Features of stops: n_visits_7d",
            "with the same machine in the last 7 days; 0 if",
        ),
        ("stops", "Features of stops: visit_min_7d", "; missing if there are none"),
        ("flights", "Table flights: carrier", "text | no |  | has 2 characters"),
        ("flights", "Rules of flights: arr_delay", "reported if more than 10% are missing"),
        ("flights", "Rules of weather: all", "agree with weather.pbtxt, a reviewed schema"),
        ("flights", "Features of flights: org_dep_n_1h", "in the last hour; 0 if there are none"),
        ("flights", "Features of flights: car_late_mean_6h", "what follows from arr_delay"),
    ],
)
def test_the_tables_say(name, where, words):
    assert words in described(name)[where]


@pytest.mark.parametrize("name", CASES)
def test_nothing_of_python_is_left_in_the_words(name):
    said = description.summary(CASES[name]) + str(list(described(name).values()))

    for code in ("isin(", "in_range(", "str_length(", "lambda", "<function", "Timedelta", "nan"):
        assert not re.search(rf"(?<!\w){re.escape(code)}", said)
