"""docs/your-own-data.md, run as it's printed, in an empty folder."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from mlops_mini.client import RestClient
from mlops_mini.errors import NotFoundError, UnavailableError
from tests.serving.servers import free_ports, wait_until

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "your-own-data.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)


def shell(command: str, folder: Path) -> str:
    """Run a command as a reader would, in an environment where the package is installed."""
    bin_folder = Path(sys.executable).parent
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("MLOPS_MINI")
    }
    environment |= {"PATH": f"{bin_folder}:{os.environ['PATH']}", "COLUMNS": "120"}
    done = subprocess.run(
        ["sh", "-ec", command], cwd=folder, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def words(text: str) -> list[str]:
    return re.sub("─+", "─", text).split()


@pytest.mark.slow
def test_the_page_does_what_it_says(tmp_path: Path) -> None:
    names = re.findall(r"save th(?:is|ese) as\s+`([\w.]+)`", PAGE, re.IGNORECASE)
    files = [text for kind, text in BLOCKS if kind in {"python", "csv"}]
    for name, text in zip(names, files, strict=True):
        (tmp_path / name).write_text(text)
    rest, grpc = free_ports(2)
    printed: list[str] = []
    server = None

    for kind, text in BLOCKS:
        if kind == "text":
            assert words(printed[-1]) == words(text)
        if kind == "sh" and text.startswith("mlops-mini serve "):
            ports = f" --rest-port {rest} --grpc-port {grpc}"
            command = [*text.split(), *ports.split()]
            command[0] = str(Path(sys.executable).with_name("mlops-mini"))
            server = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
            wait_until(lambda: is_served(rest), "the model")
        elif kind == "sh":
            printed.append(shell(text.replace(":8501", f":{rest}"), tmp_path))
            if text.startswith("curl"):
                assert 0.5 < float(re.findall(r"[\d.]+", printed[-1])[-1]) < 1
    assert server is not None
    server.send_signal(signal.SIGINT)
    assert server.wait(60) in {0, 1, -signal.SIGINT}

    models = tmp_path / "runs" / "pipeline" / "models" / "churn"
    # Whether June's candidate is worse than May's is for the processor to decide.
    assert sorted(path.name for path in models.iterdir() if path.is_dir()) in (["1"], ["1", "2"])
    predictions = pd.read_csv(tmp_path / "predictions.csv")
    assert list(predictions.columns) == ["customer", "probability"]
    assert predictions["customer"].tolist() == [9001, 9002]
    assert predictions["probability"].iloc[0] > 0.5 > predictions["probability"].iloc[1]


def is_served(port: int) -> bool:
    """Tell whether the model has a version that answers."""
    with RestClient(f"127.0.0.1:{port}", model="churn") as client:
        try:
            return bool(client.predict({"plan": ["basic"], "calls": [5]}))
        except (UnavailableError, NotFoundError):
            return False


def test_commands_of_the_readme_are_those_of_the_page() -> None:
    readme = (ROOT / "README.md").read_text().partition("## In your own work")[2]
    (block,) = re.findall(r"```\n(mlops-mini new .*?)```", readme, re.DOTALL)

    on_page = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
    assert [line for line in block.splitlines() if line not in on_page] == []
