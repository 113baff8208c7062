"""Applies the repositories in a folder, and looks features up: history, and the newest online."""

import json
import subprocess
import sys
import time
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from feast import FeatureStore


def looked_up(folder: Path) -> pd.DataFrame:
    """Apply a repository by Feast's command, and join its features to the rows asked for."""
    command = [str(Path(sys.executable).with_name("feast")), "--chdir", str(folder), "apply"]
    subprocess.run(command, check=True)
    store = FeatureStore(str(folder))
    asked = pd.read_parquet(folder / "asked.parquet")
    service = store.get_feature_service("flights")
    history = store.get_historical_features(entity_df=asked, features=service).to_df()
    history.to_parquet(folder / "history.parquet")
    return history


def main(folder: Path) -> None:
    """Look up, and write what was found."""
    began = time.monotonic()
    history = looked_up(folder / "duckdb")
    history_s = time.monotonic() - began
    store = FeatureStore(str(folder / "duckdb"))
    asked = pd.read_parquet(folder / "duckdb" / "asked.parquet")
    until = asked["event_timestamp"].max()
    service = store.get_feature_service("flights")
    store.materialize(asked["event_timestamp"].min() - timedelta(days=2), until.to_pydatetime())
    keys = ["origin", "carrier", "dest"]
    rows = asked[keys].drop_duplicates().to_dict("records")
    online = store.get_online_features(features=service, entity_rows=rows).to_df()
    online.assign(until=until).to_parquet(folder / "duckdb" / "online.parquet")

    # The weather's values are published until one day, and live six hours.
    weather = pd.read_parquet(folder / "duckdb" / "weather.parquet")
    last = weather["as_of"].max()
    edge = pd.DataFrame(
        {
            "origin": ["EWR", "EWR"],
            "event_timestamp": [last + timedelta(hours=6), last + timedelta(hours=6, seconds=1)],
        }
    )
    at_the_edge = store.get_historical_features(edge, features=["weather:temp"]).to_df()
    temp = at_the_edge.sort_values("event_timestamp")["temp"]
    found = {
        "version": version("feast"),
        "views": sorted(view.name for view in store.list_feature_views()),
        "n_rows": len(history),
        "history_s": history_s,
        "n_online": int(online.drop(columns=keys).size),
        "at_the_edge": ["missing" if is_missing else "there" for is_missing in temp.isna()],
    }
    looked_up(folder / "file")
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
