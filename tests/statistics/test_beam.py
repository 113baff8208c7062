import sys

import numpy as np
import pandas as pd
import pytest

from mlops_mini.errors import FailedPreconditionError
from mlops_mini.flights import datasets
from mlops_mini.statistics import beam, beam_job
from tests.statistics.test_mergeable import assert_same, of


def test_the_steps_of_a_combine_fn_give_the_statistics_of_the_whole():
    """As a runner takes them: bundles of batches, merged in stages."""
    january = datasets.flights("2013-01")
    steps = beam.StatisticsFn()
    accumulators = []
    for bundle in np.array_split(np.arange(27_004), 4):
        accumulator = steps.create_accumulator()
        for batch in np.array_split(bundle, 3):
            accumulator = steps.add_input(accumulator, january.iloc[batch])
        accumulators.append(accumulator)
    halves = [
        steps.merge_accumulators(accumulators[:2]),
        steps.merge_accumulators(accumulators[2:]),
    ]

    output = steps.extract_output(steps.merge_accumulators(iter(halves)))

    assert_same(output, of(january))


def test_merging_nothing_gives_the_statistics_of_no_rows():
    steps = beam.StatisticsFn()

    assert_same(steps.merge_accumulators([]), of(pd.DataFrame()))


def test_without_apache_beam_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)  # as if it were not installed

    with pytest.raises(
        FailedPreconditionError, match=r"its own, by `pip install -r environments/beam\.txt`"
    ):
        beam.combine_fn()


def test_a_job_without_apache_beam_is_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "apache_beam", None)

    status = beam_job.main(["--input=flights.parquet", "--output=flights.pb"])

    assert status == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("`pip install -r environments/beam.txt`")
