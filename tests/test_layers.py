"""The rules of who imports whom, and what stays cheap to import."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("tensorflow", "keras", "grpc", "pandas", "kfp")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [script, "--config", folder / "pyproject.toml", "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def copy_of_the_package(folder: Path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", folder)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "mlops_mini", folder / "mlops_mini", ignore=ignored)
    return folder


def test_the_layers_hold(tmp_path: Path) -> None:
    linted = lint_imports(copy_of_the_package(tmp_path))

    assert linted.returncode == 0, linted.stdout


PLANTED = {  # module: what it is made to import
    "data/periods.py": "mlops_mini.pipeline",
    "serving/config.py": "mlops_mini.client",
    "features/online.py": "tensorflow",
    "serving/predict.py": "mlops_mini.serving.rest_api",
    "nowhere.py": "json",
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """What is said of the package with all of these planted at once."""
    folder = copy_of_the_package(tmp_path_factory.mktemp("planted"))
    for module, imported in PLANTED.items():
        with (folder / "mlops_mini" / module).open("a") as file:
            file.write(f"\nimport {imported}\n")
    return lint_imports(folder)


@pytest.mark.parametrize("module", PLANTED)
def test_a_planted_violation_is_reported(
    planted: subprocess.CompletedProcess[str], module: str
) -> None:
    name = f"mlops_mini.{module.removesuffix('.py').replace('/', '.')}"

    assert planted.returncode == 1
    if module == "nowhere.py":  # it has no layer
        assert "nowhere" in planted.stdout
    else:
        assert f"{name} -> {PLANTED[module]}" in planted.stdout


@pytest.mark.parametrize(
    ("module", "may_load"),
    [
        ("mlops_mini", set()),
        ("mlops_mini.client", set()),
        ("mlops_mini.wire", set()),
        ("mlops_mini.cli", set()),
        ("mlops_mini.data.periods", set()),
        ("mlops_mini.flights.features", {"pandas"}),
        ("mlops_mini.features.offline", {"pandas"}),
        ("mlops_mini.features.online", {"pandas"}),
        ("mlops_mini.flights.datasets", {"pandas"}),
        ("mlops_mini.statistics.drift", {"pandas"}),
        ("mlops_mini.statistics.mergeable", {"pandas"}),
        ("mlops_mini.model.training", {"pandas"}),
        ("mlops_mini.model.publish", set()),
        ("mlops_mini.runner.attempts", set()),
        ("mlops_mini.serving.predict", set()),
    ],
)
def test_importing_a_module_stays_cheap(module, may_load):
    code = (
        f"import {module}, sys, json; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    )

    printed = subprocess.check_output([sys.executable, "-c", code], text=True)

    assert set(json.loads(printed)) <= may_load


def test_every_module_of_the_package_is_in_the_file_map_of_the_readme():
    readme = (ROOT / "README.md").read_text()
    modules = {path.stem for path in (ROOT / "mlops_mini").rglob("*.py")} - {"__init__"}

    assert {name for name in modules if name not in readme} == set()
