"""The command `mlops-mini release`: route traffic, plan, run and steer a release."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mlops_mini import terminal
from mlops_mini.cli_lineage import AsJson, Workspace, workspace_folder
from mlops_mini.errors import InvalidArgumentError
from mlops_mini.rollout.policy import Backend, TrafficPolicy

app = typer.Typer(
    help="Release a new version to live traffic, and take it back.", no_args_is_help=True
)

_SUPERVISE_S = 1.0

Folder = Annotated[
    Path | None,
    typer.Option(
        help="Folder of router and release; else MLOPS_MINI_HOME/release, else ./runs/release."
    ),
]
Reason = Annotated[str, typer.Option(help="Why, for the log of decisions.")]
ModelName = Annotated[str, typer.Option("--model", help="Name of the model, as in its URL.")]
_WHERE = "a name and where its model is, such as v1=gs://shop-models/ranking-v1"
_WHO = "a name and the addresses of its REST and gRPC API, such as v1=127.0.0.1:8501,127.0.0.1:8500"


@app.command()
def route(
    model: ModelName,
    stable: Annotated[str, typer.Option(help=f"Who serves: {_WHO}.")],
    folder: Folder = None,
    port: Annotated[int, typer.Option(help="Port for REST and gRPC alike; 0: any free one.")] = 0,
) -> None:
    """Run the router, Envoy, in front of the model servers, until Ctrl-C.

    Example: mlops-mini release route --model m --stable v1=127.0.0.1:8501,127.0.0.1:8500
    """
    from mlops_mini.rollout.envoy import Envoy

    policy = TrafficPolicy(model=model, stable=_backend(stable))
    with terminal.canceled_by_sigterm(), Envoy(_router_folder(folder), policy, port=port) as envoy:
        typer.echo(f"{model} is served at {envoy.router.address}")
        never = threading.Event()
        while not never.wait(_SUPERVISE_S):
            envoy.keep_running()


@app.command()
def plan(
    bad_rate: Annotated[float, typer.Option(help="Share of requests that end badly now, 0 to 1.")],
    ratio: Annotated[float, typer.Option(help="How many times as many must be found.")],
    requests_per_s: Annotated[float, typer.Option(help="Requests per second.")],
    weight_pct: Annotated[
        float, typer.Option("--weight", help="The canary's share, percent.")
    ] = 10,
    max_hours: Annotated[float, typer.Option(help="Hours that you're willing to wait.")] = 24 * 14,
    as_json: AsJson = False,
) -> None:
    """Tell how many requests it takes to find that a canary is worse, and how long that is.

    Example: mlops-mini release plan --bad-rate .01 --ratio 2 --requests-per-s 20
    """
    from mlops_mini.rollout import planner

    found = planner.plan(
        bad_rate=bad_rate, ratio=ratio, weight_pct=weight_pct, requests_per_s=requests_per_s,
        max_hours=max_hours,
    )  # fmt: skip
    typer.echo(json.dumps(dataclasses.asdict(found)) if as_json else found.sentence())


@app.command()
def start(  # noqa: PLR0917 - typer passes them by name
    model: ModelName,
    stable: Annotated[str, typer.Option(help=f"Who serves: {_WHO}.")],
    canary: Annotated[str, typer.Option(help=f"The new version: {_WHO}.")],
    folder: Folder = None,
    steps: Annotated[
        str, typer.Option(help="The canary's shares, percent; 100 alone is blue-green.")
    ] = "1,5,25,50",
    mirror_pct: Annotated[
        float, typer.Option("--mirror", help="Share that is mirrored first, percent.")
    ] = 0,
    step_requests: Annotated[
        int, typer.Option(help="Canary requests in the first step; then twice, three times ...")
    ] = 200,
    sticky_header: Annotated[
        str | None, typer.Option("--sticky", help="Header that names a user, who keeps a version.")
    ] = None,
    look_s: Annotated[float, typer.Option(help="Seconds between looks.")] = 1.0,
    replace: Annotated[bool, typer.Option("--replace", help="Give up what is under way.")] = False,
    version: Annotated[
        int | None,
        typer.Option(help="The canary's number in the workspace, whose lineage notes the release."),
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Release a version step by step, as far as the evidence allows; the router must run.

    Example: mlops-mini release start --model m --stable v1=127.0.0.1:8501,127.0.0.1:8500
    --canary v2=127.0.0.1:8601,127.0.0.1:8600
    """
    from mlops_mini.lineage import releases
    from mlops_mini.rollout import guardrails, release
    from mlops_mini.rollout.controller import Strategy

    strategy = Strategy(
        steps_pct=_steps(steps),
        mirror_pct=mirror_pct,
        step_requests=step_requests,
        sticky_header=sticky_header,
        # No latency: who gets 1 % of the requests is slower than who gets 99 %, if equal, too.
        guardrails=(guardrails.ERRORS,),
    )
    made = release.Release(
        model=model, stable=_backend(stable), canary=_backend(canary), strategy=strategy
    )
    if version is not None:  # before anything has begun
        releases.check(workspace_folder(workspace), version, model=model)
    release.start(_folder(folder), made, replaces=replace)
    releases.forget(_folder(folder))
    if version is not None:
        releases.begin(_folder(folder), workspace_folder(workspace), version)
    _run(folder, look_s=look_s, as_json=as_json)


@app.command("continue")
def go_on(
    folder: Folder = None,
    look_s: Annotated[float, typer.Option(help="Seconds between looks.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Go on with a release whose controller has died or was stopped.

    Example: mlops-mini release continue
    """
    _run(folder, look_s=look_s, as_json=as_json)


@app.command()
def status(folder: Folder = None, as_json: AsJson = False) -> None:
    """Show where a release is, and what speaks for and against its canary.

    Example: mlops-mini release status
    """
    _show(folder, as_json=as_json)


@app.command()
def pause(reason: Reason, folder: Folder = None) -> None:
    """Stop where it is; the traffic stays as it is.

    Example: mlops-mini release pause --reason "the fair begins"
    """
    _order(folder, "pause", reason)


@app.command()
def resume(reason: Reason, folder: Folder = None) -> None:
    """Go on after a pause.

    Example: mlops-mini release resume --reason "all is well"
    """
    _order(folder, "resume", reason)


@app.command()
def abort(reason: Reason, folder: Folder = None) -> None:
    """Give all traffic back to the stable.

    Example: mlops-mini release abort --reason "wrong file"
    """
    _order(folder, "abort", reason)


@app.command()
def promote(reason: Reason, folder: Folder = None) -> None:
    """Promote the canary at once, whatever the evidence says.

    Example: mlops-mini release promote --reason "tested elsewhere"
    """
    _order(folder, "promote", reason)


@app.command()
def render(  # noqa: PLR0917 - typer passes them by name
    folder: Annotated[Path, typer.Argument(help="Where the files go.")],
    model: ModelName,
    stable: Annotated[str, typer.Option(help=f"Who serves: {_WHERE}.")],
    image: Annotated[str, typer.Option(help="Image of the model server, with a tag or digest.")],
    host: Annotated[str, typer.Option(help="Name under which clients ask.")],
    canary: Annotated[str | None, typer.Option(help=f"The new version: {_WHERE}.")] = None,
    to: Annotated[Literal["kubernetes"], typer.Option(help="For whom.")] = "kubernetes",  # noqa: ARG001
    weight_pct: Annotated[float, typer.Option("--weight", help="The canary's share, percent.")] = 0,
    mirror_pct: Annotated[
        float, typer.Option("--mirror", help="Share that is mirrored to the canary, percent.")
    ] = 0,
    header: Annotated[
        str | None, typer.Option(help="Who sends it gets the canary, such as x-user-group=canary.")
    ] = None,
    server: Annotated[
        Literal["tensorflow_model_server", "mini-model-server"],
        typer.Option(help="Command in the image."),
    ] = "tensorflow_model_server",
    namespace: Annotated[str, typer.Option(help="Namespace of the objects.")] = "default",
    google_account: Annotated[
        str | None, typer.Option(help="Google service account that may read the bucket.")
    ] = None,
    tls_secret: Annotated[
        str | None, typer.Option(help="Secret with the host's certificate; else plain HTTP.")
    ] = None,
) -> None:
    """Write a policy as objects of Kubernetes and Istio, with what they can't say.

    Example: mlops-mini release render --to kubernetes deploy --model m --stable v1=gs://shop/m-v1
    --canary v2=gs://shop/m-v2 --weight 30 --image tensorflow/serving:2.8.0 --host m.example.com
    """
    from mlops_mini.rollout import istio, istio_lint, kustomize
    from mlops_mini.rollout.policy import HeaderRule
    from mlops_mini.rollout.workload import Workload

    paths = [_split(text, _WHERE) for text in (stable, canary) if text is not None]
    backends = [Backend(name=name) for name, _ in paths]
    rules = []
    if header is not None:
        name, value = _split(header, "a header and its value, such as x-user-group=canary")
        rules.append(HeaderRule(header=name, value=value, side="canary"))
    policy = TrafficPolicy(
        model=model, stable=backends[0], canary=backends[1] if canary else None,
        weight_pct=weight_pct, mirror_pct=mirror_pct, header_rules=tuple(rules),
    )  # fmt: skip
    workload = Workload(
        model_paths=dict(paths), image=image, host=host, server=server, namespace=namespace,
        google_account=google_account, tls_secret=tls_secret,
    )  # fmt: skip
    for path in kustomize.write(folder, kustomize.files(policy, workload)):
        typer.echo(path)
    rendering = istio.render(policy, workload)
    for finding in (*istio_lint.findings(rendering.objects), *rendering.lossy):
        typer.echo(f"note: {finding}", err=True)


@app.command()
def report(
    folder: Folder = None,
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("release.html"),
) -> None:
    """Write the page of a release: weights, requests, evidence over time, and each decision.

    Example: mlops-mini release report --out release.html
    """
    from mlops_mini.rollout import release
    from mlops_mini.rollout.report import html_page

    made = release.read(_folder(folder))
    out.write_text(html_page(made, release.decisions(_folder(folder))), encoding="utf-8")
    typer.echo(out)


def _run(folder: Path | None, *, look_s: float, as_json: bool) -> None:
    from mlops_mini.lineage import releases
    from mlops_mini.rollout import release
    from mlops_mini.rollout.envoy import Router

    try:
        with terminal.canceled_by_sigterm(), terminal.live_tables() as show:
            release.run(
                _folder(folder),
                Router(_router_folder(folder)),
                look_s=look_s,
                on_look=lambda made: show(*_tables(made)),
            )
    finally:
        releases.note(_folder(folder))
    _show(folder, as_json=as_json)


def _show(folder: Path | None, *, as_json: bool) -> None:
    from mlops_mini.rollout import release
    from mlops_mini.rollout.report import verdict

    made = release.read(_folder(folder))
    if as_json:
        state = made.state
        document = {
            "model": made.model,
            "stable": made.stable.name,
            "canary": made.canary.name,
            "phase": state.phase,
            "weight_pct": state.weight_pct(made.strategy),
            "reason": state.reason,
            "evidence": [dataclasses.asdict(one) for one in made.evidence()],
            "decisions": release.decisions(_folder(folder)),
        }
        typer.echo(json.dumps(document, indent=2))
        return
    typer.echo(f"{verdict(made)}: {made.state.reason}")
    for table in _tables(made):
        terminal.print_table(*table)


def _tables(made: Any) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    from mlops_mini.rollout.report import EVIDENCE_HEADER, evidence_rows

    state = made.state
    title = (
        f"{made.model}: {made.canary.name} beside {made.stable.name}, {state.phase}, "
        f"{state.weight_pct(made.strategy):g} % of the requests"
    )
    return [(title, EVIDENCE_HEADER, evidence_rows(made))]


def _order(folder: Path | None, verb: Any, reason: str) -> None:
    from mlops_mini.rollout import release

    release.order(_folder(folder), verb, reason)
    typer.echo(f"{verb}: {reason}")


def _folder(folder: Path | None) -> Path:
    from mlops_mini.workspace import runs_folder

    return folder or runs_folder() / "release"


def _router_folder(folder: Path | None) -> Path:
    return _folder(folder) / "envoy"


def _backend(text: str) -> Backend:
    name, addresses = _split(text, _WHO)
    rest, _, grpc = addresses.partition(",")
    if not (rest and grpc):
        raise InvalidArgumentError(f"expected {_WHO}; got {text!r}")
    return Backend(name=name, rest=rest, grpc=grpc)


def _split(text: str, wanted: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not (name and value):
        raise InvalidArgumentError(f"expected {wanted}; got {text!r}")
    return name, value


def _steps(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as exc:
        raise InvalidArgumentError(
            f"--steps are percentages with commas between, such as 1,5,25,50; got {text!r}"
        ) from exc
