"""A run as OpenLineage events, for tools that collect lineage from many systems.

Events follow https://openlineage.io/spec/2-0-2/OpenLineage.json; they are written to a file, one to
a line, and sent nowhere.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from mlops_mini import files
from mlops_mini.errors import NotFoundError
from mlops_mini.lineage.lineage import Lineage

_SCHEMA = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
_FACETS = "https://openlineage.io/spec/facets/"
_VERSION = "1-0-1/DatasetVersionDatasetFacet.json"
_STATISTICS = "1-0-0/InputStatisticsInputDatasetFacet.json"
_PRODUCER = "https://pypi.org/project/mlops_mini"
_NAMES = uuid.uuid5(uuid.NAMESPACE_URL, _PRODUCER)
_ENDS = {"SUCCEEDED": "COMPLETE", "FAILED": "FAIL", "CANCELLED": "ABORT"}


def events(lineage: Lineage) -> list[dict[str, Any]]:
    """Tell a run as events: its start, and its end with all that it has read and made.

    Args:
        lineage: Of a version or a run.

    Raises:
        NotFoundError: There's no record of the run.
    """
    run = lineage.run
    if run is None:
        raise NotFoundError(f"no record of the run that has made {lineage.name}")
    common = {
        "producer": _PRODUCER,
        "schemaURL": _SCHEMA,
        # The same run has the same id, however often it's told.
        "run": {"runId": str(uuid.uuid5(_NAMES, run.id)), "facets": {}},
        "job": {"namespace": "mlops_mini", "name": run.pipeline},
        "inputs": [_input(lineage, part) for part in lineage.partitions],
    }
    told = [{**common, "eventType": "START", "eventTime": run.started_at}]
    if run.ended_at:
        end = _ENDS.get(run.state, "OTHER")
        told.append(
            {**common, "eventType": end, "eventTime": run.ended_at, "outputs": _outputs(lineage)}
        )
    return told


def write(lineage: Lineage, file: Path) -> Path:
    """Write a run's events to a file, one to a line; an earlier file is replaced."""
    lines = [json.dumps(event) + "\n" for event in events(lineage)]
    with files.whole_file(file) as unfinished:
        unfinished.write_text("".join(lines))
    return file


def _input(lineage: Lineage, part: Any) -> dict[str, Any]:
    return {
        "namespace": lineage.model,
        "name": f"{part.table}/{part.period}",
        "facets": {"version": _facet(_VERSION, datasetVersion=part.digest)},
        "inputFacets": {
            "inputStatistics": _facet(_STATISTICS, rowCount=part.n_rows),
        },
    }


def _outputs(lineage: Lineage) -> list[dict[str, Any]]:
    if lineage.publication is None:
        return []
    version = _facet(_VERSION, datasetVersion=lineage.publication.model_digest)
    name = f"models/{lineage.model}/{lineage.version}"
    return [{"namespace": lineage.model, "name": name, "facets": {"version": version}}]


def _facet(schema: str, **fields: Any) -> dict[str, Any]:
    return {"_producer": _PRODUCER, "_schemaURL": f"{_FACETS}{schema}", **fields}
