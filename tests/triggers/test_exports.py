import kfp_server_api
import pytest
from kfp_server_api import ApiClient

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.triggers import exports
from mlops_mini.triggers.schedules import Schedule

SPEC = {"pipelineInfo": {"name": "twice"}}
MONDAYS = Schedule("30 6 * * mon-fri", zone="America/New_York", catches_up=True)


def test_kubeflow_s_own_client_reads_the_recurring_run() -> None:
    body = exports.kubeflow_recurring_run(
        MONDAYS, SPEC, name="weekly", arguments={"period": "2013-W10"},
        cluster_zone="America/New_York",
    )  # fmt: skip
    client = ApiClient()
    read = client._ApiClient__deserialize(body, "V2beta1RecurringRun")

    assert isinstance(read, kfp_server_api.V2beta1RecurringRun)
    assert client.sanitize_for_serialization(read) == body
    assert read.trigger.cron_schedule.cron == "0 30 6 * * 1,2,3,4,5"
    assert (read.max_concurrency, read.no_catchup) == ("1", False)


def test_a_zone_that_kubeflow_would_not_know_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="Kubeflow would read it in UTC"):
        exports.kubeflow_recurring_run(MONDAYS, SPEC, name="weekly")


def test_vertex_has_the_zone_in_its_expression() -> None:
    body = exports.vertex_schedule(
        Schedule("@weekly", zone="Europe/London"), SPEC, name="weekly",
        parent="projects/p/locations/l", root="gs://b/r", arguments={"x": 1},
    )  # fmt: skip

    assert body["cron"] == "TZ=Europe/London 0 0 * * 0"
    assert (body["maxConcurrentRunCount"], body["allowQueueing"]) == ("1", False)
    request = body["createPipelineJobRequest"]
    assert request["parent"] == "projects/p/locations/l"
    assert request["pipelineJob"]["runtimeConfig"]["parameterValues"] == {"x": 1}


def test_argo_starts_one_workflow_for_each_event_under_the_event_s_id() -> None:
    source, sensor = exports.argo_events(MONDAYS, name="retrain", image="mlops-mini:0.1.0")

    (calendar,) = source["spec"]["calendar"].values()
    assert calendar == {"schedule": "30 6 * * 1,2,3,4,5", "timezone": "America/New_York"}
    declared = {*source["spec"]["webhook"], *source["spec"]["calendar"]}
    wanted = {each["eventName"] for each in sensor["spec"]["dependencies"]}
    triggers = [each["template"] for each in sensor["spec"]["triggers"]]
    assert declared == wanted == {each["conditions"] for each in triggers}
    assert len(triggers) == 5
    for trigger in triggers:
        (parameter,) = trigger["argoWorkflow"]["parameters"]
        assert parameter["src"] == {"dependencyName": trigger["name"], "contextKey": "id"}
        workflow = trigger["argoWorkflow"]["source"]["resource"]
        (template,) = workflow["spec"]["templates"]
        assert template["container"]["command"][-2:] == [
            "--request-id", "{{inputs.parameters.id}}",
        ]  # fmt: skip
    assert "calendar" not in exports.argo_events(None, name="x", image="y")[0]["spec"]


def test_what_means_something_else_elsewhere_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="either of them there"):
        exports.argo_events(Schedule("0 0 */2 * mon"), name="x", image="y")
