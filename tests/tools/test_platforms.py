"""The record of platforms and its page; the pieces themselves run by `make platforms`."""

from tools.platforms import __main__ as platforms
from tools.platforms import record
from tools.platforms.piece import Piece

WHAT = {"name": "Feast", "notes_tool": "a store", "our_object": "features", "command": "make it"}
RAN = Piece(state="ran", facts={"rows": "7 of 7"}, **WHAT)
SKIPPED = Piece(state="skipped", reason="no engine", **WHAT)


def test_the_page_is_that_of_the_record():
    assert record.RECORD.with_suffix(".md").read_text() == record.page(record.read())


def test_a_skipped_piece_takes_nothing_out_of_the_record(tmp_path):
    path = tmp_path / "platforms.json"

    record.keep("feast", SKIPPED, seconds=0.1, path=path)
    assert "skipped: no engine" in path.with_suffix(".md").read_text()
    record.keep("feast", RAN, seconds=2.0, path=path)
    known = record.read(path)
    record.keep("feast", SKIPPED, seconds=0.1, path=path)

    assert record.read(path) == known
    assert known["feast"]["facts"] == {"rows": "7 of 7"}
    assert "| rows | 7 of 7 |" in path.with_suffix(".md").read_text()


def test_what_is_left_out_for_time_is_said(tmp_path, capsys):
    path = tmp_path / "platforms.json"

    status = platforms.main(["--until=0", "--only=feast", "--only=tfx", f"--record={path}"])

    assert status == 0
    assert "platforms: 2 left out for time: feast, tfx\n" in capsys.readouterr().out
    assert not path.exists()


def test_a_piece_that_is_not_known_fails_and_is_not_recorded(monkeypatch, tmp_path, capsys):
    path = tmp_path / "platforms.json"
    monkeypatch.setattr(platforms, "PIECES", ("piece",))  # a module without `run`

    status = platforms.main(["--only=piece", f"--record={path}"])

    assert status == 1
    assert "AttributeError" in capsys.readouterr().out
    assert not path.exists()


def test_a_piece_that_hangs_is_ended():
    assert platforms.run_piece("feast", longest_s=0.0) == "it took longer than 0 minutes"
