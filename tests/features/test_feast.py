"""Our features in Feast's words, which is Python with the same names."""

import ast
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.features import feast, offline
from tests.features.toys import JOBS, climate, happened, jobs


def test_a_view_has_a_field_for_each_window_of_the_entity():
    source = feast.feature_view(JOBS, "line")

    fields = [
        call.keywords[0].value.value
        for call in ast.walk(ast.parse(source))
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "Field"
    ]
    assert fields == [window.name for window in JOBS.windows if window.source.entity == "line"]
    assert "ttl=timedelta(hours=" in source


def test_definitions_name_each_entity_once_and_each_feature_but_the_formulas(tmp_path):
    module = ast.parse(feast.definitions(JOBS, folder=tmp_path))

    calls = [node for node in ast.walk(module) if isinstance(node, ast.Call)]
    named = {
        kind: [call.keywords[0].value.value for call in calls if ast.unparse(call.func) == kind]
        for kind in ("Entity", "Field", "FeatureView", "FileSource", "FeatureService")
    }
    assert named["Entity"] == list(JOBS.entities)
    assert sorted(named["Field"]) == sorted(f.name for f in (*JOBS.windows, *JOBS.latest))
    assert named["FeatureService"] == ["jobs"]
    assert named["FileSource"] == [f"{tmp_path}/{name}.parquet" for name in named["FeatureView"]]


def test_the_last_value_that_still_stands_is_what_is_computed_offline(tmp_path):
    rows = jobs(400)
    sources = {"history": happened(rows), "observed": {"climate": climate()}}

    n_rows = feast.write_values(JOBS, tmp_path, **sources)

    due = pd.DataFrame({"at": rows["planned_at"] - pd.Timedelta(hours=1)}).assign(
        **{name: rows[name] for name in JOBS.entities}
    )
    due["at"] = due["at"].dt.as_unit("us")
    order = due["at"].argsort(kind="stable")
    looked_up = due.iloc[order].reset_index(drop=True)
    hours = {"climate": 6} | {
        f"{entity}_recent": max(
            w.source.window_s for w in JOBS.windows if w.source.entity == entity
        )
        / 3600
        for entity in JOBS.entities
    }
    assert set(n_rows) == set(hours)
    for view, ttl in hours.items():
        values = pd.read_parquet(tmp_path / f"{view}.parquet")
        by = "line" if view == "climate" else view.removesuffix("_recent")
        looked_up = pd.merge_asof(
            looked_up, values, left_on="at", right_on="as_of", by=by,
            tolerance=pd.Timedelta(hours=ttl),
        ).drop(columns="as_of")  # fmt: skip
    computed = offline.compute(rows, JOBS, counts_own=True, **sources).iloc[order]
    empty = {window.name: window.source.empty for window in JOBS.windows}
    for name in empty | {latest.name: float("nan") for latest in JOBS.latest}:
        known = looked_up[name].fillna(empty.get(name)) if name in empty else looked_up[name]
        np.testing.assert_array_equal(known, computed[name], err_msg=name)


def test_what_feast_cannot_hold_or_nobody_has_is_named(tmp_path):
    with pytest.raises(InvalidArgumentError, match=r"looked up by 'plan', but by \['line', 'prod"):
        feast.feature_view(JOBS, "plan")
    with pytest.raises(InvalidArgumentError, match=r"observations of \['climate'\] too; there are"):
        feast.write_values(JOBS, tmp_path, history=happened(jobs(9)), observed={})
    odd = replace(JOBS.windows[0], source=replace(JOBS.windows[0].source, entity="my line"))
    with pytest.raises(InvalidArgumentError, match="'my line' can't name a variable"):
        feast.definitions(replace(JOBS, features=[odd]), folder=tmp_path)
