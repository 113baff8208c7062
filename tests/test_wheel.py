"""The wheel: what it holds, and that what is installed from it works outside the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # By the build backend itself, as pip would call it, but without pip's download of it.
    code = "import sys; from flit_core import buildapi; buildapi.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, folder], cwd=ROOT, check=True)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like site-packages, with nothing but the package, read-only."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"),
            *("--no-index", "--no-deps", "--no-compile", "--target", folder, wheel),
        ],
        check=True,
    )
    return folder


def run(installed: Path, *command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    without = ("MLOPS_MINI_DATA", "MLOPS_MINI_HOME")
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={
            **{name: value for name, value in os.environ.items() if name not in without},
            "PYTHONPATH": str(installed),
            "PYTHONDONTWRITEBYTECODE": "1",
            "XDG_CACHE_HOME": str(cwd / "cache"),
        },
        capture_output=True,
        text=True,
        check=False,
    )


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_it_holds_the_package_whole_and_nothing_else(wheel: Path) -> None:
    tracked = subprocess.check_output(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "mlops_mini"],
        cwd=ROOT,
        text=True,
    )

    names = set(zipfile.ZipFile(wheel).namelist())

    package = {name for name in names if not name.startswith("mlops_mini-0.1.0.dist-info/")}
    assert package == set(tracked.splitlines())
    assert {"mlops_mini/flights/flights.pbtxt", "mlops_mini/notebook.mplstyle"} < package
    assert "mlops_mini-0.1.0.dist-info/licenses/LICENSE" in names


def test_outside_the_checkout_the_command_says_what_is_missing(installed, tmp_path) -> None:
    before = files_in(installed)

    shown = run(installed, "-m", "mlops_mini.cli", "--help", cwd=tmp_path)
    failed = run(installed, "-m", "mlops_mini.cli", "loop", cwd=tmp_path)

    assert shown.returncode == 0, shown.stderr
    assert "The whole loop of continuous training" in shown.stdout
    assert failed.returncode == 1
    (line,) = failed.stderr.strip().splitlines()[-1:]
    assert line.startswith(f"mlops-mini: no data folder {tmp_path}/data: ")
    assert "MLOPS_MINI_DATA" in line
    assert list(tmp_path.iterdir()) == []
    assert files_in(installed) == before


def test_nothing_that_is_installed_takes_its_own_folder(installed, tmp_path) -> None:
    """Not even where other packages have left a pyproject.toml beside it, as some do."""
    (installed / "pyproject.toml").touch()
    code = """
import mlops_mini
from mlops_mini import workspace
from mlops_mini.runner import environments
print(mlops_mini.__path__[0])
print(workspace.data_folder(), workspace.runs_folder(), environments.default_root())
"""

    told = run(installed, "-c", code, cwd=tmp_path)

    package, found = told.stdout.splitlines()
    assert package == f"{installed}/mlops_mini", told.stderr
    assert found.split() == [
        f"{tmp_path}/data",
        f"{tmp_path}/runs",
        f"{tmp_path}/cache/mlops_mini/environments",
    ]


def test_a_pipeline_of_the_users_runs_from_it(installed, tmp_path) -> None:
    (tmp_path / "mine.py").write_text("""
from pathlib import Path

from kfp import compiler, dsl

from mlops_mini.runner.runner import Runner


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def double(x: int) -> int:
    return 2 * x


@dsl.pipeline(name="mine")
def mine(x: int):
    double(x=double(x=x).output)


compiler.Compiler().compile(mine, "mine.yaml")
with Runner(Path("runs/mine")) as runner:
    run = runner.run(Path("mine.yaml"), arguments={"x": 5})
print(run.tasks["double-2"].outputs["parameters"]["Output"])
""")
    before = files_in(installed)

    ran = run(installed, "mine.py", cwd=tmp_path)

    assert ran.stdout == "20\n", ran.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.py", "mine.yaml", "runs"]
    assert files_in(installed) == before
