"""Counts Parquet files under Apache Beam: on this machine, or on Dataflow, by Beam's own options.

It needs Beam's own environment, and the package on the path::

    python -m mlops_mini.statistics.beam_job --input='sales/*.parquet' --output=sales.pb

On Dataflow both paths are on Cloud Storage, and `--sdk_container_image` names an image with Beam's
SDK, the libraries of `environments/beam.txt` and this package, since workers import it.
"""

import argparse
import difflib
import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlops_mini.errors import InvalidArgumentError, MlopsMiniError
from mlops_mini.statistics import protos
from mlops_mini.statistics.beam import combine_fn, without_beam
from mlops_mini.statistics.mergeable import TableStatistics

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions


def dataflow_arguments(*, project: str, region: str, bucket: str, image: str) -> list[str]:
    """Write the options that run a job on Dataflow.

    Args:
        project: Id of the Google Cloud project.
        region: Such as us-central1.
        bucket: A bucket of Cloud Storage, without `gs://`, for what workers need and leave.
        image: What workers run in, by digest.

    >>> arguments = dataflow_arguments(
    ...     project="shop-prod", region="us-central1", bucket="b", image="r/beam@sha256:0a"
    ... )
    >>> arguments[0], arguments[-1]
    ('--runner=DataflowRunner', '--sdk_location=container')
    """
    return [
        "--runner=DataflowRunner",
        f"--project={project}",
        f"--region={region}",
        f"--temp_location=gs://{bucket}/temp",
        f"--staging_location=gs://{bucket}/staging",
        f"--sdk_container_image={image}",
        "--sdk_location=container",
    ]


def checked_options(arguments: Sequence[str]) -> "PipelineOptions":
    """Read options of Beam and of its runner, and refuse what can't be right before anything runs.

    Beam itself only warns of an option that it doesn't know, and runs without it.

    Args:
        arguments: As on a command line, with `--runner`.

    Returns:
        Beam's options.

    Raises:
        InvalidArgumentError: An option is unknown, missing or malformed; the message names all.
        FailedPreconditionError: Apache Beam is not installed.
    """
    try:
        from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
        from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
        from apache_beam.runners import create_runner
    except ImportError as exc:
        raise without_beam(exc) from exc

    known = set(PipelineOptions([]).get_all_options())
    options = PipelineOptions(list(arguments))
    faults = []
    for name in options.get_all_options(retain_unknown_options=True):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f": did you mean --{near[0]}?" if near else ""
            faults.append(f"--{name} is no option of Beam or its runners{meant}")
    runner = create_runner(options.view_as(StandardOptions).runner or "DirectRunner")
    faults += PipelineOptionsValidator(options, runner).validate()
    if faults:
        raise InvalidArgumentError("; ".join(fault.rstrip(".") for fault in faults))
    return options


def count(pattern: str, output: str, options: "PipelineOptions") -> None:
    """Count files, and write their statistics as `protos.read` reads them.

    Args:
        pattern: Parquet files, such as `sales/*.parquet` or `gs://bucket/sales/*.parquet`.
        output: The file to write.
        options: As `checked_options` returns them.
    """
    import apache_beam as beam
    from apache_beam.io.parquetio import ReadFromParquetBatched

    with beam.Pipeline(options=options) as pipeline:
        _ = (
            pipeline
            | ReadFromParquetBatched(pattern)
            | beam.Map(lambda batch: batch.to_pandas())
            | beam.CombineGlobally(combine_fn())
            | beam.Map(_write, output)
        )


def _write(statistics: TableStatistics, output: str) -> None:
    from apache_beam.io.filesystems import FileSystems

    with FileSystems.create(output) as file:
        file.write(protos.to_proto(statistics).SerializeToString(deterministic=True))


def main(argv: Sequence[str] | None = None) -> int:
    """Count; exit 2 with one line if an option can't be right, 1 if something else is."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--input", required=True, help="Parquet files, such as 'sales/*.parquet'")
    parser.add_argument("--output", required=True, help="the file of statistics")
    given, others = parser.parse_known_args(argv)
    # Beam warns of libraries that aren't there, whether or not they're needed.
    logging.basicConfig(level=logging.ERROR)
    try:
        options: Any = checked_options(others)
        logging.getLogger().setLevel(logging.WARNING)
        count(given.input, given.output, options)
    except InvalidArgumentError as exc:
        sys.stderr.write(f"beam_job: {exc}\n")
        return 2
    except (MlopsMiniError, OSError) as exc:
        sys.stderr.write(f"beam_job: {exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
