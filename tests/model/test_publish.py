import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlops_mini.errors import (
    DataIntegrityError,
    FailedPreconditionError,
    NotFoundError,
    ResourceExhaustedError,
)
from mlops_mini.model import publish
from mlops_mini.model.digest import model_digest

PUBLISH = "import sys; from pathlib import Path; from mlops_mini.model import publish; "


@pytest.fixture
def export(tmp_path: Path) -> Path:
    folder = tmp_path / "export"
    (folder / "variables").mkdir(parents=True)
    (folder / "assets").mkdir()
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.index").write_bytes(b"index")
    return folder


def files(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def visible(model: Path) -> list[str]:
    return sorted(path.name for path in model.iterdir() if not path.name.startswith("."))


def grow(export: Path, n_bytes: int) -> Path:
    """Add a file of zeros that takes no room where it lies."""
    data = export / "variables" / "variables.data-00000-of-00001"
    data.touch()
    os.truncate(data, n_bytes)
    return export


def start(code: str, *arguments: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PUBLISH + code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_first_version_is_1_and_holds_all_files(export: Path, tmp_path: Path) -> None:
    published = publish.publish(export, tmp_path / "models" / "delays")

    assert (published.version, published.path) == (1, tmp_path / "models" / "delays" / "1")
    assert files(published.path) == files(export)


def test_leaves_only_numbers_and_names_that_servers_ignore(export: Path, tmp_path: Path) -> None:
    for _ in range(2):
        publish.publish(export, tmp_path / "delays")

    assert visible(tmp_path / "delays") == ["1", "2"]
    versions = publish.published_versions(tmp_path / "delays")
    assert [version.version for version in versions] == [1, 2]
    assert files(tmp_path / "delays")[".last_version"] == b"2\n"


def test_a_number_is_not_used_again_after_its_version_is_deleted(
    export: Path, tmp_path: Path
) -> None:
    versions = [publish.publish(export, tmp_path / "delays") for _ in range(10)]
    for published in versions:
        shutil.rmtree(published.path)

    assert publish.publish(export, tmp_path / "delays").version == 11


@pytest.mark.parametrize(
    ("names", "version"),
    [
        (["007"], 8),
        (["+12"], 13),
        ([" 3 "], 4),
        (["v9", "9.tmp", "0x9", "1e3", "-9", "1_0", "٩"], 1),
        (["9223372036854775808"], 1),
        (["0"], 1),
    ],
)
def test_reads_names_as_tensorflow_serving_does(
    export: Path, tmp_path: Path, names: list[str], version: int
) -> None:
    for name in names:
        (tmp_path / "delays" / name).mkdir(parents=True)

    assert publish.publish(export, tmp_path / "delays").version == version


def test_a_plain_file_takes_a_number_but_is_no_version(export: Path, tmp_path: Path) -> None:
    (tmp_path / "6").write_text("a server takes this for version 6")

    assert publish.published_versions(tmp_path) == []
    assert publish.publish(export, tmp_path).version == 7


def test_lists_versions_by_number_not_by_name(tmp_path: Path) -> None:
    for name in ("9", "10", "009", "100"):
        (tmp_path / name).mkdir()

    versions = publish.published_versions(tmp_path)

    names = [(version.version, version.path.name) for version in versions]
    assert names == [(9, "009"), (9, "9"), (10, "10"), (100, "100")]


def test_a_model_never_published_has_no_versions(tmp_path: Path) -> None:
    assert publish.published_versions(tmp_path / "delays") == []


def test_refuses_what_is_no_saved_model_before_it_writes(tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()

    with pytest.raises(NotFoundError, match=r"no saved_model\.pb"):
        publish.publish(tmp_path / "export", tmp_path / "delays")

    assert not (tmp_path / "delays").exists()


def test_refuses_a_last_version_that_is_no_number(export: Path, tmp_path: Path) -> None:
    (tmp_path / ".last_version").write_text("seven")

    with pytest.raises(DataIntegrityError, match="got 'seven'"):
        publish.publish(export, tmp_path)


def test_threads_get_different_numbers(export: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        published = list(pool.map(lambda _: publish.publish(export, tmp_path / "m"), range(40)))

    assert sorted(version.version for version in published) == list(range(1, 41))
    assert all(files(version.path) == files(export) for version in published)


def test_processes_get_different_numbers(export: Path, tmp_path: Path) -> None:
    code = "[print(publish.publish(*map(Path, sys.argv[1:])).version) for _ in range(10)]"
    publishers = [start(code, export, tmp_path / "delays") for _ in range(3)]

    outputs = [publisher.communicate(timeout=60) for publisher in publishers]

    assert [error for _, error in outputs] == ["", "", ""]
    numbers = [int(number) for output, _ in outputs for number in output.split()]
    assert sorted(numbers) == list(range(1, 31))


def test_next_publisher_removes_what_a_killed_one_left(export: Path, tmp_path: Path) -> None:
    model = tmp_path / "delays"
    killed = start("publish.publish(*map(Path, sys.argv[1:]))", grow(export, 2**30), model)
    deadline = time.monotonic() + 60
    while not list(model.glob(".publishing-*/variables/variables.data*")):
        assert time.monotonic() < deadline
        assert killed.poll() is None

    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert visible(model) == []
    assert list(model.glob(".publishing-*"))

    published = publish.publish(grow(export, 10), model)

    assert published.version == 2
    assert sorted(path.name for path in model.iterdir()) == [".last_version", "2"]
    assert files(published.path) == files(export)


def test_refuses_beforehand_what_the_disk_cannot_hold(export: Path, tmp_path: Path) -> None:
    grow(export, shutil.disk_usage(tmp_path).free + 2**30)

    with pytest.raises(ResourceExhaustedError, match=r"needs \d+ bytes .* \d+ are free"):
        publish.publish(export, tmp_path / "delays")

    assert files(tmp_path / "delays") == {".last_version": b""}


def test_leaves_nothing_when_room_runs_out_midway(export: Path, tmp_path: Path) -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16)); "
        "publish.publish(*map(Path, sys.argv[1:]))"
    )

    _, error = start(code, grow(export, 2**20), tmp_path / "delays").communicate(timeout=60)

    message = error.splitlines()[-1]
    assert message.startswith("mlops_mini.errors.ResourceExhaustedError: publishing")
    n_bytes = int(re.search(r"needs (\d+) bytes", message)[1])
    assert 2**20 <= n_bytes <= 2**20 + 2**15
    assert "are free (File too large)" in message
    assert files(tmp_path / "delays") == {".last_version": b"1\n"}
    assert publish.publish(grow(export, 10), tmp_path / "delays").version == 2


def test_other_faults_come_through_and_leave_nothing(export: Path, tmp_path: Path) -> None:
    os.mkfifo(export / "variables" / "pipe")

    with pytest.raises(shutil.SpecialFileError, match="named pipe"):
        publish.publish(export, tmp_path / "delays")

    assert visible(tmp_path / "delays") == []
    assert not list((tmp_path / "delays").glob(".publishing-*"))


def test_the_latest_version_is_the_highest_one(export: Path, tmp_path: Path) -> None:
    publish.publish(export, tmp_path / "model")
    second = publish.publish(export, tmp_path / "model")

    assert publish.latest_version(tmp_path / "model") == second


def test_a_folder_without_versions_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "v1").mkdir()

    with pytest.raises(NotFoundError, match=r"no versions in .*; it holds \['v1'\], and a version"):
        publish.latest_version(tmp_path)


def publication(**changes) -> publish.Publication:
    defaults = {
        "run_id": "run-1",
        "model_digest": "a" * 64,
        "test_period": "2013-03",
        "train_periods": ("2013-01", "2013-02"),
        "data_digest": "d" * 64,
    }
    return publish.Publication(**defaults | changes)


def publish_as(export: Path, model: Path, **changes) -> int:
    return publish.publish(export, model, publication=publication(**changes)).version


def test_a_version_tells_where_it_comes_from_inside_its_folder(export, tmp_path: Path) -> None:
    published = publish.publish(export, tmp_path / "m", publication=publication())

    assert publish.Publication.read(published.path) == publication()
    added = set(files(published.path)) - set(files(export))
    assert added == {
        "assets.extra", "assets.extra/publication.json", "assets.extra/checksums.txt"
    }  # fmt: skip
    assert publish.Publication.read(publish.publish(export, tmp_path / "m").path) is None


def test_an_edited_version_is_known_by_its_checksums(export: Path, tmp_path: Path) -> None:
    version = publish.publish(export, tmp_path / "m", publication=publication()).path
    assert publish.changed_files(version) == {}
    checked = subprocess.run(
        ["sha256sum", "--quiet", "-c", "assets.extra/checksums.txt"], cwd=version, check=False
    )
    assert checked.returncode == 0

    (version / "saved_model.pb").write_bytes(b"edited")
    (version / "variables" / "variables.index").unlink()
    (version / "assets" / "vocabulary.txt").write_text("new")

    assert publish.changed_files(version) == {
        "saved_model.pb": "changed",
        "variables/variables.index": "missing",
        "assets/vocabulary.txt": "added",
    }
    plain = publish.publish(export, tmp_path / "m").path
    with pytest.raises(NotFoundError, match=r"no assets\.extra/checksums\.txt"):
        publish.changed_files(plain)


def test_a_run_publishes_once(export: Path, tmp_path: Path) -> None:
    assert publish_as(export, tmp_path / "m") == 1
    assert publish_as(export, tmp_path / "m", run_id="run-2", model_digest="b" * 64) == 2

    assert publish_as(export, tmp_path / "m") == 1
    assert publish_as(export, tmp_path / "m", model_digest="c" * 64) == 1
    assert visible(tmp_path / "m") == ["1", "2"]


@pytest.mark.parametrize(
    ("changes", "version"),
    [
        ({"model_digest": "b" * 64}, 2),  # the newest, judged on another period
        ({"model_digest": "a" * 64, "test_period": "2013-03"}, 1),  # an older one of this period
        ({"model_digest": "a" * 64, "test_period": "2013-05"}, 3),  # an older one, newly chosen
        ({"model_digest": "c" * 64, "test_period": "2013-04"}, 3),
    ],
)
def test_a_model_that_answers_the_same_is_no_new_version(
    export: Path, tmp_path: Path, changes, version
) -> None:
    publish_as(export, tmp_path / "m", run_id="run-1", test_period="2013-03")
    publish_as(export, tmp_path / "m", run_id="run-2", test_period="2013-04", model_digest="b" * 64)

    assert publish_as(export, tmp_path / "m", run_id="run-3", **changes) == version
    assert publish_as(export, tmp_path / "m", run_id="run-3", **changes) == version


@pytest.mark.parametrize("period", ["2013-03", "2013-W10"])
def test_a_model_of_an_older_period_does_not_become_the_one_that_is_served(
    period: str, export: Path, tmp_path: Path
) -> None:
    publish_as(export, tmp_path / "m", run_id="run-1", test_period=period)
    publish_as(export, tmp_path / "m", run_id="run-2", test_period="2013-04", model_digest="b" * 64)
    changed = {"test_period": period, "model_digest": "c" * 64}

    with pytest.raises(FailedPreconditionError, match=rf"{period}.*version 2.*later, on 2013-04"):
        publish_as(export, tmp_path / "m", run_id="run-3", **changed)
    versions = [version.version for version in publish.published_versions(tmp_path / "m")]
    shutil.rmtree(tmp_path / "m" / "2")

    assert versions == [1, 2]
    assert publish_as(export, tmp_path / "m", run_id="run-3", **changed) == 3


def test_a_version_that_tells_nothing_is_recognized_by_what_it_answers(
    exported: Path, export: Path, tmp_path: Path
) -> None:
    digest = model_digest(exported)
    publish.publish(exported, tmp_path / "m")

    assert publish_as(exported, tmp_path / "m", model_digest=digest) == 1
    publish.publish(export, tmp_path / "m")  # no SavedModel at all, but named 2
    assert publish_as(exported, tmp_path / "m", model_digest=digest) == 3


def test_a_publication_that_says_something_else_is_an_error(export: Path, tmp_path: Path) -> None:
    publish_as(export, tmp_path / "m")
    (tmp_path / "m" / "1" / "assets.extra" / "publication.json").write_text('{"run_id": "x"}')

    with pytest.raises(DataIntegrityError, match="does not tell where the version comes from"):
        publish_as(export, tmp_path / "m", run_id="run-2")


def test_a_run_killed_while_it_publishes_publishes_once_when_it_is_resumed(
    export: Path, tmp_path: Path
) -> None:
    """Killed again and again, after ever more of its work, and resumed as often."""
    code = (
        "known = publish.Publication(run_id='run-1', model_digest='a', test_period='2013-03',"
        " train_periods=('2013-01',), data_digest='d'); "
        "publish.publish(*map(Path, sys.argv[1:]), publication=known); sys.stdin.read()"
    )
    grow(export, 2**27)
    model = tmp_path / "delays"
    for pattern in (".last_version", ".publishing-*/variables/variables.data*", "[0-9]*"):
        killed = start(code, export, model)
        deadline = time.monotonic() + 60
        while not list(model.glob(pattern)):
            assert time.monotonic() < deadline
            assert killed.poll() is None
        killed.kill()
        killed.communicate()

    (resumed,) = publish.published_versions(model)
    assert publish_as(export, model, model_digest="a") == resumed.version
    assert len(visible(model)) == 1
    assert files(resumed.path).keys() >= files(export).keys()


def test_a_verdict_is_one_file_for_each_run(export: Path, tmp_path: Path) -> None:
    publish_as(export, tmp_path / "m", run_id="run-1")
    for run_id, state, error in (("run-1", "SUCCEEDED", ""), ("run-2", "FAILED", "no room")):
        for _ in range(2):
            publish.write_verdict(
                tmp_path / "verdicts",
                run_id=run_id,
                state=state,
                error=error,
                model_folder=tmp_path / "m",
            )

    verdicts = {
        path.name: json.loads(path.read_text()) for path in (tmp_path / "verdicts").iterdir()
    }
    assert verdicts == {
        "run-1.json": {"run_id": "run-1", "state": "SUCCEEDED", "error": "", "version": 1},
        "run-2.json": {"run_id": "run-2", "state": "FAILED", "error": "no room", "version": None},
    }
