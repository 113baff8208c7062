"""Each check of a rendered page, on small pages; and one real rendering by nbviewer's nbconvert."""

import pytest
from nbformat.v4 import new_markdown_cell

from tests.notebooks import example
from tools.notebooks import __main__ as command
from tools.notebooks import pages, render

FILES = {"": {"Fit"}, "00_index.ipynb": {"Where-to-begin"}, "figures/loop.svg": set()}
CELL = (
    '<html><script>1</script><main><div id="cell-id=fit-1"><h2 id="Fit">Fit</h2>{body}</div></main>'
)


def rules(body: str, *failing: str) -> list[tuple[str, str | None]]:
    page = pages.Page(CELL.format(body=body))
    found = pages.violations(page, anchors_of=FILES.get, failing=failing)
    return [(violation.rule, violation.cell_id) for violation in found]


@pytest.mark.parametrize(
    ("rule", "body"),
    [
        ("page-link", '<a href="01_gone.ipynb">gone</a>'),
        ("page-link", '<a href="#Gone">gone</a>'),
        ("page-link", '<a href="00_index.ipynb#Gone">gone</a>'),
        ("page-link", '<a href="/etc/hosts">gone</a>'),
        ("page-image", '<img alt="A figure" src="figures/gone.svg"/>'),
        ("page-image", '<img alt="" src="figures/loop.svg"/>'),
        ("page-image", '<img src="data:image/png;base64,AA=="/>'),
        ("page-stderr", '<div data-mime-type="application/vnd.jupyter.stderr"><pre>x</pre></div>'),
        ("page-active", "<script>alert(1)</script>"),
        ("page-active", '<div data-mime-type="application/vnd.jupyter.widget-view+json"></div>'),
        ("page-active", '<div class="jp-Mermaid"><pre class="mermaid">graph TD</pre></div>'),
        ("page-raw", "<p>:::{note}\nLook\n:::</p>"),
        ("page-raw", "<blockquote><p>[!NOTE] Look</p></blockquote>"),
        ("page-raw", "<p>Look[^1]</p>"),
        ("page-dollars", "<p>It costs $5 now and $6 later.</p>"),
    ],
)
def test_what_readers_would_see_broken_is_reported_once(rule, body):
    assert rules(body) == [(rule, "fit-1")]


def test_a_large_page_is_reported():
    assert rules("x" * 901_000) == [("page-size", None)]


@pytest.mark.parametrize(
    "body",
    [
        '<a href="#Fit">here</a> <a href="00_index.ipynb#Where-to-begin">there</a>',
        '<a href="https://numpy.org/#x">out</a>',
        '<img alt="The loop" src="figures/loop.svg"/>',
        '<img alt="A figure" src="data:image/png;base64,AA=="/>',
        "<pre>:::{note} [!NOTE] $5 and $6</pre><code>$5 and $6</code>",
        "<p>It costs $5.</p><p>Or $6.</p><p>And $a+b$.</p>",
        "<table><tr><td>$5</td><td>$6</td></tr></table>",
    ],
)
def test_a_page_in_order_is_not_reported(body):
    assert rules(body) == []


def test_an_error_on_purpose_is_no_stderr_but_stderr_beside_it_is():
    block = '<div data-mime-type="application/vnd.jupyter.stderr"><pre>x</pre></div>'

    assert rules(block, "fit-1") == []
    assert rules(block * 2, "fit-1") == [("page-stderr", "fit-1")]


def test_a_file_that_is_no_notebook_is_one_line(tmp_path, capsys):
    (tmp_path / "05_add.ipynb").write_text("{")

    assert command.main(["render", "--folder", str(tmp_path), str(tmp_path / "05_add.ipynb")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_a_clean_lesson_renders_clean_and_a_broken_one_does_not(tmp_path, capsys):
    broken = example.lesson()
    broken.cells[-1] = new_markdown_cell("```mermaid\ngraph TD\n```\n\n\\$5 and \\$6 [x](#Gone)")
    broken.cells[6].outputs.append(example.stream("look\n", name="stderr"))
    clean = example.lesson()
    links = "[a](06_break_it.ipynb#Add), [b](00_index.ipynb#Where-to-begin)"
    clean.cells[-1].source += f"\n{links}"
    broken_path = example.save(example.stamp(broken), tmp_path, "06_break_it.ipynb")
    clean_path = example.save(example.stamp(clean), tmp_path)
    folder = tmp_path / "html"

    assert render.main([clean_path, tmp_path / "00_index.ipynb"], folder) == 0
    assert render.main([broken_path, clean_path], folder) == 1

    printed = capsys.readouterr().out
    found = [line.removeprefix(f"{broken_path} cell ") for line in printed.splitlines()[1:-1]]
    assert sorted(line.split("]")[0] + "]" for line in found) == [
        "add-2 [page-stderr]",
        "on-a-cluster-2 [page-active]",
        "on-a-cluster-2 [page-dollars]",
        "on-a-cluster-2 [page-link]",
    ]
    assert "7.16.6" in (render.ROOT / "environments" / "render.txt").read_text()
    assert (folder / "figures" / "loop.svg").exists()
