import pandas as pd
import pyarrow as pa
import pytest

from mlops_mini.data import rules
from mlops_mini.data.table import RowRule, Series, Table
from mlops_mini.errors import InvalidArgumentError

READINGS = {
    "name": "readings",
    "key": ("machine", "time"),
    "time": "time",
    "columns": {"machine": "text", "time": "instant", "temp_c": "number?", "n_parts": "int16?"},
    "series": Series(every="1h", of="machine", max_age="6h", together=("temp_c",)),
}


def test_columns_become_an_arrow_schema():
    table = Table(**READINGS)

    assert table.arrow == pa.schema(
        [
            pa.field("machine", pa.string(), nullable=False),
            pa.field("time", pa.timestamp("us", tz="UTC"), nullable=False),
            pa.field("temp_c", pa.float64()),
            pa.field("n_parts", pa.int16()),
        ]
    )


def test_rules_are_told_apart():
    whole = rules.is_whole("n_parts")

    assert Table(**READINGS, rules=whole).row_rules == whole
    assert Table(**READINGS, rules=whole).whole_rules == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "my readings"}, "'my readings' can't name a table"),
        ({"name": "../readings"}, "can't name a table"),
        ({"key": "machine"}, "key is 'machine', expected the columns"),
        ({"key": ()}, r"key is \(\)"),
        ({"key": ("machine", "machine")}, "key is"),
        ({"key": ("machin", "time")}, "key names column 'machin', which is not among its columns"),
        ({"time": "at"}, r"time names column 'at'.*, or add it by prepare"),
        ({"time": "temp_c"}, r"'temp_c' tells rows apart .* take the \? off 'number\?'"),
        ({"time": "machine"}, "time 'machine' is of kind 'text', expected instant"),
        ({"columns": {"machine": "word", "time": "instant"}}, "'machine' is of no kind 'word'"),
        ({"columns": {"machine": "text?", "time": "instant"}}, "values can't be missing"),
        ({"columns": {"machine": "text", "time": "timestamp[us]"}}, "a time without a zone"),
        ({"rules": [rules.in_range("temp", 0, 1)]}, r"rule 'in_range\(0, 1\)' names column 'temp'"),
        ({"rules": [rules.is_whole("n_parts")]}, "rules hold a tuple.* write a star before it"),
        ({"max_missing": {"temp": 0.1}}, "max_missing names column 'temp'"),
        ({"max_missing": {"temp_c": 10}}, "max_missing of 'temp_c' is 10, expected 0 to 1"),
        ({"series": Series(every="1h", of="place", max_age="6h")}, "series names column 'place'"),
        (
            {"series": Series(every="1h", of="machine", max_age="6h", together=("temp",))},
            "together names column 'temp'",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused_when_the_table_is_made(change, message):
    with pytest.raises(InvalidArgumentError, match=message) as error:
        Table(**(READINGS | change))

    assert "\n" not in str(error.value)


@pytest.mark.parametrize("every", ["0h", "-1h", "hourly", ""])
def test_a_series_needs_a_time_between_rows(every):
    with pytest.raises(InvalidArgumentError, match="every is"):
        Series(every=every, of="machine", max_age="6h")


def test_prepare_may_add_the_time_the_key_and_what_rules_ask_about():
    table = Table(
        name="visits",
        key=["visit"],
        time="begun",
        columns={"day": "text"},
        rules=[rules.in_range("visit", 0, 5)],
        prepare=lambda rows: rows.assign(begun=pd.to_datetime(rows["day"], utc=True), visit=1),
    )

    assert table.arrow.names == ["day"]


def test_a_row_rule_says_what_it_is_about():
    rule = rules.row_rule("is warm", ["temp_c"], lambda rows: rows["temp_c"] > 20)

    assert isinstance(rule, RowRule)
    assert (rule.columns, rule.name) == (("temp_c",), "is warm")
