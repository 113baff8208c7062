"""The review page: a real server, asked over HTTP and by a real browser."""

import json
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from mlops_mini.processes import ChildProcess
from mlops_mini.review.queue import Item, ReviewQueue
from tests import browser

COMMAND = str(Path(sys.executable).with_name("mlops-mini"))
EVIL = "<script>document.title = 'evil'</script>"
CATEGORIES = ("bag", "coat", EVIL)
JSON = {"Content-Type": "application/json"}


class Served:
    """`mlops-mini review` as a process, and what it's asked."""

    def __init__(self, file: Path, *options: str) -> None:
        log = file.with_suffix(f".{len(list(file.parent.glob('*.log')))}.log")
        self._process = ChildProcess(
            [COMMAND, "review", str(file), *options], name="the page", log_file=log
        )
        self.url = self._process.wait_for(
            lambda: next(
                (line.split()[-1] for line in log.read_text().splitlines() if "review at" in line),
                None,
            ),
            what="its address",
            timeout_s=60,
        )
        self.root = self.url.partition("?")[0]

    def ask(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        method, data = ("GET", None) if body is None else ("POST", json.dumps(body))
        answer = urllib3.request(
            method, self.root + path, body=data, headers=JSON | headers, retries=False, timeout=30
        )
        text = answer.data.decode()
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        return answer.status, json.loads(text) if is_json else text

    def kill(self) -> None:
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.close()

    def close(self) -> None:
        self._process.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    with ReviewQueue(tmp_path / "q.sqlite", categories=CATEGORIES, undo_s=0) as queue:
        queue.add([Item(id=f"case {n}", kind="human", text=f"case {n}") for n in range(24)])
    return tmp_path / "q.sqlite"


@pytest.fixture
def serve(file: Path) -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def start(*options: str) -> Served:
        started.append(Served(file, "--port", "0", *options))
        return started[-1]

    yield start
    for served in started:
        served.close()


def _with_undo(file: Path, undo_s: float) -> None:
    connection = sqlite3.connect(file)
    connection.execute("update setting set undo_s = ?", (undo_s,))
    connection.commit()
    connection.close()


def _decision(item: str, label: str = "bag", annotator: str = "ann") -> dict[str, Any]:
    return {"item": item, "label": label, "annotator": annotator}


def test_bad_input_is_answered_with_what_is_wrong_and_changes_nothing(serve, file) -> None:
    served = serve()
    ask = served.ask

    assert ask("api/next?annotator=ann")[1]["item"]["id"] == "case 0"
    assert ask("api/decisions", _decision("case 0"))[0] == 200
    assert ask("api/decisions", _decision("case 0"))[0] == 200  # a double click
    status, answer = ask("api/decisions", _decision("case 0", "coat"))
    assert (status, "undo that first" in answer["error"]) == (409, True)
    status, answer = ask("api/decisions", _decision("case 0", annotator="bob"))
    assert (status, "somebody else has labeled case 0" in answer["error"]) == (409, True)
    assert ask("api/decisions", _decision("gone"))[0] == 404
    assert ask("api/decisions", _decision("case 1", "hat"))[0] == 400
    assert ask("api/decisions", _decision("case 1", "<img src=x>"))[0] == 400
    assert ask("api/decisions", {"item": "case 1"})[0] == 400
    assert ask("api/decisions", _decision("case 1" * 5000))[0] == 413
    assert ask("api/next?annotator=")[0] == 400
    assert ask("api/undo", {"annotator": "nobody"})[0] == 409
    assert ask("docs")[0] == ask("openapi.json")[0] == 404

    with ReviewQueue(file) as queue:
        assert [(each.item_id, each.label) for each in queue.outcomes()] == [("case 0", "bag")]


def test_pages_of_other_origins_are_refused(serve) -> None:
    served = serve()
    body = _decision("case 0")

    assert served.ask("api/decisions", body, Origin="https://evil.example")[0] == 403
    assert served.ask("api/decisions", body, Origin="null")[0] == 403
    assert served.ask("", Host="evil.example")[0] == 403  # a name that points to this machine
    assert served.ask("api/decisions", body, **{"Content-Type": "text/plain"})[0] == 415
    assert served.ask("api/decisions", body, Origin=served.root.rstrip("/"))[0] == 200


def test_whoever_can_be_reached_from_elsewhere_asks_for_a_token(serve) -> None:
    served = serve("--bind-address", "0.0.0.0")
    token = served.url.partition("?token=")[2]
    assert len(token) >= 20

    assert served.ask("")[0] == 401
    assert served.ask("?token=guessed")[0] == 401
    assert served.ask("api/next?annotator=ann", Cookie="mlops_mini_review=guessed")[0] == 401
    first = urllib3.request("GET", served.url, redirect=False, retries=False)
    assert (first.status, first.headers["location"]) == (303, "/")
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert served.ask("api/next?annotator=ann", Cookie=cookie.partition(";")[0])[0] == 200


def test_what_the_page_may_load_is_limited(serve) -> None:
    answer = urllib3.request("GET", serve().url, retries=False)

    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--bind-address", "localhost"], "'localhost' is no IP address"),
        (["--bind-address", "192.0.2.1"], "can't listen on 192.0.2.1"),
    ],
)
def test_an_address_that_cannot_be_used_is_named(options, words, file, tmp_path) -> None:
    log = tmp_path / "out.log"
    with ChildProcess([COMMAND, "review", str(file), *options], name="it", log_file=log) as child:
        child.wait_for(lambda: words in log.read_text() or None, what="its end", timeout_s=60)


def test_a_decision_counts_once_also_after_a_kill(serve, file) -> None:
    sent: list[str] = []
    served = serve()

    def label_until_the_end() -> None:
        for n in range(24):
            sent.append(f"case {n}")
            try:
                served.ask("api/decisions", _decision(f"case {n}"))
            except urllib3.exceptions.HTTPError:
                return

    thread = threading.Thread(target=label_until_the_end)
    thread.start()
    with ReviewQueue(file) as queue:
        deadline = time.monotonic() + 60
        while len(queue.outcomes()) < 5:
            assert time.monotonic() < deadline
        served.kill()
        thread.join()
        n_answered = len(sent) - 1

        again = serve()
        for item in sent:  # as a page does that doesn't know what has arrived
            assert again.ask("api/decisions", _decision(item))[0] == 200

        counted = [each.item_id for each in queue.outcomes()]
    assert counted[:n_answered] == sent[:n_answered]
    assert sorted(counted) == sorted(sent)


@pytest.mark.browser
def test_a_person_labels_twenty_by_keyboard_reloads_and_undoes(serve, file, tmp_path) -> None:
    _with_undo(file, 300)
    with ReviewQueue(file) as queue:
        queue.add(
            [Item(id="z hint", kind="hint", text=EVIL, answer="coat", score=0.93, model_version=1)]
        )
    served = serve()
    with browser.opened(tmp_path) as page:
        page.open(served.url)
        page.wait_for("document.activeElement?.id === 'name'")
        page.write("Ann")
        page.press("Enter")
        page.run("document.querySelector('form').requestSubmit()")
        for n in range(20):
            page.wait_for(f"document.getElementById('text').innerText === 'case {n}'")
            page.press("12"[n % 2])
        page.wait_for("document.getElementById('progress').innerText === '20 by you, 5 open'")

        page.reload()
        page.wait_for("document.getElementById('text').innerText === 'case 20'")
        assert page.text("#who") == "Ann"

        page.press("u")
        page.wait_for("document.getElementById('text').innerText === 'case 19'")
        page.press("3")
        page.wait_for("document.getElementById('text').innerText === 'case 20'")

        # Without a connection the decision is kept, also over a reload of the page.
        page.set_offline(True)
        page.press("1")
        page.wait_for("!document.getElementById('problem').hidden")
        assert "Your last decision is kept here" in page.text("#problem")
        page.set_offline(False)
        page.reload()
        page.wait_for("document.getElementById('text').innerText === 'case 21'")

        # Somebody else is quicker: the page says so, and goes on.
        with ReviewQueue(file) as queue:
            queue.decide("case 21", "bag", annotator="Bob")
        page.press("1")
        page.wait_for("document.getElementById('text').innerText === 'case 22'")
        assert "somebody else has labeled case 21" in page.text("#problem")

        for n in (22, 23):
            page.wait_for(f"document.getElementById('text').innerText === 'case {n}'")
            page.press("1")
        page.wait_for(f"document.getElementById('text').innerText === {json.dumps(EVIL)}")
        assert page.text("#said") == "coat"
        page.press("h")
        page.wait_for("document.getElementById('said').style.visibility === 'hidden'")
        assert page.text("#choices button:nth-child(3) span") == EVIL
        assert page.run("document.title") == "Review"
        assert page.run("document.documentElement.scrollWidth <= innerWidth")
        page.press("2")
        page.wait_for("!document.getElementById('empty').hidden")

    _with_undo(file, 0)
    with ReviewQueue(file) as queue:
        labels = {each.item_id: each.label for each in queue.outcomes()}
    assert len(labels) == 25
    assert labels["case 0"] == "bag"
    assert labels["case 1"] == "coat"
    assert labels["case 19"] == EVIL
    connection = sqlite3.connect(file)
    saw = connection.execute("select saw_hint from decision where item_id = 'z hint'").fetchone()
    connection.close()
    assert saw == (0,)
