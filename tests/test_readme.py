"""What the README shows of serving a model does what it says."""

import os
import re
from pathlib import Path

import pytest

from tests.serving.servers import Server, run_in_child
from tools.notebooks import document, phrases

README = (Path(__file__).parents[1] / "README.md").read_text()


def _block(start: str) -> str:
    """Find the README's block of code that begins so."""
    (found,) = re.findall(rf"```(?:python)?\n({re.escape(start)}.*?)```", README, re.DOTALL)
    return str(found)


def _export(folder: Path) -> None:
    os.chdir(folder)
    exec(compile(_block("import keras"), "README.md", "exec"), {})


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "docs/your-own-data.md", "docs/model-server.md"]
)
def test_pages_have_no_phrase_that_nobody_would_say(name: str) -> None:
    text = (Path(__file__).parents[1] / name).read_text()

    assert phrases.first_found(document.without_code(text)) is None


def test_a_model_is_exported_served_and_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_in_child(_export, tmp_path, log_file=tmp_path / "export.log")
    command, curl = _block(".venv/bin/mini-model-server").splitlines()
    flags = dict(re.findall(r"--(\w+)=(\S+)", command))
    body, url = re.findall(r"'(.*)' http://127.0.0.1:8501(\S+)", curl)[0]
    server = Server.start(tmp_path / flags["model_base_path"], tmp_path / "server")
    try:
        server.wait_for(1)
        (number,) = server.ask("POST", url, body).json["predictions"]
        asking = _block("import numpy").replace("127.0.0.1:8501", server.rest)
        exec(asking.replace("127.0.0.1:8500", server.grpc), {})
    finally:
        server.close()

    assert flags["model_name"] == "m"
    printed = [float(each) for each in re.findall(r"\[\[(\S+)\]\]", capsys.readouterr().out)]
    assert printed == pytest.approx([*number, *number], rel=1e-6)
