"""Plays about versions over time: read from `version_plays.txt`, and acted on a server."""

import shlex
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from tests.conformance.launched import Stage
from tests.conformance.served import Reply, Served
from tests.serving.servers import copy_version, wait_until

FILE = Path(__file__).with_suffix(".txt")
SHARED_FLAGS = ("--model_config_file_poll_wait_seconds=1", "--max_num_load_retries=0")
_STATES = ("START", "LOADING", "AVAILABLE", "UNLOADING", "END")
_STILL_S = 2.5  # two looks, one second apart
_GRAPHS = {"empty_graph": b"", "no_graph": b"no protobuf \xff\xff", "other_message": b"\x08\x01"}


@dataclass(frozen=True, kw_only=True)
class Play:
    """What happens to one model; `flags` is None on the server that such plays share."""

    name: str
    section: str
    steps: tuple[str, ...]
    flags: tuple[str, ...] | None = None
    restored_by: tuple[str, ...] = ()


def read() -> dict[str, Play]:
    plays: dict[str, Play] = {}
    blocks = [block for block in FILE.read_text().split("\n\n") if not block.startswith("#")]
    for title, *lines in (block.strip().splitlines() for block in blocks):
        name, _, section = title.removeprefix("[").partition("] ")
        more: dict[str, Any] = {}
        steps: list[str] = []
        for line in lines:
            first, *flags = line.split(" ")
            if first in ("flags", "alone"):
                more["flags"] = (*(SHARED_FLAGS if first == "alone" else ()), *flags)
            elif first == "restored":
                more["restored_by"] = tuple(flags[1:])
            else:
                steps += line.split(" | ")
        assert name not in plays, name
        plays[name] = Play(name=name, section=section, steps=tuple(steps), **more)
    return plays


class Actor:
    """Acts a play: each verb of a step is a method here."""

    def __init__(self, play: Play, stage: Stage, *, is_ours: bool) -> None:
        self.name, self.stage, self.base = play.name, stage, stage.folder / play.name
        self._other = {True: "theirs: ", False: "ours: "}[is_ours]
        self._served: Served | None = None
        self._watcher: Watcher | None = None
        words = (("{m}", self.name), ("{base}", str(self.base)))
        steps = list(play.steps)
        for old, new in words:
            steps = [step.replace(old, new) for step in steps]
        start = steps.index("start")
        self._before, self._after = steps[:start], steps[start + 1 :]
        self.base.mkdir()
        self.config()

    def prepare(self) -> None:
        self._act(self._before)

    def act(self) -> None:
        try:
            self._act(self._after)
            if self._watcher:
                self._watcher.check()
        finally:
            if self._watcher:
                self._watcher.close()
            if self._served:
                self._served.close()

    def _act(self, steps: list[str]) -> None:
        for step in steps:
            if step.startswith(self._other):
                continue
            verb, _, rest = step.removeprefix("ours: ").removeprefix("theirs: ").partition(" ")
            try:
                getattr(self, verb)(rest)
            except AssertionError as exc:
                raise AssertionError(f"{self.name}: {step}: {exc}, see {self.base}") from exc

    def publish(self, rest: str) -> None:
        """`publish WHAT [as NAME]`: a version that answers that number, or something broken."""
        what, *more = shlex.split(rest)
        target, good = self.base / (more[1] if more else what), self.stage.numbered / "2"
        if what == "file":
            target.write_text("no folder")
        elif what == "link":
            target.symlink_to(good)
        elif what == "empty":
            target.mkdir()
        elif what == "bundle":
            _ready(target, lambda folder: (folder / "export.meta").write_bytes(b""))
        elif what == "half":
            _ready(target, lambda folder: shutil.copytree(good / "variables", folder / "variables"))
        elif what in _GRAPHS:
            _ready(target, lambda folder: (folder / "saved_model.pb").write_bytes(_GRAPHS[what]))
        elif what == "cut":
            copy = self.base / ".cut"
            shutil.copytree(good, copy)
            (copy / "variables/variables.data-00000-of-00001").write_bytes(b"")
            copy.rename(target)
        else:
            copy_version(self.stage.numbered / what, target)

    def trickle(self, rest: str) -> None:
        """Copy a version as a slow network does: bit by bit, `saved_model.pb` last."""
        source = self.stage.numbered / rest
        files = sorted(p for p in source.rglob("*") if p.is_file())
        files.sort(key=lambda file: file.name == "saved_model.pb")
        for file in files:
            target = self.base / rest / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            data = file.read_bytes()
            for part in range(8):
                with target.open("ab") as copy:
                    copy.write(data[len(data) * part // 8 : len(data) * (part + 1) // 8])
                self._hold(lambda: None, 0.15)

    def repair(self, rest: str) -> None:
        shutil.copytree(self.stage.numbered / "2", self.base / rest, dirs_exist_ok=True)

    def remove(self, rest: str) -> None:
        self.base.rename(self.base.with_suffix(".away")) if rest == "base" else shutil.rmtree(
            _hidden(self.base / rest)
        )

    def restore(self, _: str) -> None:
        """`restore base`, after it was removed."""
        self.base.with_suffix(".away").rename(self.base)

    def config(self, rest: str = "") -> None:
        """Write the configuration file: the model's entry, another model, any text, or no file."""
        first, _, text = rest.partition(" ")
        if first == "none":
            self.stage.file.unlink()
            return
        if first == "text":
            self.stage.write(text)
            return
        if first == "beside":  # another model: `missing`, or one of the table's
            folder = "/no/such/folder" if text == "missing" else self.stage.numbered
            entry = (
                f'config {{ name: "{text}" base_path: "{folder}" model_platform: "tensorflow" }}'
            )
            self.stage.write(self.stage.configure(self.name, [])[:-1] + entry + "}")
            return
        self.stage.write(self.stage.configure(self.name, rest.split()))

    def reload(self, rest: str) -> None:
        """Configure by RPC; the words are those of `config`."""
        request = self.stage.protos.message("ReloadConfigRequest")
        text_format.Parse(self.stage.configure(self.name, rest.split()), request.config)
        answer = self.served.call_bytes("HandleReloadConfigRequest", request.SerializeToString())
        assert answer[:2] == ("OK", ""), answer

    @property
    def served(self) -> Served:
        if self._served is None:
            self._served = Served(*self.stage.server.opened(), self.stage.protos)
        return self._served

    def states(self, rest: str) -> None:
        """Wait until all versions that the status lists are these, in this order."""
        self._wait(lambda: versions(self.served, self.name), rest)

    def now(self, rest: str) -> None:
        found = versions(self.served, self.name)
        assert found == rest, found

    def still(self, rest: str) -> None:
        """`states`, and they stay so for two looks."""
        self.states(rest)
        self._hold(lambda: self.now(rest), _STILL_S)

    def answer(self, rest: str) -> None:
        """`answer NUMBER [versions/N|labels/L]`: wait until a prediction is that number."""
        number, _, target = rest.partition(" ")

        def look() -> str:
            reply = _predict(self.served, self.name, target)
            return f"{reply.json['predictions'][0]:.0f}" if reply.status == 200 else str(reply.body)

        self._wait(look, number)

    def refused(self, rest: str) -> None:
        """`refused [versions/N|labels/L] STATUS TEXT`: wait until a prediction is that error."""
        target, _, error = rest.partition(" ") if "/" in rest.partition(" ")[0] else ("", "", rest)

        def look() -> str:
            reply = _predict(self.served, self.name, target)
            return f"{reply.status} {reply.json.get('error')}"

        self._wait(look, error)

    def error(self, rest: str) -> None:
        """`error VERSION CODE TEXT`: what the status says of that version; any code for `*`."""
        number, code, *text = rest.split(" ", 2)
        reply = self.served.ask("GET", f"/v1/models/{self.name}/versions/{number}")
        status = reply.json["model_version_status"][0]["status"]
        assert code in ("*", status["error_code"]), status
        assert "".join(text).replace("\\n", "\n") in status["error_message"], status

    def log(self, rest: str) -> None:
        """Wait for words on stderr."""
        wait_until(lambda: rest in self.stage.server.err, "these words in the log")

    def closed(self, _: str) -> None:
        """No port is open, for two looks."""

        def look() -> None:
            assert self.stage.server.process.is_alive()
            assert self.stage.server.addresses is None

        self._hold(look, _STILL_S)

    def ends(self, rest: str) -> None:
        """The process ends by itself, with these words on stdout."""
        assert self.stage.server.ended() == 255
        assert f"Failed to start server. Error: {rest}" in self.stage.server.out

    def watch(self, _: str) -> None:
        """From now on ask all the time: no request may fail, and states must come in order."""
        self._watcher = Watcher(Served(self.served.rest, self.served.grpc, self.stage.protos), self)

    def seen(self, rest: str) -> None:
        """The answers that the watcher got, in order and without repetitions."""
        assert self._watcher is not None
        self._wait(self._watcher.answers, rest)

    def _wait(self, look: Callable[[], str], expected: str) -> None:
        found = [""]

        def is_found() -> bool:
            found[0] = look()
            return found[0] == expected

        try:
            wait_until(is_found, expected, pace_s=0.05)
        except AssertionError as exc:
            raise AssertionError(f"{exc}, found {found[0]}") from exc

    @staticmethod
    def _hold(check: Callable[[], None], duration_s: float) -> None:
        """Check again and again for that time."""
        end = time.monotonic() + duration_s

        def is_over() -> bool:
            check()
            return time.monotonic() > end

        wait_until(is_over, "the time to pass", pace_s=0.05)


class Watcher:
    """Asks a model for its states and its answers, over both APIs, until it is closed."""

    def __init__(self, served: Served, actor: Actor) -> None:
        self._name, self._served = actor.name, served
        self._is_over = threading.Event()
        self._states: list[str] = []
        self._answers: list[str] = []
        self._errors: list[str] = []
        self._n_asked = 0
        request = {"model_spec": {"name": self._name}, "inputs": {"x": _ZERO}}
        self._request = actor.stage.protos.request("Predict", request)
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        with closing(self._served):
            while not self._is_over.wait(0.003):
                self._n_asked += 1
                _add(self._states, versions(self._served, self._name))
                if self._n_asked % 2:
                    reply = _predict(self._served, self._name, "")
                    failed = "" if reply.status == 200 else f"{reply.status} {reply.body!r}"
                    number = 0 if failed else reply.json["predictions"][0]
                else:
                    code, failed, response = self._served.call_bytes("Predict", self._request)
                    number = response["outputs"]["version"]["float_val"][0] if code == "OK" else 0
                    if code == "OK" and int(response["model_spec"]["version"]) != number:
                        failed = f"{number} from version {response['model_spec']['version']}"
                if failed:
                    _add(self._errors, failed)
                else:
                    _add(self._answers, f"{number:.0f}")

    def answers(self) -> str:
        return " ".join(self._answers)

    def check(self) -> None:
        self.close()
        assert not self._errors, self._errors
        assert self._n_asked > 100
        for before, after in pairwise(map(_by_version, self._states)):
            assert before.keys() <= after.keys(), self._states
            assert "AVAILABLE" in after.values(), self._states
            for number, state in before.items():
                assert _STATES.index(state) <= _STATES.index(after[number]) or (
                    state == "END" and number in _reloaded(self._answers)
                ), self._states

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()


_ZERO = {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": 1}]}, "float_val": [0]}


def versions(served: Served, name: str) -> str:
    """The status of a model as `2:AVAILABLE 1:END`; empty if it is not known."""
    listed = served.ask("GET", f"/v1/models/{name}").json.get("model_version_status", [])
    return " ".join(f"{version['version']}:{version['state']}" for version in listed)


def _by_version(states: str) -> dict[str, str]:
    return dict(word.split(":") for word in states.split())


def _predict(served: Served, name: str, target: str) -> Reply:
    path = f"/v1/models/{name}{'/' if target else ''}{target}:predict"
    return served.ask("POST", path, '{"instances": [0]}')


def _add(found: list[str], new: str) -> None:
    if found[-1:] != [new]:
        found.append(new)


def _reloaded(answers: list[str]) -> set[str]:
    """Versions that answered, then another did, then they again."""
    return {number for number in answers if answers.count(number) > 1}


def _ready(target: Path, fill: Callable[[Path], object]) -> None:
    """Fill a folder, then give it its name."""
    unfinished = target.with_name(f".{target.name}.unfinished")
    unfinished.mkdir()
    fill(unfinished)
    unfinished.rename(target)


def _hidden(folder: Path) -> Path:
    """Take a folder out of sight at once: it must not be seen half removed."""
    return folder.rename(folder.with_name(f".{folder.name}.removed"))
