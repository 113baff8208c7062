import math

import numpy as np
import pandas as pd
import pytest
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from mlops_mini.errors import DataIntegrityError, NotFoundError
from mlops_mini.flights import datasets
from mlops_mini.statistics import mergeable, protos
from tests.statistics.test_mergeable import assert_same, of


@pytest.fixture(scope="module")
def january():
    return datasets.flights("2013-01")


@pytest.fixture(scope="module")
def features(january):
    message = protos.to_proto(of(january), name="2013-01")
    (table,) = message.datasets
    assert (table.name, table.num_examples) == ("2013-01", 27_004)
    return {feature.path.step[0]: feature for feature in table.features}


def test_what_is_written_is_read_back(january, tmp_path):
    odd = january.assign(
        empty=None,
        nan=math.nan,
        infinite=np.inf,
        noise=np.random.default_rng(0).normal(size=27_004),
    )
    counted = of(odd)

    protos.write(counted, tmp_path / "january.pb", name="2013-01")

    assert_same(
        protos.read(tmp_path / "january.pb"),
        mergeable.merge(counted, mergeable.create()),
    )
    assert [path.name for path in tmp_path.iterdir()] == ["january.pb"]


def test_numbers_fill_the_fields_that_other_tools_read(january, features):
    delay_min = january["arr_delay"]
    feature = features["arr_delay"]
    stats = feature.num_stats

    assert feature.type == feature.INT
    common = stats.common_stats
    assert (common.num_non_missing, common.num_missing, common.tot_num_values) == (
        26_398, 606, 26_398,
    )  # fmt: skip
    assert (common.min_num_values, common.max_num_values, common.avg_num_values) == (1, 1, 1.0)
    assert (stats.min, stats.median, stats.max) == (-70, delay_min.median(), 1_272)
    assert stats.mean == pytest.approx(delay_min.mean())
    assert stats.std_dev == pytest.approx(delay_min.std(ddof=0))
    assert stats.num_zeros == (delay_min == 0).sum()


def test_the_histograms_are_those_of_numpy(january, features):
    delay_min = january["arr_delay"].dropna()
    standard, quantiles = features["arr_delay"].num_stats.histograms

    n_rows, edges = np.histogram(delay_min, bins=10)
    assert standard.type == statistics_pb2.Histogram.STANDARD
    assert [bucket.sample_count for bucket in standard.buckets] == n_rows.tolist()
    assert [bucket.low_value for bucket in standard.buckets] == pytest.approx(edges[:-1])
    assert [bucket.high_value for bucket in standard.buckets] == pytest.approx(edges[1:])
    assert quantiles.type == statistics_pb2.Histogram.QUANTILES
    assert [bucket.high_value for bucket in quantiles.buckets] == pytest.approx(
        delay_min.quantile(np.arange(1, 11) / 10).tolist()
    )
    assert {bucket.sample_count for bucket in quantiles.buckets} == {2_639.8}


def test_texts_fill_the_fields_that_other_tools_read(january, features):
    feature = features["carrier"]
    stats = feature.string_stats
    ranked = january["carrier"].value_counts()

    assert feature.type == feature.STRING
    assert (stats.unique, stats.avg_length) == (16, 2.0)
    assert (stats.common_stats.num_non_missing, stats.common_stats.num_missing) == (27_004, 0)
    buckets = stats.rank_histogram.buckets
    assert [(b.label, b.sample_count) for b in buckets] == list(ranked.items())
    assert [(b.low_rank, b.high_rank) for b in buckets] == [(i, i) for i in range(16)]
    assert [(top.value, top.frequency) for top in stats.top_values] == list(ranked.items())
    assert len(features["dest"].string_stats.top_values) == 20


def test_whole_numbers_are_written_as_the_schema_says():
    dry = of(pd.DataFrame({"precip": [0.0, 0.0]}))
    schema = schema_pb2.Schema()
    schema.feature.add(name="precip", type="FLOAT")

    types = [
        protos.to_proto(dry, schema=given).datasets[0].features[0].type for given in (None, schema)
    ]

    assert types == [statistics_pb2.FeatureNameStatistics.INT, 1]
    assert types[1] == statistics_pb2.FeatureNameStatistics.FLOAT


def test_a_column_of_infinite_numbers_can_be_written():
    message = protos.to_proto(of(pd.DataFrame({"a": [math.inf, -math.inf]})))

    stats = message.datasets[0].features[0].num_stats
    assert (stats.min, stats.max, len(stats.histograms)) == (-math.inf, math.inf, 0)


def test_files_that_hold_no_statistics_are_refused(tmp_path):
    path = tmp_path / "january.pb"
    with pytest.raises(
        NotFoundError, match=r"no statistics .*january\.pb; write them with protos\.write"
    ):
        protos.read(path)

    protos.write(of(pd.DataFrame({"a": [1]})), path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(
        DataIntegrityError, match=r"january\.pb holds no statistics .*with protos\.write"
    ):
        protos.read(path)

    path.write_bytes(b"")
    with pytest.raises(DataIntegrityError, match="statistics of 0 data sets, expected one"):
        protos.read(path)


def test_statistics_of_another_tool_lack_the_counts():
    message = protos.to_proto(of(pd.DataFrame({"a": [1]})))
    del message.datasets[0].features[0].custom_stats[:]

    with pytest.raises(DataIntegrityError, match=r"'a' hold no counts .*: another tool wrote"):
        protos.from_proto(message)
