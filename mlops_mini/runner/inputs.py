"""Keep track of which task reads which artifact, so that an edit in place fails its task."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from mlops_mini.errors import FailedPreconditionError
from mlops_mini.runner import artifacts

JsonObject = dict[str, Any]
_WAY_OUT = "others read it too, so copy it (shutil.copyfile) and write to an output"


class Readers:
    """The artifacts of one run, and the tasks that read them; lives in one event loop."""

    def __init__(self) -> None:
        """Begin with no reader."""
        self._reading: dict[str, set[str]] = {}
        self._changed_by: dict[str, str] = {}

    def begin(self, task: str, inputs: Mapping[str, list[JsonObject]]) -> None:
        """Note that a task is about to read its inputs.

        Args:
            task: Its path.
            inputs: Lists of artifacts by name, as `artifacts.describe` describes them.

        Raises:
            FailedPreconditionError: Another task has changed one.
        """
        for name, many in inputs.items():
            for artifact in many:
                if who := self._changed_by.get(artifact["uri"]):
                    raise FailedPreconditionError(
                        f"its input {name!r} ({artifact['uri']}) is not what it was: {who} has "
                        "changed it; resume the run once that task is mended, and it is made anew"
                    )
        for uri in _uris(inputs):
            self._reading.setdefault(uri, set()).add(task)

    async def end(self, task: str, inputs: Mapping[str, list[JsonObject]]) -> str:
        """Check the inputs of a task that has ended.

        Returns:
            What it did wrong; empty if all its inputs still hold what they held.
        """
        changed = await asyncio.to_thread(artifacts.changed, inputs)
        for uri in _uris(inputs) - set(changed):
            self._reading[uri].discard(task)
        faults = []
        for uri, name in changed.items():
            others = sorted(self._reading[uri] - {task})
            at_once = (
                f", or {' or '.join(map(repr, others))} did at the same time" if others else ""
            )
            faults.append(f"it changed its input {name!r} ({uri}){at_once}: {_WAY_OUT}")
            self._changed_by.setdefault(uri, f"task {task!r}{' or another' if others else ''}")
        return "; ".join(faults)


def _uris(inputs: Mapping[str, list[JsonObject]]) -> set[str]:
    return {artifact["uri"] for many in inputs.values() for artifact in many}
