"""Where data and runs are, and that no folder is emptied which is not ours."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mlops_mini import workspace
from mlops_mini.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
)

ROOT = Path(__file__).resolve().parents[1]
MARK = ".ours"
VARIABLES = (workspace.DATA, workspace.HOME)


def emptied(folder, **more):
    return workspace.emptied(folder, mark=MARK, owner="a test", way_out="name another", **more)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def everything_in(folder):
    """Each path below a folder, and what a file holds or where a link leads."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[path] = path.readlink()
        else:
            found[path] = path.read_bytes() if path.is_file() else "folder"
    return found


@pytest.fixture
def no_variables(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def ours(tmp_path):
    """A folder with our mark and a file."""
    with emptied(tmp_path / "ours") as folder:
        (folder / "result").write_text("old")
    return folder


@pytest.mark.parametrize("below", ["", "notebooks", "runs/04/runs/first/count/attempt-1/work"])
@pytest.mark.usefixtures("no_variables")
def test_data_and_runs_are_found_from_any_folder_of_the_checkout(tmp_path, monkeypatch, below):
    (tmp_path / "data").mkdir()
    for name in ("checksums.txt", "contents.json"):
        (tmp_path / "data" / name).touch()
    (tmp_path / below).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path / below)

    assert workspace.data_folder() == tmp_path / "data"
    assert workspace.runs_folder() == tmp_path / "runs"


@pytest.mark.usefixtures("no_variables")
def test_this_checkout_is_one(monkeypatch):
    monkeypatch.chdir(ROOT / "notebooks")

    assert workspace.data_folder() == ROOT / "data"
    assert workspace.runs_folder() == ROOT / "runs"


@pytest.mark.usefixtures("no_variables")
def test_elsewhere_they_are_below_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()  # of something else
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")

    assert workspace.data_folder() == tmp_path / "mine" / "data"
    assert workspace.runs_folder() == tmp_path / "mine" / "runs"


def test_the_variables_come_first(tmp_path, monkeypatch):
    monkeypatch.setenv("MLOPS_MINI_DATA", str(tmp_path / "a"))
    monkeypatch.setenv("MLOPS_MINI_HOME", str(tmp_path / "b"))

    assert workspace.data_folder() == tmp_path / "a"
    assert workspace.runs_folder() == tmp_path / "b"


@pytest.mark.parametrize("tell", [workspace.data_folder, workspace.runs_folder])
@pytest.mark.parametrize("path", ["here", "~/there", "./x"])
def test_a_relative_path_is_refused_since_children_work_elsewhere(monkeypatch, tell, path):
    for name in VARIABLES:
        monkeypatch.setenv(name, path)

    with pytest.raises(InvalidArgumentError, match=f"is '{path}'.*give an absolute path"):
        tell()


@pytest.mark.usefixtures("no_variables")
def test_a_current_folder_that_is_gone_is_told(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()

    with pytest.raises(NotFoundError, match="the current folder is gone"):
        workspace.runs_folder()


def test_a_folder_that_is_not_there_or_empty_becomes_ours(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("new/deep", "empty"):
        with emptied(tmp_path / name) as folder:
            assert folder == tmp_path / name
            (folder / "result").write_text("old")
        with emptied(tmp_path / name):
            assert names(tmp_path / name) == [MARK]


@pytest.mark.parametrize("what", ["file", "folder", "link", "mark that is a link", "mark folder"])
def test_a_folder_without_our_mark_is_refused_and_nothing_has_changed(tmp_path, what):
    theirs = tmp_path / "paper"
    theirs.mkdir()
    (tmp_path / "paper.log").write_text("of years of work")
    (tmp_path / "elsewhere").touch()
    match what:
        case "file":
            (theirs / "thesis.tex").write_text("years of work")
        case "folder":
            (theirs / "chapters").mkdir()
        case "link":
            (theirs / "gone").symlink_to(tmp_path / "nowhere")
        case "mark that is a link":
            (theirs / MARK).symlink_to(tmp_path / "elsewhere")
        case _:
            (theirs / MARK).mkdir()
    before = everything_in(tmp_path)

    with pytest.raises(FailedPreconditionError, match=r"paper has no \.ours, .*name another"):
        emptied(theirs).__enter__()

    assert everything_in(tmp_path) == before


def test_a_link_to_a_folder_is_not_followed_even_to_one_of_ours(ours, tmp_path):
    (tmp_path / "link").symlink_to(ours)
    before = everything_in(tmp_path)

    with pytest.raises(FailedPreconditionError, match="link is a link"):
        emptied(tmp_path / "link").__enter__()

    assert everything_in(tmp_path) == before


def test_links_within_are_removed_and_what_they_lead_to_stays(ours, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("years of work")
    (ours / "deep").mkdir()
    for link in (ours / "link", ours / "deep" / "link"):
        link.symlink_to(tmp_path / "thesis")
    (ours / "file").symlink_to(tmp_path / "thesis" / "thesis.tex")
    (ours / "loop").symlink_to(ours / "loop")

    with emptied(ours):
        assert names(ours) == [MARK]

    assert (tmp_path / "thesis" / "thesis.tex").read_text() == "years of work"


def test_a_file_is_no_workspace(tmp_path):
    (tmp_path / "paper").write_text("years of work")

    with pytest.raises(FailedPreconditionError, match="paper is a file, not a folder"):
        emptied(tmp_path / "paper").__enter__()
    with pytest.raises(FailedPreconditionError, match=r"cannot be emptied .*name another"):
        emptied(tmp_path / "paper" / "loop").__enter__()

    assert (tmp_path / "paper").read_text() == "years of work"


def needed_folders(tmp_path, ours):
    """Folders that would be ours, and the current folder, home and data for which they are not."""
    return {
        "the current folder": {"cwd": ours / "deep", "match": "holds the current folder"},
        "this very folder": {"cwd": ours, "match": "is the current folder"},
        "home": {"home": ours, "match": "is the home folder"},
        "above home": {"home": ours / "deep", "match": "holds the home folder"},
        "data": {"needed": [ours / "deep"], "match": "holds what is needed"},
    }


@pytest.mark.parametrize("case", needed_folders(Path(), Path()))
def test_what_is_needed_stays_whatever_the_mark_says(ours, tmp_path, monkeypatch, case):
    told = needed_folders(tmp_path, ours)[case]
    (ours / "deep").mkdir()
    monkeypatch.chdir(told.get("cwd", tmp_path))
    monkeypatch.setenv("HOME", str(told.get("home", tmp_path)))
    monkeypatch.chdir(told.get("cwd", ROOT))
    before = everything_in(tmp_path)

    with pytest.raises(FailedPreconditionError, match=told["match"]):
        emptied(ours, needed=told.get("needed", ())).__enter__()

    assert everything_in(tmp_path) == before


@pytest.mark.parametrize("folder", ["/", ".", ROOT, ROOT / "mlops_mini", ROOT.parent])
def test_root_current_folder_and_repository_are_refused(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(FailedPreconditionError, match=r"(is|holds) (the current|this package)"):
        emptied(Path(folder)).__enter__()

    assert names(tmp_path) == []


def test_only_one_at_a_time_has_a_folder(ours):
    (ours / "result").write_text("of the first")
    with emptied(ours):
        (ours / "result").write_text("of the second")

        with pytest.raises(AlreadyExistsError, match=r"another process works in .*, as a test"):
            emptied(ours).__enter__()

        assert (ours / "result").read_text() == "of the second"
    with emptied(ours):
        assert names(ours) == [MARK]


def test_what_a_killed_one_left_is_emptied_by_the_next(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from mlops_mini import workspace\n"
        f"with workspace.emptied(Path(sys.argv[1]), mark={MARK!r}, owner='', way_out='') as own:\n"
        "    (own / 'half').touch()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "runs")], check=False)
    assert names(tmp_path / "runs") == [MARK, "half"]

    with emptied(tmp_path / "runs"):
        assert names(tmp_path / "runs") == [MARK]


def test_a_folder_that_is_read_only_is_removed_too():
    """As an ordinary user, for whom the system refuses; root may do everything."""
    code = f"""
import os, sys
from pathlib import Path
from mlops_mini import workspace

if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
with workspace.emptied(Path("runs"), mark="{MARK}", owner="", way_out=""):
    Path("runs/a/b").mkdir(parents=True)
    Path("runs/a/b/c").touch()
    for path in ("runs/a/b/c", "runs/a/b", "runs/a"):
        os.chmod(path, 0o555)
with workspace.emptied(Path("runs"), mark="{MARK}", owner="", way_out=""):
    print(os.listdir("runs"))
"""
    with tempfile.TemporaryDirectory() as folder:  # not tmp_path, which others may not enter
        Path(folder).chmod(0o777)
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=folder,
            env={"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )

    assert done.stdout == f"['{MARK}']\n", done.stderr
