"""Has TensorFlow Data Validation read statistics and a schema of ours, and count the same rows."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import tensorflow_data_validation as tfdv

DECIMALS = 6


def summary(feature: Any) -> dict[str, float]:
    """Take from a feature's statistics what both have: counts, moments, the most frequent text."""
    is_text = feature.WhichOneof("stats") == "string_stats"
    stats = feature.string_stats if is_text else feature.num_stats
    common = stats.common_stats
    taken = {"present": common.num_non_missing, "missing": common.num_missing}
    if is_text:
        return taken | {"unique": stats.unique, "top": stats.top_values[0].frequency}
    return taken | {
        "mean": stats.mean,
        "std_dev": stats.std_dev,
        "median": stats.median,
        "min": stats.min,
        "max": stats.max,
        "zeros": stats.num_zeros,
    }


def main(folder: Path) -> None:
    """Validate, compare, and write what was found."""
    schema = tfdv.load_schema_text(str(folder / "schema.pbtxt"))
    months = {
        month: tfdv.load_stats_binary(str(folder / f"{month}.pb"))
        for month in ("2013-01", "2013-02")
    }
    anomalies = tfdv.validate_statistics(months["2013-01"], schema)
    drifted = tfdv.validate_statistics(
        months["2013-02"], schema, previous_statistics=months["2013-01"]
    )
    rows = pd.read_csv(folder / "2013-01.csv", keep_default_na=False, na_values=[""])
    theirs = tfdv.generate_statistics_from_dataframe(rows)
    by_name = [
        {".".join(feature.path.step): summary(feature) for feature in counted.datasets[0].features}
        for counted in (months["2013-01"], theirs)
    ]
    differing = [
        f"{name} {what}"
        for name, ours in by_name[0].items()
        for what, value in ours.items()
        if not math.isclose(
            value, by_name[1][name][what], rel_tol=10**-DECIMALS, abs_tol=10**-DECIMALS
        )
    ]
    found = {
        "version": tfdv.__version__,
        "n_anomalies": len(anomalies.anomaly_info),
        "n_drifted": len(drifted.anomaly_info),
        "anomalies": {name: info.description for name, info in anomalies.anomaly_info.items()},
        "differing": differing,
        "n_compared": sum(map(len, by_name[0].values())),
    }
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
