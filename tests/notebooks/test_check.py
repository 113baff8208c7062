"""Each rule: a lesson that breaks it and nothing else; and the lesson that breaks none."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_raw_cell

from tests.notebooks import example
from tests.notebooks.example import code, error, result, stream
from tools.notebooks import check, document, output_rules, prose_rules

Change = Callable[[NotebookNode], object]
ROOT = Path(__file__).resolve().parents[2]
TABLE = "<table><thead><tr><th>x</th></tr></thead><tbody>{rows}</tbody></table>"
UNCLOSED = example.SECOND_SOLUTION.removesuffix("</details>")
PROSE = "one value of all is out of its range, by far</td></tr>"
PORT = "127.0.0.1:8501"


def cell(nb: NotebookNode, containing: str) -> NotebookNode:
    return next(cell for cell in nb.cells if containing in cell.source)


def replace(old: str, new: str) -> Change:
    def change(nb):
        found = cell(nb, old)
        found.source = found.source.replace(old, new)

    return change


def replace_everywhere(old: str, new: str) -> Change:
    def change(nb):
        for each in nb.cells:
            each.source = each.source.replace(old, new)

    return change


def print_code(source: str) -> Change:
    return replace("_ = total + total", source)


def output(made: NotebookNode) -> Change:
    return lambda nb: cell(nb, "_ = total + total").outputs.append(made)


def printing(text: str) -> Change:
    return output(stream(text))


def train_and_print(text: str) -> Change:
    def change(nb):
        print_code("model.fit(x)")(nb)
        cell(nb, "model.fit(x)").outputs.append(stream(text))

    return change


def write(text: str) -> Change:
    return lambda nb: cell(nb, "## Add").update(source=f"## Add\n\n{text}\n\n{example.FIGURES}")


def tag(*tags: str) -> Change:
    return lambda nb: cell(nb, "_ = total + total").metadata.update(tags=list(tags))


def insert(*cells: NotebookNode) -> Change:
    return lambda nb: nb.cells.__setitem__(slice(9, 9), cells)


def sections(n: int) -> list[NotebookNode]:
    return [c for i in range(n) for c in (new_markdown_cell(f"## More {i}"), code(f"x = {i}"))]


def rules(nb: NotebookNode, folder: Path, **name: str) -> list[str]:
    path = example.save(nb, folder, **name)
    return sorted({violation.rule for violation in check.violations(path)})


def test_a_clean_lesson_breaks_no_rule(tmp_path):
    assert rules(example.lesson(), tmp_path) == []


BREACHES: list[tuple[str, Change]] = [
    ("cell-type", insert(new_raw_cell("raw"))),
    ("empty", insert(code("  "))),
    ("size", output(result("<Figure>", **{"image/png": "A" * 5_000_000}))),
    ("cells", insert(*[c for n in range(16) for c in (code(f"x = {n}"), new_markdown_cell("y"))])),
    ("balance", insert(*[new_markdown_cell("More.") for _ in range(12)])),
    ("balance", insert(*[code("x = 1") for _ in range(12)])),
    ("tag", tag("hide-input")),
    # the frame
    ("title", replace("# 05 ·", "# 06 ·")),
    ("title", replace("# 05 · Add with care", "# Add with care")),
    ("runtime", replace("*runtime ~4 s", "*takes 4 s")),
    ("headings", replace("## Doubt", "Doubt")),
    ("headings", insert(*sections(3))),
    ("headings", replace("## On a cluster", "On a cluster")),
    ("headings", replace("## On a cluster\n", "## What now\n")),
    ("build", replace("![The loop, with its stage lit](figures/loop.svg)", "The loop.")),
    ("learn", replace("- to check\n", "")),
    ("set-up", replace('begin("05")', 'begin("06")')),
    ("set-up", replace("import mlops_mini.notebook\n", "import mlops_mini.notebook\n" + "\n" * 11)),
    ("exercises", replace(example.SECOND_SOLUTION, "It is 6.")),
    ("exercises", lambda nb: nb.cells.remove(cell(nb, "# Your turn"))),
    ("headings", replace("## Check yourself", "## Check yourself\n\nDo.\n\n## Doubt again")),
    ("recap", replace("- a check\n", "")),
    ("navigation", replace("## Next\n\n[Contents](00_index.ipynb)", "## Next")),
    ("navigation", replace("[Contents](00_index.ipynb)\n", "[Start](00_index.ipynb)\n")),
    # words
    ("words", write("word " * 190)),
    ("phrase", write("We draw a dot a departure.")),
    ("phrase", write("26, 16, 6.")),
    ("phrase", write("Now both.\n\nSide by side, squares for what is missing:")),
    ("rows", write("That is N13 of the notes.")),
    ("alignment", write("| name | what |\n|---|:---|\n| x | a sum |\n| y | two sums |")),
    ("alignment", write("| name | what |\n|:---|---:|\n| x | a sum |")),
    ("mermaid", write("```mermaid\ngraph TD\n```")),
    ("admonition", write("> [!NOTE]\n> Look.")),
    ("admonition", write(":::{note}\nLook.\n:::")),
    ("footnote", write("Look[^1].")),
    ("html", write('<div class="alert">Look.</div>')),
    ("dollars", write("It costs $5 now and $6 later.")),
    ("dollars", write(r"It costs \$5 now and \$6 later.")),
    ("solution", replace("▸ Solution (click)", "Solution")),
    ("solution", replace("```python\nassert total + 1 == 4\n```", "It is 4.")),
    ("solution", replace("assert total + 1 == 4", "total + 1 == 4")),
    ("solution", replace("assert total + 1 == 4", "assert total +")),
    ("solution", replace("assert total + 1 == 4", "assert total + 1 == 4" + " " * 80 + "# 4")),
    ("solution", lambda nb: cell(nb, "= total + 3").update(source=UNCLOSED)),
    # links and images
    ("link", write("[gone](06_gone.ipynb)")),
    ("link", write("[gone](#Nowhere)")),
    ("link", write("[gone](00_index.ipynb#Nowhere)")),
    ("link", write("[here](/tmp/x.ipynb)")),
    ("link", write("[`a[0]`](gone.ipynb)")),
    ("link", write('<a href="gone.ipynb">gone</a>')),
    ("link", write("[read][me]\n\n[me]: gone.ipynb")),
    ("image", write("![A figure](figures/gone.svg)")),
    ("image", write("![](figures/loop.svg)")),
    ("image", write("![A badge](https://img.shields.io/x.svg)")),
    ("image", write('<img src="figures/loop.svg">')),
    ("image", lambda nb: cell(nb, "## Add").update(attachments={"a.png": {"image/png": "AA=="}})),
    # code
    ("lines", print_code("x = 1\n" * 16)),
    ("median", insert(*[code("x = 1\n" * 9) for _ in range(7)])),
    ("private", print_code("client._channel")),
    ("plumbing", print_code("import inspect")),
    ("plumbing", print_code("from textwrap import fill")),
    ("columns", print_code(f"x = {'1' * 85}")),
    ("magic", print_code("%matplotlib inline")),
    ("magic", print_code("%%bash\nls")),
    ("magic", print_code("!ls")),
    ("magic", print_code("files = !ls")),
    ("magic", print_code("print?")),
    ("magic", print_code('get_ipython().run_line_magic("time", "1")')),
    ("syntax", print_code("total +")),
    ("semicolon", print_code("total = 3;")),
    ("semicolon", print_code("total = 3;  # quiet")),
    ("history", print_code("x = _ + 1")),
    ("history", print_code("x = Out[1]")),
    ("history", print_code("x = _1")),
    ("display", print_code("from IPython.display import clear_output")),
    ("display", print_code('handle.update_display("x")')),
    ("sys-path", print_code('import sys\nsys.path.append("..")')),
    ("warnings", print_code('import warnings\nwarnings.filterwarnings("ignore")')),
    ("warnings", print_code('import warnings\nwarnings.simplefilter(action="ignore")')),
    ("sleep", print_code("import time\ntime.sleep(2)")),
    ("sleep", print_code("import asyncio\nawait asyncio.sleep(60 * 5)")),
    ("host", print_code('client = connect("http://example.org/v1")')),
    ("host", print_code('client = connect("localhost:8501")')),
    ("host", print_code('client = connect("10.0.0.5:8501")')),
    ("exempt", lambda nb: cell(nb, "assert 0 <").update(source="total")),
    ("exempt", lambda nb: cell(nb, "assert 0 <").update(source="assert True")),
    ("exempt", insert(*[code("assert 1 < 2", None, "nbval-ignore-output") for _ in range(2)])),
    ("nbval-comment", print_code("# NBVAL_IGNORE_OUTPUT\ntotal")),
    # outputs
    ("stderr", output(stream("WARNING: look\n", name="stderr"))),
    ("error", output(error("KeyError", "'x'"))),
    ("error", tag("raises-exception")),
    ("mime", output(result("<SVG>", **{"image/svg+xml": "<svg/>"}))),
    ("mime", output(result("x", **{"application/javascript": "alert(1)"}))),
    ("mime", output(result("x", **{"application/vnd.jupyter.widget-view+json": "{}"}))),
    ("html-output", output(result("x", **{"text/html": "<script>1</script>"}))),
    ("html-output", output(result("x", **{"text/html": '<style type="text/css">#T_1 {}</style>'}))),
    ("address", printing("<Axes at 0x7f2b3c4d5e60>\n")),
    ("path", printing("/home/ann/models/1\n")),
    ("path", printing(f"{ROOT}/runs/05\n")),
    ("path", printing("C:\\Users\\ann\n")),
    ("port", printing(f"http://{PORT}/v1\n")),
    ("port", printing("listening on port 43211\n")),
    ("uuid", printing("run 3f2b8c1e-9a4d-4c1e-8b2a-0123456789ab\n")),
    ("clock", printing("12:03:44 loaded\n")),
    ("clock", printing("made on 2026-11-24\n")),
    ("progress", printing("32/32 ━━━━ 3ms/step\n")),
    ("progress", printing("10%\r20%\r30%\n")),
    ("ansi", printing("\x1b[32mgreen\x1b[0m\n")),
    ("digits", train_and_print("log loss 0.4964")),
    ("digits", train_and_print("lead: -.015")),
    ("output-lines", printing("x\n" * 21)),
    ("table", output(result("x", **{"text/html": TABLE.format(rows="<tr><td>1</td></tr>" * 13)}))),
    ("table", output(result("x", **{"text/html": TABLE.format(rows=f"<tr>{'<td>1' * 9}</tr>")}))),
    ("figures", lambda nb: [output(result("<F>", **{"image/png": "AA=="}))(nb) for _ in range(6)]),
    ("figures", replace("![A doubt](figures/doubt.svg)", "![The loop](figures/loop.svg)")),
    ("alignment", output(result("x", **{"text/html": TABLE.format(rows=f"<tr><td>{PROSE}")}))),
]


@pytest.mark.parametrize(
    ("rule", "change"), BREACHES, ids=[f"{n}-{rule}" for n, (rule, _) in enumerate(BREACHES)]
)
def test_a_lesson_that_breaks_one_rule_breaks_no_other(tmp_path, rule, change):
    nb = example.lesson()
    change(nb)

    assert rules(example.stamp(nb), tmp_path) == [rule]


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("stale", lambda nb: cell(nb, "print(total)").update(source="print(total + 0)")),
        ("stale", lambda nb: nb.metadata.pop("mlops_mini")),
        ("count", lambda nb: cell(nb, "print(total)").update(execution_count=7)),
        ("count", lambda nb: cell(nb, "print(total)").update(execution_count=None)),
        ("id", lambda nb: cell(nb, "print(total)").update(id="3f2b8c1e")),
        ("metadata", lambda nb: cell(nb, "print(total)").metadata.update(collapsed=True)),
        ("kernel", lambda nb: nb.metadata.pop("kernelspec")),
        ("kernel", lambda nb: nb.metadata.kernelspec.update(name="my-env")),
        ("kernel", lambda nb: nb.metadata.language_info.update(version="3.11.7")),
        ("format", lambda nb: cell(nb, "print(total)").outputs[0].update(name=3)),
        ("format", lambda nb: nb.update(nbformat_minor=4)),
    ],
)
def test_a_file_that_refresh_would_write_otherwise_is_reported(tmp_path, rule, change):
    nb = example.lesson()
    change(nb)

    assert rules(nb, tmp_path) == [rule]


def test_a_file_name_says_number_verb_and_object(tmp_path):
    assert rules(example.lesson(), tmp_path, name="05-Add.ipynb") == ["name"]


def test_all_words_together_are_limited(tmp_path):
    nb = example.lesson()
    insert(*[new_markdown_cell("word " * 175) for _ in range(17)])(nb)
    insert(*[code("x = 1") for _ in range(7)])(nb)

    assert rules(example.stamp(nb), tmp_path) == ["words"]


def test_the_index_has_neither_limits_of_cells_and_words_nor_the_frame(tmp_path):
    nb = example.lesson()
    nb.cells = [new_markdown_cell("# Contents\n\nN1 says:\n\n" + "word " * 4000)]

    assert rules(example.stamp(nb), tmp_path, name="00_index.ipynb") == []


@pytest.mark.parametrize(
    "change",
    [
        write("[there](00_index.ipynb#Where-to-begin), [here](#Print), [out](https://numpy.org)"),
        write("Simple math: $a + b$ and $2x$ and $5$.\n\nOne amount of $5."),
        write("A fence shows `$5` and `$6`:\n\n```\n<div> :::\n[x](gone.md)\n```"),
        print_code("for _ in range(3):\n    pass\nx = 7 % 3"),
        print_code('text = """\n%d\n!done\n"""'),
        print_code("import time\ntime.sleep(0.1)"),
        print_code(f'url = "http://{PORT}/v1/models/m"\nname = "networking.istio.io"'),
        print_code("await pause()"),
        write("| name | n |\n|:---|---:|\n| x | 3 |\n\n```\n|---|\n| text |\n```"),
        write("It looks once a second, twice a day, and a row of it is one file per month."),
        write("Inline `<img src=x>`, `[x](gone.ipynb)`, `$5` and [`here()`](#Print)."),
        printing("2013-01-01 05:15:00\n0 days 00:10:00\n"),
        printing("/v1/models/m:predict\n"),
        printing("containerPort: 8501\n"),
        printing("0.9615 of 29425 rows have a value\n"),  # counted, not trained
        train_and_print("AUC 0.76 and -.05, by version 0.1.002 of what costs 1048.36058\n"),
    ],
)
def test_what_only_looks_like_a_breach_passes(tmp_path, change):
    nb = example.lesson()
    change(nb)

    assert rules(example.stamp(nb), tmp_path) == []


def test_a_listing_of_source_may_be_a_little_longer(tmp_path):
    nb = example.lesson()
    cell(nb, "_ = total").update(source="nb.source(sum)", outputs=[stream("x\n" * 25)])

    assert rules(example.stamp(nb), tmp_path) == []


def test_the_navigation_line_names_both_neighbors(tmp_path, capsys):
    example.save(example.lesson(), tmp_path, "04_build_it.ipynb")
    example.save(example.lesson(), tmp_path, "07_explain_it.ipynb")
    line = (
        "← [05 Add with care](04_build_it.ipynb) · [Contents](00_index.ipynb)"
        " · [05 Add with care](07_explain_it.ipynb) →"
    )
    nb = example.lesson()
    path = example.save(nb, tmp_path)

    assert check.main([path]) == 1
    assert f"no navigation line; it is: {line}" in capsys.readouterr().out
    replace_everywhere(example.NAVIGATION, line)(nb)
    assert rules(example.stamp(nb), tmp_path) == []


def test_a_line_names_notebook_cell_rule_and_the_way_out(tmp_path, capsys):
    nb = example.lesson()
    print_code("total = 3;")(nb)
    path = example.save(example.stamp(nb), tmp_path)

    assert check.main([path]) == 1
    assert capsys.readouterr().out == (
        f"{path} cell print-3 [semicolon]: a trailing `;`; write _ = ax.plot(...)\n"
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "not a notebook"),
        ('{"cells": 3, "nbformat": 4}', "not a notebook"),
        ('{"cells": [{"source": 3}], "nbformat": 4}', "not a notebook"),
        ('{"cells": [{"source": "", "cell_type": "code"}], "nbformat": 4}', "[format]"),
        ('{"cells": [], "metadata": 3, "nbformat": 4}', "not a notebook"),
        ('{"worksheets": [], "nbformat": 3}', "not a notebook of format 4"),
        (None, "no such file"),
    ],
)
def test_a_file_that_is_no_notebook_is_one_line(tmp_path, capsys, content, words):
    path = tmp_path / "05_add.ipynb"
    if content is not None:
        path.write_text(content)

    assert check.main([path]) == 1
    printed = capsys.readouterr().out
    assert words in printed
    assert printed.count("\n") == 1


def test_every_rule_has_a_breach_here():
    tested = {rule for rule, _ in BREACHES} | {"stale", "count", "id", "metadata", "kernel"}
    tested |= {"format", "name", "words"}
    source = "".join(path.read_text() for path in (ROOT / "tools/notebooks").glob("*_rules.py"))
    names = set(re.findall(r'(?:breaks\(\s*|rule=)"([a-z-]+)"', source))
    names |= {rule for rule, *_ in (*prose_rules._FORBIDDEN, *output_rules._VARYING)}

    assert names <= tested


def children_cpu_s() -> float:
    """CPU seconds of ended children: what a busy neighbor does not lengthen."""
    times = os.times()
    return times.children_user + times.children_system


def test_a_notebook_more_costs_little_beside_the_start(tmp_path):
    nb = example.lesson()
    insert(*[c for n in range(20) for c in (code(f"x = {n}"), new_markdown_cell("word " * 90))])(nb)
    output(result("<Figure>", **{"image/png": "A" * 200_000}))(nb)
    text = document.to_text(example.stamp(nb))
    example.save(nb, tmp_path)
    paths = [tmp_path / f"{n:02}_add_more.ipynb" for n in range(1, 18)]
    for path in paths:
        path.write_text(text)

    def checked_cpu_s(paths: list[Path]) -> float:
        began = children_cpu_s()
        subprocess.run(
            [sys.executable, "-m", "tools.notebooks", "check", *paths], cwd=ROOT, check=False
        )
        return children_cpu_s() - began

    one_s, all_s = (min(checked_cpu_s(some) for _ in range(2)) for some in (paths[:1], paths))

    assert all_s < 3 * one_s
