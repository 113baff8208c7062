"""MLflow's registry follows the files, whatever was killed, locked or deleted."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mlops_mini.errors import DataIntegrityError, FailedPreconditionError, UnavailableError
from mlops_mini.model import champions, publish, registry
from mlops_mini.model.registry import Registry
from tests.model.published import publication, toy_export

ROOT = Path(__file__).resolve().parents[2]
# Forks a child for each line that it reads: one that publishes, and dies by SIGKILL before the
# `n_calls`th call of a function of a name in a file of a name. What MLflow costs is imported once.
FORKS = """
import json, os, signal, sys
from pathlib import Path
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
import mlflow.store.model_registry.sqlalchemy_store, mlflow.store.tracking.sqlalchemy_store
import mlflow.tracking
from mlops_mini.model import registry
from tests.model.published import publication

def publish(export, model, number, file, function, n_calls):
    calls = []

    def die(frame, event, _argument):
        code = frame.f_code
        if event == "call" and code.co_name == function and code.co_filename.endswith(file):
            calls.append(1)
            if len(calls) == n_calls:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(die)
    registry.publish_and_register(
        Path(export), Path(model), publication=publication(number),
        uri=registry.uri_beside(Path(model)),
    )

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        publish(*json.loads(line))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
# Where a publisher dies: before which call of what.
POINTS = {
    "copied, not renamed": ("pathlib.py", "rename", 1),
    "renamed, no champion": ("champions.py", "promote", 1),
    "champion, not registered": ("client.py", "create_model_version", 1),
    "registered, no alias": ("client.py", "set_registered_model_alias", 1),
    "alias, no tag": ("client.py", "set_model_version_tag", 1),
}


@pytest.fixture(scope="module")
def forks() -> Iterator[subprocess.Popen[str]]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", FORKS], cwd=ROOT, **pipes) as forking:
        yield forking


def publish_and_die(forks, model: Path, number: int, point: tuple[str, str, int]) -> None:
    """Publish in a process that is killed at a point."""
    arguments = [str(model.parent.parent / "export"), str(model), number, *point]
    print(json.dumps(arguments), file=forks.stdin, flush=True)
    assert int(forks.stdout.readline()) == -signal.SIGKILL


@pytest.fixture
def model(tmp_path: Path, empty_registry: Path) -> Path:
    """Folder of a model that has no version yet, with an empty registry beside it."""
    (tmp_path / "models").mkdir()
    shutil.copy(empty_registry, tmp_path / "models")
    toy_export(tmp_path / "export")
    return tmp_path / "models" / "churn"


def publish_number(model: Path, number: int, **changes: str) -> int:
    return registry.publish_and_register(
        model.parent.parent / "export",
        model,
        publication=publication(number, **changes),
        uri=registry.uri_beside(model),
    ).version


def registered(model: Path) -> dict[str, Any]:
    """What MLflow itself tells about the model: its versions, their tags, its aliases."""
    client = Registry(registry.uri_beside(model)).client
    entries = client.search_model_versions(f"name = '{model.name}'")
    by_number = {int(entry.tags["serving_version"]): entry for entry in entries}
    assert len(by_number) == len(entries), "a version is registered twice"
    number_of = {str(entry.version): number for number, entry in by_number.items()}
    aliases = client.get_registered_model(model.name).aliases
    return {
        "versions": by_number,
        "aliases": {alias: number_of[str(at)] for alias, at in aliases.items()},
    }


def test_a_published_version_is_registered_with_our_digests(model: Path) -> None:
    assert publish_number(model, 1) == 1

    known = registered(model)
    entry = known["versions"][1]
    assert known["aliases"] == {"champion": 1}
    expected = publication(1)
    assert entry.tags["model_digest"] == expected.model_digest
    assert entry.tags["data_digest"] == expected.data_digest
    assert entry.tags["pipeline_run"] == "run-1"
    assert entry.source == str(model / "1")
    assert "published" in entry.tags["champion_since"]


def test_publishing_again_for_the_same_run_changes_nothing(model: Path) -> None:
    publish_number(model, 1)
    before = registered(model)

    assert publish_number(model, 1) == 1

    after = registered(model)
    assert after["aliases"] == before["aliases"]
    assert {n: each.tags for n, each in after["versions"].items()} == {
        n: each.tags for n, each in before["versions"].items()
    }


@pytest.mark.parametrize("point", POINTS)
def test_a_publisher_killed_anywhere_is_reconciled_once(forks, model: Path, point: str) -> None:
    publish_number(model, 1)
    publish_and_die(forks, model, 2, POINTS[point])

    opened = Registry(registry.uri_beside(model))
    mended = registry.reconcile(model, registry=opened)
    assert mended
    assert registry.reconcile(model, registry=opened) == []
    number = 1 if point == "copied, not renamed" else 2
    assert champions.champion(model) == number
    known = registered(model)
    assert known["aliases"] == {"champion": number}
    assert sorted(known["versions"]) == list(range(1, number + 1))
    assert "champion_since" in known["versions"][number].tags
    # The run that was killed is resumed, and has published once; a number was never given twice.
    assert publish_number(model, 2) == (3 if number == 1 else 2)
    names = sorted(path.name for path in model.iterdir() if path.name.isdigit())
    assert names == (["1", "3"] if number == 1 else ["1", "2"])


def test_a_rollback_moves_the_alias_and_keeps_the_folder(model: Path) -> None:
    publish_number(model, 1)
    publish_number(model, 2)

    champions.roll_back(model, 2, reason="slow")
    opened = Registry(registry.uri_beside(model))
    mended = registry.reconcile(model, registry=opened)

    assert "alias champion is at version 1" in mended
    assert registry.reconcile(model, registry=opened) == []
    known = registered(model)
    assert known["aliases"] == {"champion": 1}
    assert "rolled back" in known["versions"][1].tags["champion_since"]
    assert (model / "2").is_dir()
    assert publish_number(model, 2) == 2  # its run, resumed, does not bring it back
    assert registered(model)["aliases"] == {"champion": 1}


def test_an_alias_to_a_deleted_version_goes_back_and_its_number_is_not_used_again(model) -> None:
    publish_number(model, 1)
    publish_number(model, 2)
    shutil.rmtree(model / "2")

    mended = registry.reconcile(model, registry=Registry(registry.uri_beside(model)))

    assert mended == [
        "version 1 is the champion now, for the folder of version 2 is gone",
        "noted that the folder of version 2 is gone",
        "alias champion is at version 1",
        "noted since when version 1 is or was the champion",
    ]
    assert publish_number(model, 3) == 3
    known = registered(model)
    assert known["aliases"] == {"champion": 3}
    assert known["versions"][2].tags["deleted"] == "true"


def test_an_alias_moved_by_hand_follows_the_files_again(model: Path) -> None:
    publish_number(model, 1)
    publish_number(model, 2)
    opened = Registry(registry.uri_beside(model))
    opened.client.set_registered_model_alias("churn", "champion", "1")

    assert registry.reconcile(model, registry=opened) == ["alias champion is at version 2"]


def test_two_promoters_register_each_version_once(model: Path) -> None:
    for number in (1, 2):
        publish.publish(model.parent.parent / "export", model, publication=publication(number))
    opened = Registry(registry.uri_beside(model))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: registry.reconcile(model, registry=opened), range(8)))

    known = registered(model)
    assert sorted(known["versions"]) == [1, 2]
    assert [move.version for move in champions.moves(model)] == [1, 2]


def test_a_deleted_registry_is_written_anew(model: Path, empty_registry: Path) -> None:
    publish_number(model, 1)
    publish_number(model, 2)
    champions.roll_back(model, 2)
    shutil.copy(empty_registry, model.parent / "registry.sqlite")

    registry.reconcile(model, registry=Registry(registry.uri_beside(model)))

    known = registered(model)
    assert sorted(known["versions"]) == [1, 2]
    assert known["aliases"] == {"champion": 1}


def test_a_locked_registry_publishes_nothing_and_says_so(model: Path) -> None:
    file = model.parent / "registry.sqlite"
    holder = sqlite3.connect(file)
    holder.execute("begin immediate")

    with pytest.raises(UnavailableError, match="locked by another process"):
        Registry(f"sqlite:///{file}", timeout_s=0.1)

    holder.close()
    assert publish_number(model, 1) == 1


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        ("update alembic_version set version_num = 'old'", FailedPreconditionError, "another"),
        ("drop table alembic_version", FailedPreconditionError, "half-made"),
        ("", DataIntegrityError, "damaged"),
    ],
)  # fmt: skip
def test_a_registry_that_is_none_stops_before_anything_is_published(
    model: Path, damage: str, error: type[Exception], words: str
) -> None:
    file = model.parent / "registry.sqlite"
    if damage:
        with sqlite3.connect(file) as connection:
            connection.execute(damage)
        connection.close()
    else:
        file.write_text("no database at all, but a text of some length")

    with pytest.raises(error, match=f"{words}.*remove it, and `mlops-mini reconcile`"):
        publish_number(model, 1)

    assert not model.exists()


def test_a_registry_killed_while_it_is_made_is_not_there(forks, tmp_path: Path) -> None:
    toy_export(tmp_path / "export")
    model = tmp_path / "models" / "churn"

    publish_and_die(forks, model, 1, ("sql/compiler.py", "visit_create_table", 5))

    assert not (model.parent / "registry.sqlite").exists()
    assert not model.exists()
    assert publish_number(model, 1) == 1


# Telemetry is off by itself where these are set.
CI_VARIABLES = ("CI", "PYTEST_CURRENT_TEST", "PYTEST_XDIST_WORKER", "PYTEST_VERSION")
SPY = """
import socket, sys
from pathlib import Path

tried = []

def spy(event, arguments):
    if event in {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname"}:
        tried.append((event, arguments[1:] if event == "socket.connect" else arguments[:1]))

sys.addaudithook(spy)
from mlops_mini.model import registry
from tests.model.published import publication

registry.publish_and_register(
    Path(sys.argv[1]), Path(sys.argv[2]), publication=publication(1), uri=sys.argv[3]
)
import mlflow.telemetry.client

assert mlflow.telemetry.client.get_telemetry_client() is None
print(tried)
"""


def test_nothing_is_sent_anywhere(model: Path) -> None:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in CI_VARIABLES and not name.startswith(("GITHUB_", "PYTEST"))
    }
    arguments = [model.parent.parent / "export", model, registry.uri_beside(model)]

    spied = subprocess.run(
        [sys.executable, "-c", SPY, *map(str, arguments)],
        cwd=ROOT,
        env=kept,
        capture_output=True,
        text=True,
        check=False,
    )

    assert spied.returncode == 0, spied.stderr
    assert spied.stdout.strip() == "[]"
