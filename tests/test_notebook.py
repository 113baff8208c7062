"""What notebooks begin with: in plain processes, and once in a real kernel."""

import json
import logging
import math
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from mlops_mini import notebook
from mlops_mini.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from tools.notebooks import document, refresh

NB = notebook.Notebook(workspace=Path("runs/05"), hash_seed="0")


def run(code: str, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"from mlops_mini import notebook\n{code}"],
        env={"MLOPS_MINI_HOME": str(home), **variables},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_workspace_is_emptied_and_nothing_else(tmp_path):
    (tmp_path / "06").mkdir()
    code = 'nb = notebook.begin("05")\nprint(nb.workspace)\n(nb.workspace / "old").mkdir()'

    first, second = run(code, tmp_path), run(code, tmp_path)

    assert first.stdout == second.stdout == f"{tmp_path}/05\n", second.stderr
    assert sorted(path.name for path in (tmp_path / "05").iterdir()) == [
        ".mlops-mini-notebook",
        "native.log",
        "old",
    ]
    assert (tmp_path / "06").exists()


@pytest.mark.parametrize("name", ["thesis.tex", "native.log"])
def test_a_folder_of_that_name_that_no_notebook_has_made_is_left_alone(tmp_path, name):
    (tmp_path / "05").mkdir()
    (tmp_path / "05" / name).write_text("years of work")

    done = run('notebook.begin("05")', tmp_path)

    assert done.returncode == 1
    assert "the mark of a notebook" in done.stderr
    assert "set MLOPS_MINI_HOME to another" in done.stderr
    assert (tmp_path / "05" / name).read_text() == "years of work"


def test_a_second_kernel_does_not_take_the_folder_away(tmp_path):
    second = """
import subprocess, sys
nb = notebook.begin("05")
(nb.workspace / "model").touch()
code = 'from mlops_mini import notebook; notebook.begin("05")'
done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
print(done.returncode, "another process works in" in done.stderr, (nb.workspace / "model").exists())
"""

    assert run(second, tmp_path).stdout == "1 True True\n"


def test_what_a_notebook_starts_finds_the_data_wherever_it_works(tmp_path):
    code = """
import os, subprocess, sys
os.chdir("notebooks")
nb = notebook.begin("05")
code = "from mlops_mini.flights import datasets; print(datasets.data_folder())"
subprocess.run([sys.executable, "-c", code], cwd=nb.workspace)
"""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "data").mkdir()
    for name in ("checksums.txt", "contents.json"):
        (tmp_path / "data" / name).touch()

    with tempfile.TemporaryDirectory() as elsewhere:
        done = run(code, tmp_path, MLOPS_MINI_HOME=elsewhere)

    assert done.stdout == f"{tmp_path}/data\n", done.stderr


@pytest.mark.parametrize("notebook_id", ["5", "005", "../05", "", "ab", "05\n"])
def test_an_id_that_is_not_two_digits_wipes_nothing(tmp_path, monkeypatch, notebook_id):
    monkeypatch.setenv("MLOPS_MINI_HOME", str(tmp_path))
    (tmp_path / "kept").mkdir()

    with pytest.raises(InvalidArgumentError, match="two digits of its file name"):
        notebook.begin(notebook_id)

    assert (tmp_path / "kept").exists()


def test_a_relative_home_is_refused_since_kernels_start_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLOPS_MINI_HOME", "runs")

    with pytest.raises(InvalidArgumentError, match="give an absolute path"):
        notebook.begin("05")

    assert list(tmp_path.iterdir()) == []


def test_it_fixes_threads_seeds_and_style(tmp_path):
    code = """
nb = notebook.begin("05")
import json, os, random, matplotlib, numpy as np, scipy.linalg, threadpoolctl
threads = {pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
print(json.dumps([os.environ["TF_NUM_INTRAOP_THREADS"], list(threads),
    random.random(), float(np.random.rand()), matplotlib.rcParams["figure.figsize"],
    matplotlib.rcParams["axes.titlelocation"], nb.hash_seed]))
"""
    (tmp_path / "matplotlibrc").write_text("axes.titlelocation: right\nfont.size: 40\n")

    first = run(code, tmp_path, PYTHONHASHSEED="7")

    assert json.loads(first.stdout)[:2] == ["1", [1]]
    assert json.loads(first.stdout)[4:] == [[7.5, 3.2], "left", "7"]
    assert run(code, tmp_path, PYTHONHASHSEED="7").stdout == first.stdout


def test_it_refuses_to_come_after_tensorflow(tmp_path):
    # A module of that name is enough: what counts is that it has read its variables already.
    (tmp_path / "tensorflow.py").touch()

    done = run('import tensorflow\nnotebook.begin("05")', tmp_path, PYTHONPATH=str(tmp_path))

    assert done.returncode == 1
    assert "restart the kernel and call begin() before" in done.stderr
    assert not (tmp_path / "05").exists()


def test_it_may_be_called_again_after_it_has_set_what_tensorflow_reads(tmp_path):
    (tmp_path / "tensorflow.py").touch()
    code = 'notebook.begin("05")\nimport tensorflow\nprint(notebook.begin("05").workspace.name)'

    assert run(code, tmp_path, PYTHONPATH=str(tmp_path)).stdout == "05\n"


def test_without_a_kernel_pythons_own_stderr_stays_where_it_was(tmp_path):
    code = 'import os, sys\nos.write(2, b"native")\nprint("own", file=sys.stderr)'

    done = run(f'notebook.begin("05")\n{code}', tmp_path)

    assert done.stderr == "own\n"
    assert (tmp_path / "05" / "native.log").read_text() == "native"


def test_in_a_kernel_only_pythons_own_stderr_and_warnings_are_outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("MLOPS_MINI_HOME", str(tmp_path / "runs"))
    code = """
import logging, os, sys
from mlops_mini import notebook
notebook.begin("05")
for name in ("tensorflow", "absl"):
    logger = logging.getLogger(name)
    logger.addHandler(logging.StreamHandler(sys.stderr))
    logger.setLevel("INFO")
    logger.info("quiet")
    logger.warning("%s warns", name)
_ = os.write(2, b"native")
"""
    path = tmp_path / "05_try.ipynb"
    document.write(new_notebook(cells=[new_code_cell(code.strip())]), path)

    refresh.refresh(path)

    (cell,) = document.read(path).cells
    assert [(each.name, each.text) for each in cell.outputs] == [
        ("stderr", "tensorflow warns\nabsl warns\n")
    ]
    assert (tmp_path / "runs" / "05" / "native.log").read_text() == "native"


def test_the_filter_is_added_once(tmp_path):
    code = 'notebook.begin("05"); notebook.begin("05")\nimport logging\n'

    assert run(f'{code}print(len(logging.getLogger("absl").filters))', tmp_path).stdout == "1\n"


@pytest.mark.parametrize(
    ("x", "digits", "text"),
    [(0.7412, 2, "0.74"), (-0.001, 2, "0.00"), (12, 0, "12"), (1234.56, 1, "1234.6")],
)
def test_a_number_is_rounded(x, digits, text):
    assert NB.number(x, digits) == text


@pytest.mark.parametrize(
    ("x", "digits"),
    [(0.1249, 2), (0.12599, 2), (-0.125, 2), (0.6501, 1), (2.5005, 0), (0.12346, 4)],
)
def test_a_number_near_a_rounding_edge_is_refused_under_refresh(monkeypatch, x, digits):
    monkeypatch.setenv("MLOPS_MINI_REFRESH", "1")

    with pytest.raises(InvalidArgumentError, match=f"{x} with {digits} decimals is within"):
        NB.number(x, digits)


@pytest.mark.parametrize(("x", "digits"), [(0.4999, 2), (0.5001, 2), (0.1233, 3), (7, 0)])
def test_a_number_away_from_the_edges_is_not_refused(monkeypatch, x, digits):
    monkeypatch.setenv("MLOPS_MINI_REFRESH", "1")

    assert float(NB.number(x, digits)) == pytest.approx(x, abs=0.006)


@pytest.mark.parametrize("x", [math.nan, math.inf])
def test_no_number_is_refused_always(x):
    with pytest.raises(InvalidArgumentError, match="not a finite number"):
        NB.number(x, 2)


def test_a_short_source_is_printed_whole(capsys):
    NB.source(notebook._is_warning)

    assert capsys.readouterr().out == (
        "def _is_warning(record: logging.LogRecord) -> bool:\n"
        "    return record.levelno >= logging.WARNING\n"
    )


def test_a_longer_source_loses_all_but_the_first_line_of_its_docstring(capsys):
    NB.source(notebook.Notebook.number)

    printed = capsys.readouterr().out
    assert printed.startswith("def number(self, x: float, digits: int) -> str:\n")
    assert (
        '    """Format a number that another machine would print the same."""\n    if not'
        in printed
    )
    assert "Args:" not in printed


def test_a_source_that_is_too_long_is_refused():
    with pytest.raises(InvalidArgumentError, match=r"run has \d+ lines, a listing at most 25"):
        NB.source(subprocess.run)


def test_a_part_of_a_source_is_printed_without_notes_to_linters(capsys):
    NB.source(notebook.begin, start="random.seed", stop="_set_style")

    assert capsys.readouterr().out == ("random.seed(SEED)\nnp.random.seed(SEED)\n")


@pytest.mark.parametrize("part", [{"start": "no such"}, {"start": "random.seed", "stop": "begin"}])
def test_a_part_that_is_not_there_is_refused(part):
    with pytest.raises(InvalidArgumentError, match="no line"):
        NB.source(notebook.begin, **part)


def test_a_table_is_markdown_with_text_on_the_left():
    frame = pd.DataFrame({"n": [1, 2], "what": ["a | b", "two\nlines"]}, index=["x", "y"])

    assert NB.table(frame.rename_axis("name")).data == (
        "| name | n | what |\n|:---|---:|:---|\n| x | 1 | a \\| b |\n| y | 2 | two lines |"
    )
    assert NB.table(frame, has_index=False).data.startswith("| n | what |")


def test_every_number_of_a_table_is_rounded_and_held_to_the_edges(monkeypatch):
    frame = pd.DataFrame({"AUC": [0.7412, 0.5], "n": [3, 4], "who": ["a", "b"]})

    assert NB.rounded(frame, 2).to_dict("list") == {
        "AUC": ["0.74", "0.50"],
        "n": [3, 4],
        "who": ["a", "b"],
    }
    assert NB.rounded(frame["AUC"], 1).tolist() == ["0.7", "0.5"]
    monkeypatch.setenv("MLOPS_MINI_REFRESH", "1")
    with pytest.raises(InvalidArgumentError, match="rounding edge"):
        NB.rounded(pd.Series([0.1249]), 2)


def test_a_message_is_wrapped_and_says_nothing_of_the_workspace(capsys):
    nb = notebook.Notebook(workspace=Path("/somewhere/runs/05"), hash_seed="0")

    nb.message(f"no file /somewhere/runs/05/models/m in the folder {'of-a-long-name ' * 4}")

    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("no file models/m in the folder of-a-long-name")
    assert len(first) <= 88
    assert second == "of-a-long-name"


def test_an_expected_error_is_its_message_and_one_that_does_not_come_is_an_error(capsys):
    with NB.expecting(ZeroDivisionError):
        _ = 1 / 0

    assert capsys.readouterr().out == "ZeroDivisionError: division by zero\n"
    with pytest.raises(FailedPreconditionError, match="no KeyError"), NB.expecting(KeyError):
        pass


def test_each_test_of_a_file_says_whether_it_passed_and_why_not(tmp_path, capsys):
    file = tmp_path / "test_wind.py"
    file.write_text(
        "import pandas as pd\nfrom mlops_mini.data import checks\n\n"
        "def test_there():\n    assert True\n\n"
        "def test_possible():\n    assert checks.in_range(pd.Series([1048.0]), low=0, high=100)\n\n"
        "def test_added():\n    raise ValueError('no sum')\n"
    )

    NB.run_tests(file)

    said = capsys.readouterr().out.splitlines()
    assert said[0] == "test_there passed"
    assert said[1].startswith("test_possible failed: ")
    assert "1 of 1 values are not in 0 to 100, such as 1048.0" in " ".join(said)
    assert said[-2:] == ["test_added failed: ValueError: no sum", "exit code 1"]


def test_what_is_recorded_of_a_platform_is_printed(capsys):
    entries = json.loads((Path(__file__).parents[1] / "docs" / "platforms.json").read_text())
    fact, value = next(iter(entries["feast"]["facts"].items()))

    NB.recorded("feast", fact)

    assert capsys.readouterr().out == f"Feast: {fact}: {value}\n"
    with pytest.raises(NotFoundError, match=r"nothing of feast under \['its price'\], but"):
        NB.recorded("feast", "its price")


def test_a_file_without_tests_is_refused(tmp_path):
    (tmp_path / "test_nothing.py").touch()

    with pytest.raises(FailedPreconditionError, match="could not run test_nothing"):
        NB.run_tests(tmp_path / "test_nothing.py")


def test_the_filter_lets_warnings_through():
    record = logging.makeLogRecord({"levelno": logging.WARNING})

    assert notebook._is_warning(record)


class _Empty(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_arguments):
        """Keep silent."""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "127.0.0.1,localhost,::1"),
        ({"no_proxy": "a.example"}, "a.example,127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "a.example"}, "a.example,127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "*"}, "*"),
    ],
    ids=str,
)
def test_servers_on_this_machine_are_asked_without_a_proxy(tmp_path, given, expected):
    code = """
nb = notebook.begin("05")
nb = notebook.begin("05")
import os, urllib.request
for host in ("127.0.0.1", "localhost"):
    with urllib.request.urlopen(f"http://{host}:" + os.environ["PORT"], timeout=30) as answer:
        assert answer.status == 204
assert os.environ["no_proxy"] == os.environ["NO_PROXY"]
print(os.environ["no_proxy"])
"""
    nobody = "http://127.0.0.1:9"
    with ThreadingHTTPServer(("127.0.0.1", 0), _Empty) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        done = run(code, tmp_path, http_proxy=nobody, PORT=str(server.server_port), **given)
        server.shutdown()

    assert done.stdout == f"{expected}\n", done.stderr
