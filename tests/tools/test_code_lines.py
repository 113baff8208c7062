from pathlib import Path

from tools import code_lines


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def test_only_code_counts_by_room(tmp_path: Path) -> None:
    write(tmp_path, "cli.py", '"""Says what it is."""\n\nx = 1  # one\n')
    write(
        tmp_path,
        "data/a.py",
        "# why\ndef f():\n    '''Doc.\n\n    More.\n    '''\n    return (\n        1\n    )\n",
    )
    write(tmp_path, "data/deep/b.py", "y = '''\ntwo'''\n")

    assert code_lines.count_by_room(tmp_path) == {"(top)": 1, "data": 6}


def test_a_room_above_its_budget_is_named() -> None:
    budgets = {"package": 100, "other": 10, "serving": 50}

    lines, problems = code_lines.report({"serving": 51, "data": 9}, budgets)

    assert [line.split() for line in lines] == [
        ["serving", "51", "of", "50"],
        ["data", "9", "of", "10"],
        ["package", "60", "of", "100"],
    ]
    assert problems == ["serving has 51 lines of code, at most 50: what can go?"]
