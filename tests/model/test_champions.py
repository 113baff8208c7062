import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mlops_mini.errors import DataIntegrityError, FailedPreconditionError, NotFoundError
from mlops_mini.model import champions, publish
from tests.model.published import publication, toy_export


class Clock:
    """A minute passes each time that it's asked."""

    def __init__(self) -> None:
        self.at = datetime(2013, 3, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.at += timedelta(minutes=1)
        return self.at


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Three versions, each of which was the champion."""
    export, folder = toy_export(tmp_path / "export"), tmp_path / "churn"
    for number in (1, 2, 3):
        publish.publish(export, folder, publication=publication(number))
        assert champions.promote(folder, number, clock=Clock())
    return folder


def test_a_version_becomes_the_champion_once(model: Path) -> None:
    assert champions.champion(model) == 3
    assert [(move.before, move.version, move.kind) for move in champions.moves(model)] == [
        (None, 1, "published"),
        (1, 2, "published"),
        (2, 3, "published"),
    ]
    assert champions.moves(model)[0].at == "2013-03-01T00:01:00.000+00:00"
    assert champions.promote(model, 3) is None
    assert champions.promote(model, 1) is None
    with pytest.raises(NotFoundError, match=r"version 4 .* is not there"):
        champions.promote(model, 4)


def test_rolling_back_keeps_the_folder_and_twice_is_once(model: Path) -> None:
    first = champions.roll_back(model, 3, by="ada", reason="slow")
    again = champions.roll_back(model, 3)

    assert first == again
    assert (first.before, first.version, first.by, first.reason) == (3, 2, "ada", "slow")
    assert champions.champion(model) == 2
    assert (model / "3" / "saved_model.pb").exists()
    assert champions.reconcile(model) == []
    champions.roll_back(model, 2)
    assert champions.champion(model) == 1
    with pytest.raises(FailedPreconditionError, match="no version before 1 is left"):
        champions.roll_back(model, 1)


def test_what_is_not_the_champion_cannot_be_rolled_back(model: Path) -> None:
    with pytest.raises(FailedPreconditionError, match=r"version 2 .* not the champion, which is 3"):
        champions.roll_back(model, 2)


def test_two_roll_back_at_once_and_one_version_goes(model: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        moves = list(pool.map(lambda _: champions.roll_back(model, 3), range(16)))

    assert len(set(moves)) == 1
    assert len(champions.moves(model)) == 4


def test_after_a_rollback_the_next_version_is_the_champion(model: Path, tmp_path: Path) -> None:
    champions.roll_back(model, 3)
    publish.publish(tmp_path / "export", model, publication=publication(4))

    (move,) = champions.reconcile(model)

    assert (move.before, move.version) == (2, 4)
    assert champions.taken_back(model) == {3}
    champions.roll_back(model, 4)
    assert champions.champion(model) == 2


def test_a_deleted_champion_gives_way_to_the_newest_that_is_there(model: Path) -> None:
    shutil.rmtree(model / "3")

    (move,) = champions.reconcile(model)

    assert (move.kind, move.before, move.version) == ("reconciled", 3, 2)
    assert move.reason == "the folder of version 3 is gone"
    assert champions.reconcile(model) == []
    champions.roll_back(model, 2)  # never back to 3
    assert champions.champion(model) == 1


def test_a_rolled_back_version_is_no_way_out(model: Path) -> None:
    champions.roll_back(model, 3)
    shutil.rmtree(model / "2")

    (move,) = champions.reconcile(model)

    assert move.version == 1
    shutil.rmtree(model / "1")
    assert champions.reconcile(model) == []  # nothing is left


def test_a_lost_record_is_made_anew_from_the_versions(model: Path) -> None:
    (model / ".champions.json").unlink()

    assert [move.version for move in champions.reconcile(model)] == [1, 2, 3]
    assert champions.champion(model) == 3


@pytest.mark.parametrize("text", ["", "{", '[{"version": 3}]', "[7]"])
def test_a_broken_record_says_how_to_get_on(model: Path, text: str) -> None:
    (model / ".champions.json").write_text(text)

    with pytest.raises(DataIntegrityError, match="remove it, and `mlops-mini reconcile`"):
        champions.champion(model)


def test_a_challenger_waits_until_it_is_promoted(model: Path, tmp_path: Path) -> None:
    known = publication(4, alias="challenger")
    publish.publish(tmp_path / "export", model, publication=known)

    assert champions.reconcile(model) == []
    assert champions.aliases(model) == {"champion": 3, "challenger": 4}
    assert champions.promote(model, 4)
    assert champions.aliases(model) == {"champion": 4}
    assert json.loads((model / ".champions.json").read_text())[-1]["version"] == 4


def test_a_model_never_published_has_no_champion(tmp_path: Path) -> None:
    assert champions.champion(tmp_path / "churn") is None
    assert champions.aliases(tmp_path / "churn") == {}
    assert champions.reconcile(tmp_path / "churn") == []


def test_a_server_follows_the_champion_forward_and_back(
    toy_models: Path, tmp_path: Path, start_server
) -> None:
    base = tmp_path / "m"
    for number in (1, 2):
        export = toy_models / "numbered" / str(number)
        publish.publish(export, base, publication=publication(number))
    champions.promote(base, 1)
    config = champions.serving_config(base)

    server = start_server(
        base, f"--model_config_file={config}", "--model_config_file_poll_wait_seconds=1"
    )

    server.wait_for(1)
    champions.promote(base, 2)
    server.wait_for(2)
    champions.roll_back(base, 2)
    server.wait_for(1)
    assert champions.serving_config(tmp_path / "another") is None
