"""Tables that the package has never heard of go through the whole loop."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_mini.data import rules, table_files
from mlops_mini.errors import AbortedError
from mlops_mini.features import events, online
from mlops_mini.features.store import Store
from mlops_mini.local_server import LocalServer
from mlops_mini.loop import plan, play
from mlops_mini.model import evaluation, publish
from mlops_mini.pipeline import definition, examples, scoring
from mlops_mini.runner.runner import Runner
from mlops_mini.use_case import UseCase, load
from tests.once import made_once
from tests.tenants import churn, made, sensors

TENANTS = {
    "churn": ("tests.tenants.churn:CHURN", "2026-03", "customer"),
    "stops": ("tests.tenants.sensors:STOPS", "2026-03", "reading"),
}
MONTHS = ("2026-01", "2026-02", "2026-03")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both tenants' data in one folder. Never change it."""

    def make(folder: Path) -> None:
        made.write_customers(folder, months=MONTHS)
        made.write_sensors(folder, months=MONTHS)

    return made_once(tmp_path_factory, "tenants", make)


@pytest.mark.parametrize(("file", "most"), [(churn.__file__, 60), (sensors.__file__, 120)])
def test_a_description_is_short(file: str, most: int) -> None:
    assert len(Path(file).read_text().splitlines()) <= most


def test_each_row_that_breaks_a_rule_is_set_aside_with_its_reason(data: Path) -> None:
    for use_case, table, rule in (
        (churn.CHURN, churn.CUSTOMERS, "monthly_usd: in_range(0, 1000), found 40000.0"),
        (sensors.STOPS, sensors.READINGS, "temp_c: in_range(-20, 200), found 900.0"),
    ):
        january = use_case.calendar.period("2026-01")
        rows = table_files.load(table, january, calendar=use_case.calendar, folder=data)

        split = rules.split(table, rows, january)

        assert split.quarantined["reason"].tolist() == [rule]


@pytest.mark.parametrize("name", TENANTS)
def test_features_of_training_and_serving_are_the_same_to_the_bit(data, tmp_path, name) -> None:
    use_case = load(TENANTS[name][0])
    months = [use_case.calendar.period(month) for month in MONTHS[:2]]
    known = examples.read(use_case, months, data_folder=data)
    newest, features = known.periods[-1], use_case.feature_set
    rows = newest.rows.iloc[np.random.default_rng(0).permutation(len(newest.rows))[:300]]
    rows = rows.sort_values(features.time, kind="stable")
    due = rows[features.time] + pd.Timedelta(features.due)

    served = []
    with Store(tmp_path / "store.sqlite", features) as store:
        requests = online.requests(rows, features, prepare=use_case.examples.prepare, store=store)
        for at in due:
            instant = at.to_pydatetime()
            store.apply(events.between(known.stream, store.as_of, instant), up_to=instant)
            served.append(next(requests))

    trained = newest.features.loc[rows[features.key]]
    served = pd.DataFrame(served, index=trained.index).astype(trained.dtypes)
    pd.testing.assert_frame_equal(served, trained, check_exact=True)
    assert trained.notna().mean().min() > 0.5


def arguments(use_case: str, workspace: Path, data: Path) -> dict:
    return definition.arguments(
        use_case,
        "2026-03",
        models_folder=workspace / "models" / load(use_case).name,
        verdicts_folder=workspace / "verdicts",
        data_folder=data,
        with_challenger=use_case.endswith("STOPS"),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", TENANTS)
def test_a_pipeline_learns_publishes_and_remembers(data, tmp_path, name) -> None:
    dotted, _, key = TENANTS[name]
    use_case: UseCase = load(dotted)
    asked = arguments(dotted, tmp_path, data)

    with Runner(tmp_path / "runs") as runner:
        (tmp_path / "models").touch()  # nothing can be published there
        with pytest.raises(AbortedError, match="publish"):
            runner.run(definition.continuous_training, asked, run_id="first")
        (tmp_path / "models").unlink()
        first = runner.resume("first", definition.continuous_training)
        again = runner.run(definition.continuous_training, asked)

    assert first.state == again.state == "SUCCEEDED"
    states = {task.component: task.state for task in again.tasks.values()}
    assert {name for name, state in states.items() if state == "SUCCEEDED"} == {
        "publish",
        "write-verdict",
    }
    version = publish.latest_version(tmp_path / "models" / use_case.name)
    (evaluated,) = (task for task in first.tasks.values() if task.component == "evaluate")
    metrics = evaluation.overall(Path(evaluated.outputs["artifacts"]["metrics"]["uri"]))
    assert metrics["candidate"].log_loss < metrics["candidate"].base_rate_log_loss - 0.01

    (tabled,) = (task for task in first.tasks.values() if task.component == "features")
    test_rows = pd.read_parquet(tabled.outputs["artifacts"]["test_examples"]["uri"]).head(20)
    assert test_rows[key].is_unique
    inputs = {each: test_rows[each].to_numpy() for each in use_case.feature_set.names}
    own = evaluation.predict(version.path, test_rows)
    stored = table_files.load(
        use_case.examples, use_case.calendar.period("2026-03"), calendar=use_case.calendar,
        folder=data,
    ).set_index(key).loc[test_rows[key]]  # fmt: skip
    stored.drop(columns=stored.columns[-1]).to_csv(tmp_path / "new.csv")  # without the outcome
    scored = scoring.score(
        use_case, tmp_path / "models" / use_case.name, tmp_path / "new.csv", data_folder=data
    )
    assert scored[key].tolist() == test_rows[key].tolist()
    np.testing.assert_allclose(scored["probability"], own, atol=1e-7)
    with LocalServer(version.path.parent, tmp_path / "server") as server:
        server.wait_until_served(version.version)
        for transport in ("rest", "grpc"):
            with server.client(transport) as client:
                answer = client.predict(inputs)["probability"]
            np.testing.assert_allclose(answer, own, atol=1e-6)


@pytest.mark.slow
def test_the_loop_plays_three_months_of_customers_where_there_is_no_envoy(tmp_path) -> None:
    months = ("2026-01", "2026-02", "2026-03", "2026-04", "2026-05")
    made.write_customers(tmp_path / "data", months=months)
    planned = plan.of_data(TENANTS["churn"][0], tmp_path / "data", n_first=2)
    play.begin(tmp_path / "loop", planned)
    (tmp_path / "loop" / "triggers.yaml").write_text("new_data: {min_rows: 1000}")

    known = play.go_on(tmp_path / "loop", has_router=False)

    assert [each.period for each in known.served] == ["2026-03", "2026-04", "2026-05"]
    assert [each.n_requests for each in known.served] == [1_500] * 3
    happened = [(event.kind, event.period) for event in known.events]
    assert happened[:3] == [("left out", "2026-03"), ("first", "2026-03"), ("fired", "2026-04")]
    assert happened[3][0] in ("blessed", "undecided", "refused")
    assert ("quarantined", "2026-05") in happened  # April, in thousandths of a dollar
