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


@pytest.fixture
def copy_of_the_package(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "mlops_mini", tmp_path / "mlops_mini", ignore=ignored)
    return tmp_path


def test_the_layers_hold(copy_of_the_package):
    linted = lint_imports(copy_of_the_package)

    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize(
    ("module", "planted", "reported"),
    [
        (
            "data/periods.py",
            "mlops_mini.pipeline",
            "mlops_mini.data.periods -> mlops_mini.pipeline",
        ),
        (
            "serving/config.py",
            "mlops_mini.client",
            "mlops_mini.serving.config -> mlops_mini.client",
        ),
        ("features/online.py", "tensorflow", "mlops_mini.features.online -> tensorflow"),
        (
            "serving/inference.py",
            "mlops_mini.serving.rest_api",
            "mlops_mini.serving.inference -> mlops_mini.serving.rest_api",
        ),
    ],
)
def test_a_planted_violation_is_reported(copy_of_the_package, module, planted, reported):
    file = copy_of_the_package / "mlops_mini" / module
    file.write_text(f"{file.read_text()}\nimport {planted}\n")

    linted = lint_imports(copy_of_the_package)

    assert linted.returncode == 1
    assert reported in linted.stdout


def test_a_module_without_a_layer_is_reported(copy_of_the_package):
    (copy_of_the_package / "mlops_mini" / "nowhere.py").write_text('"""Nowhere."""\n')

    linted = lint_imports(copy_of_the_package)

    assert linted.returncode == 1
    assert "nowhere" in linted.stdout


@pytest.mark.parametrize(
    ("module", "may_load"),
    [
        ("mlops_mini", set()),
        ("mlops_mini.client", set()),
        ("mlops_mini.wire", set()),
        ("mlops_mini.cli", set()),
        ("mlops_mini.data.periods", set()),
        ("mlops_mini.features.definitions", {"pandas"}),
        ("mlops_mini.features.offline", {"pandas"}),
        ("mlops_mini.features.online", {"pandas"}),
        ("mlops_mini.data.datasets", {"pandas"}),
        ("mlops_mini.data.drift", {"pandas"}),
        ("mlops_mini.plots", {"pandas"}),
        ("mlops_mini.pipeline.training", {"pandas"}),
        ("mlops_mini.serving.inference", set()),
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
