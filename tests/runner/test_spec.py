"""A compiled pipeline is read strictly."""

from pathlib import Path
from typing import Any

import pytest
from kfp import compiler

from mlops_mini.errors import InvalidArgumentError, NotFoundError
from mlops_mini.runner import spec
from tests.conformance.pipelines import CASES
from tests.runner import faults


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    compiler.Compiler().compile(faults.measured, str(tmp_path / "measured.yaml"))
    return tmp_path / "measured.yaml"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_conformance_case_is_read(case: Any) -> None:
    loaded = spec.load(case.pipeline)

    assert loaded.name == case.name.replace("_", "-").strip("-")
    for task in loaded.root["dag"]["tasks"].values():
        component = loaded.component(task)
        assert "dag" in component or loaded.executor(component)


def test_the_digest_is_that_of_the_pipeline_and_not_of_its_file(compiled: Path) -> None:
    text = compiled.read_text()
    elsewhere = compiled.with_name("é elsewhere.yaml")
    elsewhere.write_text(f"# A comment.\n{text}")
    changed = compiled.with_name("changed.yaml")
    changed.write_text(text.replace("defaultValue: four", "defaultValue: five"))

    digests = [spec.load(one).digest for one in (compiled, elsewhere, faults.measured)]

    assert len(set(digests)) == 1
    assert spec.load(changed).digest not in digests


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (("schemaVersion: 2.1.0", "schemaVersion: 3.0.0"), r"'3\.0\.0'.*reads 2\.1\.0"),
        (("schemaVersion: 2.1.0", ""), r"schemaVersion None"),
        (("componentRef:", "bogus: 1\n        componentRef:"), "bogus"),
        (("  name: measured", "  description: x"), "lacks a name"),
        (("pipelineInfo:", "pipelineInfos:"), "holds 0"),
        (("root:", "rooms:"), "rooms"),
        (("# PIPELINE", "{"), "not YAML"),
    ],
)
def test_what_is_not_understood_is_refused_and_the_file_named(
    edit: tuple[str, str], message: str, compiled: Path
) -> None:
    text = compiled.read_text()
    assert edit[0] in text
    compiled.write_text(text.replace(*edit, 1))

    with pytest.raises(InvalidArgumentError, match=rf"(?s)measured\.yaml.*{message}"):
        spec.load(compiled)


def test_two_pipelines_in_one_file_are_refused_and_a_platform_spec_beside_one_is_not(
    compiled: Path,
) -> None:
    text = compiled.read_text()
    compiled.write_text(f"{text}\n---\nplatforms: {{}}\n")
    assert spec.load(compiled).name == "measured"

    compiled.write_text(f"{text}\n---\n{text}")
    with pytest.raises(InvalidArgumentError, match="holds 2"):
        spec.load(compiled)


@pytest.mark.parametrize("no_pipeline", [3, "pipeline.yaml", len, None])
def test_what_is_no_pipeline_is_refused(no_pipeline: object) -> None:
    with pytest.raises(InvalidArgumentError, match=r"is no pipeline.*@dsl\.pipeline"):
        spec.load(no_pipeline)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"nowhere\.yaml"):
        spec.load(tmp_path / "nowhere.yaml")
