"""What a task's key depends on: the files of an artifact, and the code that a component reaches."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlops_mini.runner import digests
from mlops_mini.runner.digests import content_digest, reach


def write(folder: Path, **files: str) -> Path:
    """Write files; "a__b" stands for "a/b", and each name gets ".py" unless it has an ending."""
    for name, text in files.items():
        file = folder / name.replace("__", "/").replace("_init", "__init__.py")
        file = file if file.suffix else file.with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules of the user's own, as one beside a notebook."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


# Artifacts.


def test_order_and_place_of_files_do_not_count_but_names_bytes_and_folders_do(
    tmp_path: Path,
) -> None:
    write(tmp_path / "a", x="1", y="2")
    write(tmp_path / "b" / "c", y="2", x="1")
    assert content_digest(tmp_path / "a") == content_digest(tmp_path / "b" / "c")

    different = {content_digest(tmp_path / name) for name in ("a", "b", "a/x.py", "a/y.py")}
    (tmp_path / "a" / "empty").mkdir()
    different.add(content_digest(tmp_path / "a"))
    (tmp_path / "a" / "x.py").rename(tmp_path / "a" / "z.py")
    different.add(content_digest(tmp_path / "a"))
    write(tmp_path / "a", z="12", y="")
    different.add(content_digest(tmp_path / "a"))

    assert len(different) == 7


def test_what_a_link_to_a_folder_leads_to_counts_like_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", rows="1")
    write(tmp_path / "copied" / "part", rows="1")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "part").symlink_to(tmp_path / "elsewhere")
    before = content_digest(tmp_path / "linked")

    write(tmp_path / "elsewhere", rows="2")

    assert before == content_digest(tmp_path / "copied")
    assert before != content_digest(tmp_path / "linked")


def test_names_that_are_no_unicode_and_links_that_lead_nowhere_are_digested(
    tmp_path: Path,
) -> None:
    write(tmp_path, x="1")
    before = content_digest(tmp_path)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).write_text("")
    (tmp_path / "nowhere").symlink_to("missing")
    (tmp_path / "loop").symlink_to(".")

    assert content_digest(tmp_path) not in {before, ""}


def test_metadata_stand_in_only_where_there_is_no_file(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert content_digest(missing, {"auc": 0.5}) != content_digest(missing, {"auc": 0.6})
    assert content_digest(missing, {"a": 1, "b": 2}) == content_digest(missing, {"b": 2, "a": 1})
    write(tmp_path, x="1")
    assert content_digest(tmp_path, {"auc": 0.5}) == content_digest(tmp_path, {"auc": 0.6})


# Code.


def test_a_function_two_imports_away_counts_and_an_unrelated_module_does_not(own: Path) -> None:
    write(own, near="def f():\n    from far import g\n", far="def g(): return 1", other="x = 1")
    component = "def c():\n    import near\n"
    before = reach(component).digest

    write(own, other="x = 2")
    assert reach(component).digest == before
    write(own, far="def g(): return 2")
    assert reach(component).digest != before


@pytest.mark.parametrize(
    "import_", ["import pkg.one", "from pkg import one", "from pkg.one import f", "import pkg"]
)
def test_relative_imports_within_a_package_are_followed(import_: str, own: Path) -> None:
    write(own, pkg___init="from . import one\n", pkg__one="from .sub import two\nf = 1\n")
    write(own, pkg__sub___init="", pkg__sub__two="from ..three import x\n", pkg__three="x = 1")
    component = f"def c():\n    {import_}\n"
    before = reach(component).digest

    write(own, pkg__three="x = 2")

    assert reach(component).digest != before


def test_modules_of_a_folder_without_init_are_followed(own: Path) -> None:
    write(own, space__deep__module="x = 1")
    component = "def c():\n    from space.deep import module\n"
    before = reach(component)
    assert "space" not in before.installed

    write(own, space__deep__module="x = 2")

    assert reach(component).digest != before.digest


def test_a_package_comes_before_a_module_of_the_same_name(own: Path) -> None:
    write(own, pkg___init="", pkg__both="x = 1", pkg__both___init="x = 1")
    component = "def c():\n    import pkg.both\n"
    before = reach(component).digest

    write(own, pkg__both="x = 2")
    assert reach(component).digest == before
    write(own, pkg__both___init="x = 2")
    assert reach(component).digest != before


def test_a_name_imported_from_a_module_is_not_the_module_beside_it(own: Path) -> None:
    write(own, tool="config = {}", config="x = 1")
    component = "def c():\n    from tool import config\n"
    before = reach(component).digest

    write(own, config="x = 2")

    assert reach(component).digest == before


@pytest.mark.parametrize("place", ["pkg/schema.pbtxt", "pkg/sub/schema.pbtxt", "pkg/files/a.sql"])
def test_data_in_a_package_count(place: str, own: Path) -> None:
    for file in ("pkg/schema.pbtxt", "pkg/sub/schema.pbtxt", "pkg/files/a.sql"):
        (own / file).parent.mkdir(parents=True, exist_ok=True)
        (own / file).write_text("1")
    write(own, pkg___init="", pkg__sub___init="")
    component = "def c():\n    import pkg.sub\n"
    before = reach(component).digest
    (own / "pkg" / "__pycache__").mkdir()
    (own / "pkg" / "__pycache__" / "one.pyc").write_text("compiled")
    assert reach(component).digest == before

    (own / place).write_text("2")

    assert reach(component).digest != before


def test_a_new_import_is_followed_even_if_the_file_has_its_old_time(own: Path) -> None:
    write(own, near="x = 1", far="x = 1")
    component = "def c():\n    import near\n"
    reach(component)
    times = (own / "near.py").stat()
    write(own, near="import far")
    os.utime(own / "near.py", ns=(times.st_atime_ns, times.st_mtime_ns))
    before = reach(component).digest

    write(own, far="x = 2")

    assert reach(component).digest != before


def test_a_module_that_was_missing_at_first_is_followed_once_it_is_there(own: Path) -> None:
    component = "def c():\n    import late\n"
    assert reach(component).installed == {"late"}
    write(own, late="x = 1")
    before = reach(component)

    write(own, late="x = 2")

    assert before.installed == frozenset()
    assert reach(component).digest != before.digest


@pytest.mark.parametrize("broken", ["def (", "x = 1\0", "é = 'ä'"])
def test_source_that_cannot_be_read_counts_by_its_bytes(broken: str, own: Path) -> None:
    (own / "odd.py").write_bytes(b"x = 1")
    before = reach("def c():\n    import odd\n").digest
    (own / "odd.py").write_bytes(broken.encode("latin-1"))

    assert reach("def c():\n    import odd\n").digest != before
    assert reach("def (").installed == frozenset()


def test_a_circle_of_imports_ends(own: Path) -> None:
    write(own, one="import two", two="import one, json, numpy")

    assert reach("def c():\n    import one\n").installed == {"numpy"}


def test_what_a_component_imports_at_once_is_told_from_what_it_may_import_later(own: Path) -> None:
    write(own, near="import numpy\nimport far\nclass C:\n    import pandas\ndef f(): import keras")
    write(own, far="try:\n    import scipy\nexcept ImportError:\n    scipy = None\n")
    write(own, lazy="import tensorflow, numpy")
    component = "def c():\n    import sklearn, near\n    def g():\n        import pyarrow\n"

    found = reach(component)
    assert found.at_once == {"sklearn", "numpy", "pandas", "scipy", "pyarrow"}
    assert found.installed - found.at_once == {"keras"}

    write(own, near="def f():\n    import lazy, numpy\nimport numpy")
    found = reach(component)
    assert found.at_once == {"sklearn", "numpy", "pyarrow"}
    assert found.installed - found.at_once == {"tensorflow"}


def test_what_only_a_type_checker_imports_is_not_imported_at_once(own: Path) -> None:
    write(own, near="import typing as t\nif t.TYPE_CHECKING:\n    import numpy\nimport scipy")

    found = reach("def c():\n    import near\n")

    assert (found.installed, found.at_once) == ({"numpy", "scipy"}, {"scipy"})


def test_installed_packages_are_not_followed_from_an_environment_behind_a_link(
    tmp_path: Path,
) -> None:
    (tmp_path / "linked").symlink_to(Path(sys.prefix))
    code = (
        "from mlops_mini.runner.digests import reach; import sys;"
        "print(reach('def c():\\n import keras').installed == {'keras'}, sys.prefix)"
    )
    python = tmp_path / "linked" / "bin" / "python"

    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["True", str(tmp_path / "linked")]


def test_the_digest_is_the_same_in_every_process(own: Path) -> None:
    for folder in ("pkg", "pkg/sub", "pkg/other"):
        (own / folder).mkdir()
        (own / folder / "__init__.py").touch()
        (own / folder / "schema.json").write_text(folder)
    code = (
        "from mlops_mini.runner.digests import reach;"
        "print(reach('def c():\\n import pkg.sub, pkg.other').digest)"
    )

    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(own), "PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip

    assert said == {reach("def c():\n    import pkg.sub, pkg.other").digest + "\n"}


def test_what_is_installed_is_in_the_digest_of_the_environment(own: Path) -> None:
    look_again = digests.installed_digest.__wrapped__  # else once a process
    before = look_again()
    (own / "tiny-1.0.dist-info").mkdir()
    one = look_again()
    (own / "tiny-1.0.dist-info").rename(own / "tiny-1.1.dist-info")

    assert len({before, one, look_again()}) == 3
