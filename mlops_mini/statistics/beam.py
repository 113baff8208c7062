"""The same statistics under Apache Beam, for data that one machine does not hold.

The accumulator is that of `statistics`, so the numbers are too, on any runner::

    import apache_beam as beam
    from apache_beam.io.parquetio import ReadFromParquetBatched

    from mlops_mini.statistics.beam import combine_fn

    with beam.Pipeline() as pipeline:  # options name the runner, such as DataflowRunner
        statistics = (
            pipeline
            | ReadFromParquetBatched("readings/*.parquet")
            | beam.Map(lambda batch: batch.to_pandas())
            | beam.CombineGlobally(combine_fn())
        )
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd

from mlops_mini.errors import FailedPreconditionError
from mlops_mini.statistics import mergeable
from mlops_mini.statistics.mergeable import TableStatistics

if TYPE_CHECKING:
    import apache_beam


class StatisticsFn:
    """The four steps of a `CombineFn`: batches of rows in, statistics out."""

    def create_accumulator(self) -> TableStatistics:
        """Make the statistics of no rows."""
        return mergeable.create()

    def add_input(self, accumulator: TableStatistics, batch: pd.DataFrame) -> TableStatistics:
        """Count a batch of rows."""
        return mergeable.add(accumulator, batch)

    def merge_accumulators(self, accumulators: Iterable[TableStatistics]) -> TableStatistics:
        """Put the statistics of parts together."""
        merged = mergeable.create()
        for accumulator in accumulators:
            merged = mergeable.merge(merged, accumulator)
        return merged

    def extract_output(self, accumulator: TableStatistics) -> TableStatistics:
        """Return the statistics as they are."""
        return accumulator


def combine_fn() -> "apache_beam.CombineFn":
    """Make the `CombineFn` for `CombineGlobally` or `CombinePerKey`.

    Returns:
        Takes batches as `pandas.DataFrame`, gives `TableStatistics`.

    Raises:
        FailedPreconditionError: Apache Beam is not installed.
    """
    try:
        from apache_beam import CombineFn
    except ImportError as exc:
        raise without_beam(exc) from exc
    return type("StatisticsCombineFn", (StatisticsFn, CombineFn), {})()


def without_beam(exc: ImportError) -> FailedPreconditionError:
    """Make the error for who hasn't got Apache Beam, with the way out."""
    return FailedPreconditionError(
        f"statistics under Beam need Apache Beam, which cannot be imported ({exc}): it would"
        " change other packages here, so give it an environment of its own, by"
        " `pip install -r environments/beam.txt`"
    )
