import numpy as np
import pandas as pd
import pytest
from tensorflow_metadata.proto.v0 import schema_pb2

from mlops_mini.errors import DataIntegrityError, NotFoundError
from mlops_mini.flights import datasets, tables
from mlops_mini.statistics import mergeable, schemas
from tests.statistics.test_mergeable import of

TABLES = ("flights", "weather")
REVIEWED = {table.name: schemas.read(table.schema) for table in (tables.FLIGHTS, tables.WEATHER)}


def january(table):
    if table == "flights":
        return datasets.flights("2013-01")
    weather = datasets.weather()
    return weather[weather["month"] == 1]


@pytest.fixture(scope="module")
def inferred():
    return {table: schemas.infer(of(january(table))) for table in TABLES}


def feature(schema, name):
    (found,) = [feature for feature in schema.feature if feature.name == name]
    return found


def test_identifiers_get_no_vocabulary(inferred):
    with_vocabulary = [f.name for f in inferred["flights"].feature if f.HasField("string_domain")]

    assert with_vocabulary == ["carrier", "origin", "dest"]


def test_a_vocabulary_leaves_room_for_new_values(inferred):
    dest = feature(inferred["flights"], "dest")

    assert dest.distribution_constraints.min_domain_mass == 0.99
    assert len(dest.string_domain.value) == 94


@pytest.mark.parametrize("table", TABLES)
def test_no_range_is_taken_from_one_month(inferred, table):
    assert [f.name for f in inferred[table].feature if schemas.number_domain(f) is not None] == []


def test_whole_numbers_with_missing_ones_are_integers(inferred):
    assert feature(inferred["flights"], "arr_delay").type == schema_pb2.INT
    assert feature(inferred["weather"], "wind_dir").type == schema_pb2.INT
    assert feature(inferred["weather"], "temp").type == schema_pb2.FLOAT


def test_a_column_with_missing_values_must_only_not_be_empty(inferred):
    gust = feature(inferred["weather"], "wind_gust").presence
    origin = feature(inferred["weather"], "origin").presence

    assert (gust.HasField("min_fraction"), gust.min_count) == (False, 1)
    assert (origin.min_fraction, origin.min_count) == (1.0, 1)


def test_the_literal_schema_takes_one_month_at_its_word():
    schema = schemas.infer(of(january("flights")), literal=True)

    assert schemas.range_text(feature(schema, "month").int_domain) == "1 to 1"
    assert feature(schema, "tailnum").string_domain.value
    assert feature(schema, "dest").distribution_constraints.min_domain_mass == 1.0
    assert feature(schema, "arr_delay").presence.min_fraction == pytest.approx(1 - 606 / 27_004)


@pytest.mark.parametrize("table", TABLES)
def test_text_and_back_is_the_same_schema(inferred, table, tmp_path):
    path = tmp_path / "schema.pbtxt"
    path.write_text(schemas.to_text(inferred[table]))

    assert schemas.read(path) == inferred[table]
    assert schemas.diff(inferred[table], schemas.read(path)) == []


@pytest.mark.parametrize("table", TABLES)
def test_the_review_keeps_columns_and_types(inferred, table):
    columns = [
        [(f.name, f.type) for f in schema.feature] for schema in (inferred[table], REVIEWED[table])
    ]

    assert columns[0] == columns[1]


def test_the_diff_shows_what_a_person_has_changed(inferred):
    assert schemas.diff(inferred["flights"], REVIEWED["flights"]) == [
        "month: range, now 1 to 12",
        "day: range, now 1 to 31",
        "sched_dep_time: range, now 0 to 2400",
        "dep_delay: presence, not wholly empty becomes in at least 0.8 of the rows",
        "sched_arr_time: range, now 0 to 2400",
        "arr_delay: presence, not wholly empty becomes in at least 0.8 of the rows",
        "carrier: drift_comparator, now infinity_norm at most 0.0083",
        "tailnum: presence, not wholly empty becomes in at least 0.9 of the rows",
        "origin: vocabulary's share, at least 0.99 becomes at least 1",
        "origin: drift_comparator, now infinity_norm at most 0.0118",
        "dest: drift_comparator, now infinity_norm at most 0.0075",
        "air_time: presence, not wholly empty becomes in at least 0.8 of the rows",
        "air_time: range, now 1 to 1440",
        "distance: range, now 50 to 5000",
    ]


def test_the_diff_names_columns_and_words_that_came_or_went():
    before, after = schema_pb2.Schema(), schema_pb2.Schema()
    before.feature.add(name="gone", type="INT")
    before.feature.add(name="dest", type="BYTES", string_domain={"value": ["ALB", "ATL"]})
    after.feature.add(name="dest", type="BYTES", string_domain={"value": ["ATL", "LEX", "ABQ"]})
    after.feature.add(name="new", type="BYTES", string_domain={"value": ["b", "a"]})

    assert schemas.diff(before, after) == [
        "gone: column, no longer",
        "dest: vocabulary, +ABQ +LEX -ALB",
        "new: column, now texts, a b, at least 1",
    ]


def test_a_file_that_is_no_schema_is_refused_with_its_line(tmp_path):
    path = tmp_path / "schema.pbtxt"
    path.write_text('feature { name: "a"\n  kind: INT }\n')

    with pytest.raises(DataIntegrityError, match=r"schema\.pbtxt holds no schema \(2:3") as error:
        schemas.read(path)
    assert "\n" not in str(error.value)


def test_a_table_without_a_reviewed_schema_is_not_found():
    with pytest.raises(
        NotFoundError,
        match=r"no schema .*planes\.pbtxt; .*'weather\.pbtxt'\].*schemas\.to_text",
    ):
        schemas.read(tables.FLIGHTS.schema.with_name("planes.pbtxt"))


@pytest.mark.parametrize(
    ("numbers", "kind"),
    [
        ([2**70, -1], schema_pb2.FLOAT),
        ([2.0**63], schema_pb2.FLOAT),
        ([-(2.0**63), 2.0**62], schema_pb2.INT),
        ([np.inf, 1.0], schema_pb2.FLOAT),
    ],
)
def test_whole_numbers_that_no_integer_of_a_schema_holds_are_floats(numbers, kind):
    table = mergeable.add(mergeable.create(), pd.DataFrame({"n": numbers}))

    (feature,) = schemas.infer(table, literal=True).feature

    assert feature.type == kind
    assert schemas.number_domain(feature).max == max(numbers)
