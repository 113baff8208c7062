"""Feast: our features applied as its definitions, and looked up by it, for training and online."""

import time
from pathlib import Path

import numpy as np
import pandas as pd

from mlops_mini.features import events, feast, offline
from mlops_mini.flights import datasets
from mlops_mini.flights.features import FEATURES
from mlops_mini.flights.preparation import prepare
from tools.platforms import environments
from tools.platforms.piece import Piece

MONTH = "2013-01"
# How long the default store is asked about: it takes minutes and gigabytes for a month.
LOSING_DAYS = 3
_STORE = """\
project: flights
provider: local
registry: {repository}/registry.db
online_store:
    type: sqlite
    path: {repository}/online.db
offline_store:
    type: {offline_store}
entity_key_serialization_version: 3
"""


def run(folder: Path) -> Piece:
    """Apply, look up a month and the newest values, and compare them with ours, value by value."""
    environment = environments.made("feast")
    flights = datasets.flights(MONTH)
    prepared = prepare(flights)
    history = events.from_tables(FEATURES, {"flights": prepared}, {"flights": FEATURES.key})
    weather = datasets.weather()
    hours = weather["time_hour"]
    weather = weather[hours <= hours.min() + pd.Timedelta(days=40)]
    asked = pd.DataFrame(
        {
            "flight_id": flights["flight_id"],
            **{name: flights[name] for name in FEATURES.entities},
            "event_timestamp": (prepared["sched_dep_utc"] + pd.Timedelta(FEATURES.due)).dt.as_unit(
                "us"
            ),
        }
    )
    n_values = 0
    for offline_store, of in (("duckdb", asked), ("file", _first_days(asked))):
        repository = folder / offline_store
        repository.mkdir()
        n_rows = feast.write_values(
            FEATURES, repository, history=history, observed={"weather": weather}
        )
        n_values = sum(n_rows.values())
        if offline_store == "file":
            _keep_first_days(repository, of)
        (repository / "feature_store.yaml").write_text(
            _STORE.format(repository=repository, offline_store=offline_store)
        )
        (repository / "definitions.py").write_text(feast.definitions(FEATURES, folder=repository))
        of.to_parquet(repository / "asked.parquet", index=False)
    began = time.monotonic()
    found = environments.ask(environment, "feast_lookups", folder)
    took_s = time.monotonic() - began
    ours = offline.compute(
        flights, FEATURES, prepare=prepare, history=history, observed={"weather": weather}
    )
    history_differs = _n_different(pd.read_parquet(folder / "duckdb" / "history.parquet"), ours)
    online_differs = _online_differs(folder / "duckdb")
    lost = pd.read_parquet(folder / "file" / "history.parquet")
    environments.require(
        (found["n_rows"], history_differs, online_differs) == (len(asked), 0, 0),
        f"of {len(asked)} rows {found['n_rows']} came back; values that differ: {history_differs}"
        f" of the history, {online_differs} online",
    )
    environments.require(
        found["at_the_edge"] == ["there", "missing"],
        f"at the end of the time to live Feast has {found['at_the_edge']}",
    )
    return Piece(
        name="Feast",
        notes_tool="a feature store",
        our_object="`features.feast`: the flights' 18 features of events and weather",
        command="make platforms ONLY=feast",
        state="ran",
        facts={
            "Feast": found["version"],
            "feature views, all applied": ", ".join(found["views"]),
            "values written": f"{n_values:,}",
            "history (DuckDB): rows asked, rows back": f"{len(asked):,}, {found['n_rows']:,}",
            "values that differ from `offline.compute`": f"{history_differs:,}",
            "online (SQLite): values read": f"{found['n_online']:,}",
            "of these, other than the last one offline": f"{online_differs:,}",
            "6 hours old to the second, and a second older": ", ".join(found["at_the_edge"]),
            f"default store, {LOSING_DAYS} days: rows asked, rows back": (
                f"{len(_first_days(asked)):,}, {len(lost):,}"
            ),
            "time of a month's history, DuckDB": f"{found['history_s']:.1f} s",
            "time of all": f"{took_s:.0f} s",
            "environment": environments.size_mb(environment),
        },
    )


def _first_days(asked: pd.DataFrame) -> pd.DataFrame:
    first = asked["event_timestamp"].min()
    return asked[asked["event_timestamp"] < first + pd.Timedelta(days=LOSING_DAYS)]


def _keep_first_days(repository: Path, asked: pd.DataFrame) -> None:
    for file in repository.glob("*.parquet"):
        values = pd.read_parquet(file)
        values[values["as_of"] <= asked["event_timestamp"].max()].to_parquet(file, index=False)


def _n_different(history: pd.DataFrame, ours: pd.DataFrame) -> int:
    """Count the values that aren't the same bit by bit, and those of rows that are missing."""
    theirs = history.set_index("flight_id").reindex(ours.index)
    empty = {window.name: window.source.empty for window in FEATURES.windows}
    n_different = 0
    for name in [feature.name for feature in (*FEATURES.latest, *FEATURES.windows)]:
        values = theirs[name].to_numpy(np.float32)
        values = np.where(np.isnan(values), np.float32(empty.get(name, np.nan)), values)
        is_same = (values == ours[name]) | (np.isnan(values) & ours[name].isna())
        n_different += int((~is_same).sum())
    return n_different


def _online_differs(repository: Path) -> int:
    """Count the values online that aren't the last of their key offline."""
    online = pd.read_parquet(repository / "online.parquet")
    n_different = 0
    for view in (*(f"{name}_recent" for name in FEATURES.entities), "weather"):
        values = pd.read_parquet(repository / f"{view}.parquet")
        values = values[values["as_of"] <= online["until"].iloc[0]]
        entity = view.removesuffix("_recent") if view != "weather" else "origin"
        last = values.sort_values("as_of", kind="stable").groupby(entity).tail(1)
        last = last.set_index(entity).reindex(online[entity])
        for name in last.columns.drop("as_of"):
            theirs = online[name].to_numpy(np.float32)
            expected = last[name].to_numpy(np.float32)
            is_same = (theirs == expected) | (np.isnan(theirs) & np.isnan(expected))
            n_different += int((~is_same).sum())
    return n_different
