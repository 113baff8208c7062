"""Made data of the tenants: seeded, with outcomes that can be learned and rows that are wrong."""

from pathlib import Path

import numpy as np
import pandas as pd

from tests.tenants import churn, sensors


def write_customers(folder: Path, *, months: tuple[str, ...], n_rows: int = 1_500) -> None:
    """Write `customers/MONTH.csv`: dear basic plans with many calls are left."""
    rng = np.random.default_rng(5)
    (folder / "customers").mkdir(parents=True)
    for number, month in enumerate(months):
        start = pd.Timestamp(f"{month}-01", tz="Europe/Berlin")
        end = start + pd.offsets.MonthBegin(1)
        seconds = rng.integers(0, int((end - start).total_seconds()), n_rows)
        plan = rng.choice(churn.PLANS, n_rows, p=[0.6, 0.3, 0.1])
        usd = rng.gamma(4, 10, n_rows).round(2)
        calls = rng.poisson(3, n_rows).astype(float)
        score = 0.03 * (usd - 40) + 0.5 * (calls - 3) + 1.2 * (plan == "basic") - 1.5
        churned = (rng.random(n_rows) < 1 / (1 + np.exp(-score))).astype(int)
        calls[rng.random(n_rows) < 0.05] = np.nan
        billed_at = start + pd.to_timedelta(seconds, "s")
        usd[7] = 40_000.0  # in cents
        pd.DataFrame(
            {
                "customer": [f"c{number}-{i}" for i in range(n_rows)],
                "billed_at": billed_at.strftime("%Y-%m-%dT%H:%M:%S%z"),
                "plan": plan,
                "monthly_usd": usd,
                "calls": pd.array(calls, "Int64"),
                "churned": churned,
            }
        ).to_csv(folder / "customers" / f"{month}.csv", index=False)


def write_sensors(folder: Path, *, months: tuple[str, ...]) -> None:
    """Write `readings/MONTH.parquet` and `visits.csv`: hot machines that nobody visits stop."""
    rng = np.random.default_rng(6)
    (folder / "readings").mkdir(parents=True)
    first = pd.Timestamp(f"{months[0]}-01", tz=sensors.ZONE)
    last = pd.Timestamp(f"{months[-1]}-01", tz=sensors.ZONE) + pd.offsets.MonthBegin(1)
    hours = pd.date_range(first, last, freq="h", inclusive="left")
    parts, visits = [], []
    for machine in sensors.MACHINES:
        heat = np.convolve(rng.normal(0, 6, len(hours)), np.ones(24) / 4, mode="same")
        visited = rng.random(len(hours)) < 0.01
        calm = pd.Series(visited).rolling(72, min_periods=1).max().to_numpy()
        chance = 1 / (1 + np.exp(-(heat / 4 - 1.5 - 2 * calm)))
        stops = rng.random(len(hours)) < chance
        parts.append(
            pd.DataFrame(
                {
                    "machine": machine,
                    "read_at": hours.tz_convert("UTC"),
                    "temp_c": (60 + heat).round(1),
                    "load": rng.random(len(hours)).round(2),
                    "stops_in_h": np.where(stops, rng.integers(0, 7, len(hours)), 48).astype(float),
                }
            )
        )
        at = hours[visited].tz_convert("UTC") + pd.Timedelta("17min")
        visits.append(
            pd.DataFrame(
                {"machine": machine, "visited_at": at, "minutes": rng.integers(5, 90, len(at))}
            )
        )
    readings = pd.concat(parts).sort_values("read_at", kind="stable", ignore_index=True)
    readings.insert(0, "reading", np.arange(len(readings)))
    readings.loc[3, "temp_c"] = 900.0
    local = readings["read_at"].dt.tz_convert(sensors.ZONE).dt.strftime("%Y-%m")
    for month, rows in readings.groupby(local):
        rows.to_parquet(folder / "readings" / f"{month}.parquet", index=False)
    log = pd.concat(visits).sort_values("visited_at", kind="stable", ignore_index=True)
    log.insert(0, "visit", np.arange(len(log)))
    log["visited_at"] = log["visited_at"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    log.to_csv(folder / "visits.csv", index=False)
