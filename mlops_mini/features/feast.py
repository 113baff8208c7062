"""Features in the words of Feast, a feature store that many servers share.

Feast stores values and says for how long each stands; how a window is computed remains a job of
one's own. So two things are exported: the definitions, which are Python, and the values, a Parquet
file for each view. A view has a row for each instant at which a value changes, so that Feast's
lookup, the last row not older than the view's time to live, finds what `offline.compute` computes.

Source:
    https://docs.feast.dev/getting-started/concepts/feature-view
"""

import json
import keyword
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.features import events, prefix_sums
from mlops_mini.features.feature_set import FeatureSet
from mlops_mini.features.instants import Seconds
from mlops_mini.features.prefix_sums import Queries
from mlops_mini.features.sources import Feature, Latest, Observation, Window

AS_OF = "as_of"
_IMPORTS = """\
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource
from feast.types import Float32
"""


def feature_view(feature_set: FeatureSet, entity: str, *, folder: Path = Path()) -> str:
    """Write the windows of an entity as Feast's Python.

    A row stands for as long as the longest window: whatever was in one has left it by then. So
    where Feast has nothing, a count is 0 and a mean is missing, as `Window.empty` says.

    Args:
        feature_set: Whose windows.
        entity: Which of them: those that are looked up by this column.
        folder: Where the view's values are. Give an absolute path: Feast's stores don't agree on
            what a relative one starts from.

    Returns:
        Source of an `Entity` and a `FeatureView`.

    Raises:
        InvalidArgumentError: No window is looked up by this column, or it can't name a variable.
    """
    windows = _windows(feature_set, entity)
    if not windows:
        names = sorted({window.source.entity for window in feature_set.windows})
        raise InvalidArgumentError(f"no window is looked up by {entity!r}, but by {names}")
    ttl_s = max(window.source.window_s for window in windows)
    names = [window.name for window in windows]
    return f"{_entity(entity)}\n{_view(f'{entity}_recent', entity, names, ttl_s, folder)}"


def definitions(feature_set: FeatureSet, *, folder: Path) -> str:
    """Write all that comes from events and observations as the Python of a Feast repository.

    Args:
        feature_set: Whose windows and last observations; formulas follow from the request itself.
        folder: Where the values are, see `write_values`.

    Returns:
        Source of a module: entities, feature views, and a `FeatureService` with all of them.

    Raises:
        InvalidArgumentError: The name of an entity or a table can't name a variable in Python.

    >>> from mlops_mini.features.sources import Latest
    >>> weather = Observation(
    ...     table="weather", entity="site", time="hour", published_after_s=3600, time_to_live_s=7200
    ... )
    >>> wind = Feature(
    ...     name="wind",
    ...     group="weather",
    ...     unit="m/s",
    ...     description="",
    ...     source=Latest(observation=weather, value="wind_ms"),
    ... )
    >>> turbines = FeatureSet(of="turbines", key="id", time="at", inputs=["site"], features=[wind])
    >>> source = definitions(turbines, folder=Path("/values"))
    >>> print(source[source.index("site =") :].strip())
    site = Entity(name="site", join_keys=["site"])
    weather = FeatureView(
        name="weather",
        entities=[site],
        schema=[
            Field(name="wind", dtype=Float32),
        ],
        ttl=timedelta(hours=2),
        source=FileSource(path="/values/weather.parquet", timestamp_field="as_of"),
    )
    turbines = FeatureService(name="turbines", features=[weather])
    """
    sources, views = [], []
    for entity in feature_set.entities:
        if _windows(feature_set, entity):
            sources.append(feature_view(feature_set, entity, folder=folder))
            views.append(f"{entity}_recent")
        else:
            sources.append(_entity(entity))
    for observation in feature_set.observations:
        name, ttl_s = observation.table, observation.time_to_live_s
        names = [latest.name for latest in _latest(feature_set, observation)]
        sources.append(_view(name, observation.entity, names, ttl_s, folder))
        views.append(name)
    service = f'FeatureService(name="{feature_set.of}", features=[{", ".join(views)}])'
    return "\n".join([_IMPORTS, *sources, f"{feature_set.of} = {service}\n"])


def write_values(
    feature_set: FeatureSet,
    folder: Path,
    *,
    history: pd.DataFrame,
    observed: Mapping[str, pd.DataFrame],
) -> dict[str, int]:
    """Write the values of each view into a Parquet file.

    Args:
        feature_set: Whose.
        folder: Where; it exists.
        history: As `events.from_tables` gives it.
        observed: Rows by table of observations.

    Returns:
        Rows by view.

    Raises:
        InvalidArgumentError: A table or a column isn't there, or an instant has no time zone.
    """
    tables = [observation.table for observation in feature_set.observations]
    if missing_tables := [table for table in tables if table not in observed]:
        raise InvalidArgumentError(
            f"values need the observations of {missing_tables} too; there are {sorted(observed)}"
        )
    known = events.checked_history(feature_set, history)
    frames = {
        f"{entity}_recent": _changes(entity, windows, known)
        for entity in feature_set.entities
        if (windows := _windows(feature_set, entity))
    }
    for observation in feature_set.observations:
        rows = events.checked_observations(feature_set, observation, observed[observation.table])
        values = {
            latest.name: rows[latest.source.value].astype(np.float32)
            for latest in _latest(feature_set, observation)
        }
        keys = {observation.entity: rows[observation.entity], AS_OF: rows["available_s"]}
        frames[observation.table] = pd.DataFrame(keys | values)
    for name, frame in frames.items():
        # DuckDB can't cast instants of nanoseconds.
        as_of = pd.to_datetime(frame[AS_OF], unit="s", utc=True).dt.as_unit("us")
        frame.assign(**{AS_OF: as_of}).to_parquet(folder / f"{name}.parquet", index=False)
    return {name: len(frame) for name, frame in frames.items()}


def _changes(entity: str, windows: list[Feature[Window]], known: pd.DataFrame) -> pd.DataFrame:
    """Compute windows at each instant at which an event enters or leaves one."""
    instants = []
    for source in (window.source for window in windows):
        for event in (source.event, *([source.less] if source.less else [])):
            rows = known[known["kind"] == event.kind]
            instants += [
                pd.DataFrame({entity: rows[entity], AS_OF: at_s})
                for at_s in (rows["available_s"], rows["event_s"] + source.window_s)
            ]
    changes = pd.concat(instants).dropna().drop_duplicates()
    changes = changes.sort_values(AS_OF, kind="stable", ignore_index=True)
    at_s: Seconds = changes[AS_OF].to_numpy(np.int64)
    computed = prefix_sums.Windows(
        known, Queries(entities=changes[[entity]], at_s=at_s, table="", without=None)
    )
    values = {each.name: computed.values(each.source).astype(np.float32) for each in windows}
    return changes.assign(**values)


def _windows(feature_set: FeatureSet, entity: str) -> list[Feature[Window]]:
    return [window for window in feature_set.windows if window.source.entity == entity]


def _latest(feature_set: FeatureSet, observation: Observation) -> list[Feature[Latest]]:
    return [each for each in feature_set.latest if each.source.observation == observation]


def _entity(entity: str) -> str:
    _require_variable(entity)
    return f'{entity} = Entity(name="{entity}", join_keys=["{entity}"])'


def _view(name: str, entity: str, features: list[str], ttl_s: int, folder: Path) -> str:
    _require_variable(name)
    path = json.dumps(str(folder / f"{name}.parquet"))
    return "\n".join(
        [
            f"{name} = FeatureView(",
            f'    name="{name}",',
            f"    entities=[{entity}],",
            "    schema=[",
            *(f'        Field(name="{feature}", dtype=Float32),' for feature in features),
            "    ],",
            f"    ttl=timedelta(hours={ttl_s / 3600:g}),",
            f'    source=FileSource(path={path}, timestamp_field="{AS_OF}"),',
            ")",
        ]
    )


def _require_variable(name: str) -> None:
    if not name.isidentifier() or keyword.iskeyword(name):
        raise InvalidArgumentError(
            f"{name!r} can't name a variable, so Feast's Python can't hold it: rename the column or"
            " the table, with letters, digits and _"
        )
