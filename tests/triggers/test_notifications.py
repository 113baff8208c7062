import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.triggers.notifications import Notifier


class Hook:
    """A webhook that fails as often as it's told to, and then takes what it's sent."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.received: list[dict[str, object]] = []
        self.n_asked = 0
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.n_asked += 1
                status = hook.statuses.pop(0) if hook.statuses else 200
                if status == 200:
                    hook.received.append(json.loads(body))
                self.send_response(status)
                self.send_header("Location", "http://example.com/")
                self.end_headers()

            def log_message(self, *_args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()


@pytest.fixture
def hook() -> Iterator[Hook]:
    started = Hook()
    yield started
    started.server.shutdown()
    started.thread.join()
    started.server.server_close()


def test_a_webhook_gets_them_in_order_and_again_if_it_fails(hook: Hook) -> None:
    hook.statuses = [500, 302, 200, 503]

    with Notifier(webhook=hook.url, wait_s=0.01) as notifier:
        notifier.send("refusal", "the candidate is worse", run="drift-1")
        notifier.send("alarm", "no labels for 3 weeks")

    assert [(each["event"], each["text"]) for each in hook.received] == [
        ("refusal", "the candidate is worse"),
        ("alarm", "no labels for 3 weeks"),
    ]
    assert hook.received[0]["details"] == {"run": "drift-1"}
    assert (hook.n_asked, notifier.n_delivered, notifier.n_lost) == (5, 2, 0)


def test_after_so_many_tries_it_gives_up_and_goes_on(hook: Hook) -> None:
    hook.statuses = [500, 500, 500]

    with Notifier(webhook=hook.url, n_tries=3, wait_s=0.01) as notifier:
        notifier.send("alarm", "first")
        notifier.send("alarm", "second")

    assert [each["text"] for each in hook.received] == ["second"]
    assert (notifier.n_delivered, notifier.n_lost) == (1, 1)


def test_sending_waits_for_nobody(tmp_path: Path) -> None:
    """The command waits until it's allowed to end, and by then all has been sent."""
    gate = tmp_path / "gate"
    code = f"""
import pathlib, sys, time
text = sys.stdin.read()
while not pathlib.Path({str(gate)!r}).exists():
    time.sleep(0.01)
with open({str(tmp_path / "said")!r}, "a") as said:
    said.write(text + "\\n")
"""
    notifier = Notifier(command=[sys.executable, "-c", code], max_waiting=2)
    for number in range(6):
        notifier.send("rollback", str(number))
    gate.touch()
    notifier.close()

    said = [json.loads(line)["text"] for line in (tmp_path / "said").read_text().splitlines()]
    assert said[-2:] == ["4", "5"]  # the oldest have made room
    assert (notifier.n_delivered, notifier.n_delivered + notifier.n_lost) == (len(said), 6)


@pytest.mark.parametrize("command", [["false"], ["/nowhere/at/all"]])
def test_a_command_that_fails_or_is_not_there_stops_nothing(command: list[str]) -> None:
    with Notifier(command=command, n_tries=2, wait_s=0.01) as notifier:
        notifier.send("alarm", "anybody?")

    assert (notifier.n_delivered, notifier.n_lost) == (0, 1)


def test_without_a_target_it_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with Notifier() as notifier:
        notifier.send("alarm", "the model is worse")

    assert "alarm: the model is worse" in caplog.text
    assert (notifier.n_delivered, notifier.n_lost) == (0, 0)


@pytest.mark.parametrize(
    "target",
    [
        {"webhook": "http://example.com/hook"},
        {"webhook": "https://127.0.0.1/hook"},
        {"webhook": "http://127.0.0.1.example.com/"},
        {"webhook": "file:///etc/passwd"},
        {"webhook": "http://127.0.0.1:1/", "command": ["cat"]},
    ],
)
def test_another_machine_is_refused(target: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"on this machine|not both"):
        Notifier(**target)
