"""Acts the plays of `version_cases` and `failed_version_cases` on a server."""

import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from tests.conformance.protos import Protos
from tests.conformance.served import Served
from tests.conformance.version_cases import Play, Step
from tests.serving.servers import Answer, Launcher, Server, copy_version, wait_until

_STATES = ("START", "LOADING", "AVAILABLE", "UNLOADING", "END")
_STILL_S = 2.5  # two looks, one second apart
_GRAPHS = {"empty_graph": b"", "no_graph": b"no protobuf \xff\xff", "other_message": b"\x08\x01"}


class Stage:
    """A server, its configuration file, and the folder in which the models of its plays are."""

    def __init__(
        self, launcher: Launcher, numbered: Path, known: Protos, folder: Path, *flags: str
    ) -> None:
        self.numbered, self.protos, self.folder = numbered, known, folder
        self.file = folder / "models.config"
        self.flags = (f"--model_config_file={self.file}", *flags)
        self.server: Server
        self._launcher = launcher
        self._entries: dict[str, str] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        self.server = self._launcher.serve(self.folder / "server", *self.flags)

    def configure(
        self,
        name: str,
        policy: str | None = "latest",
        versions: Sequence[int] = (),
        labels: Mapping[str, int] | None = None,
    ) -> str:
        """Set the model's entry, or remove it for the policy None; return the text of all entries.

        The versions are those of the policy `specific`, or the one number of `latest`.
        """
        field = {"latest": "num_versions", "specific": "versions"}.get(policy or "")
        values = " ".join(f"{field}: {number}" for number in versions)
        pairs = "".join(
            f' version_labels {{ key: "{label}" value: {version} }}'
            for label, version in (labels or {}).items()
        )
        with self._lock:
            self._entries[name] = "" if policy is None else (
                f'config {{ name: "{name}" base_path: "{self.folder}/{name}"'
                ' model_platform: "tensorflow"'
                f" model_version_policy {{ {policy} {{ {values} }} }}{pairs} }}"
            )  # fmt: skip
            return f"model_config_list {{ {' '.join(self._entries.values())} }}"

    def write(self, text: str) -> None:
        with self._lock:
            self.file.with_suffix(".new").write_text(text)
            self.file.with_suffix(".new").rename(self.file)

    def close(self) -> None:
        if hasattr(self, "server"):
            self.server.close()


class Actor:
    """Acts a play: each verb of a step is a method here."""

    def __init__(self, play: Play, stage: Stage, *, is_ours: bool) -> None:
        self.name, self.stage, self.base = play.name, stage, stage.folder / play.name
        self._play = play
        self._other = "theirs" if is_ours else "ours"
        self._served: Served | None = None
        self._watcher: Watcher | None = None
        self.base.mkdir()
        self.config()

    def prepare(self) -> None:
        self._act(self._play.before)

    def act(self) -> None:
        try:
            self._act(self._play.after)
            if self._watcher:
                self._watcher.check()
        finally:
            if self._watcher:
                self._watcher.close()
            if self._served:
                self._served.close()

    def _act(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if step[0] == self._other:
                continue
            verb, *arguments = step[1:] if step[0] in ("ours", "theirs") else step
            try:
                getattr(self, verb)(*map(self._filled, arguments))
            except AssertionError as exc:
                raise AssertionError(f"{self.name}: {step}: {exc}, see {self.base}") from exc

    def _filled(self, argument: Any) -> Any:
        if not isinstance(argument, str):
            return argument
        return argument.replace("{m}", self.name).replace("{base}", str(self.base))

    def publish(self, what: str, folder_name: str = "") -> None:
        """Publish a version that answers the number `what`, or something broken."""
        target, good = self.base / (folder_name or what), self.stage.numbered / "2"
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

    def trickle(self, version: str) -> None:
        """Copy a version as a slow network does: bit by bit, `saved_model.pb` last."""
        source = self.stage.numbered / version
        files = sorted(p for p in source.rglob("*") if p.is_file())
        files.sort(key=lambda file: file.name == "saved_model.pb")
        for file in files:
            target = self.base / version / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            data = file.read_bytes()
            for part in range(8):
                with target.open("ab") as copy:
                    copy.write(data[len(data) * part // 8 : len(data) * (part + 1) // 8])
                self._hold(lambda: None, 0.15)

    def repair(self, folder_name: str) -> None:
        shutil.copytree(self.stage.numbered / "2", self.base / folder_name, dirs_exist_ok=True)

    def remove(self, folder_name: str) -> None:
        shutil.rmtree(_hidden(self.base / folder_name))

    def remove_base(self) -> None:
        self.base.rename(self.base.with_suffix(".away"))

    def restore_base(self) -> None:
        self.base.with_suffix(".away").rename(self.base)

    def config(self, *entry: Any) -> None:
        """Write the configuration file with this entry of the model; see `Stage.configure`."""
        self.stage.write(self.stage.configure(self.name, *entry))

    def config_beside(self, name: str) -> None:
        """Write it with another model beside: `missing`, or one of the table's."""
        folder = "/no/such/folder" if name == "missing" else self.stage.numbered
        entry = f'config {{ name: "{name}" base_path: "{folder}" model_platform: "tensorflow" }}'
        self.stage.write(self.stage.configure(self.name)[:-1] + entry + "}")

    def write_config(self, text: str) -> None:
        self.stage.write(text)

    def remove_config(self) -> None:
        self.stage.file.unlink()

    def reload(self, *entry: Any) -> None:
        """Configure by RPC; the arguments are those of `config`."""
        request = self.stage.protos.message("ReloadConfigRequest")
        text_format.Parse(self.stage.configure(self.name, *entry), request.config)
        answer = self.served.call_bytes("HandleReloadConfigRequest", request.SerializeToString())
        assert answer[:2] == ("OK", ""), answer

    @property
    def served(self) -> Served:
        if self._served is None:
            self._served = Served(*self.stage.server.opened(), self.stage.protos)
        return self._served

    def states(self, expected: Mapping[int, str]) -> None:
        """Wait until all versions that the status lists are these, in this order."""
        self._wait(lambda: versions(self.served, self.name), list(expected.items()))

    def now(self, expected: Mapping[int, str]) -> None:
        listed = versions(self.served, self.name)
        assert listed == list(expected.items()), listed

    def still(self, expected: Mapping[int, str]) -> None:
        """As `states`, and they stay so for two looks."""
        self.states(expected)
        self._hold(lambda: self.now(expected), _STILL_S)

    def answer(self, number: int, target: str = "") -> None:
        """Wait until a prediction is that number; the target is `versions/N` or `labels/L`."""

        def look() -> Any:
            reply = _predict(self.served, self.name, target)
            return reply.json["predictions"][0] if reply.status == 200 else reply.body

        self._wait(look, number)

    def refused(self, status: int, text: str, target: str = "") -> None:
        """Wait until a prediction is that error."""

        def look() -> tuple[int, str]:
            reply = _predict(self.served, self.name, target)
            return reply.status, reply.json.get("error")

        self._wait(look, (status, text))

    def error(self, version: int, code: str | None, text: str = "") -> None:
        """The status says this of that version; None is any code."""
        reply = self.served.ask("GET", f"/v1/models/{self.name}/versions/{version}")
        status = reply.json["model_version_status"][0]["status"]
        assert code in (None, status["error_code"]), status
        assert text in status["error_message"], status

    def log(self, words: str) -> None:
        """Wait for words on stderr."""
        wait_until(lambda: words in self.stage.server.err, "these words in the log")

    def closed(self) -> None:
        """No port is open, for two looks."""

        def look() -> None:
            assert self.stage.server.process.is_alive()
            assert self.stage.server.addresses is None

        self._hold(look, _STILL_S)

    def ends(self, words: str) -> None:
        """The process ends by itself, with these words on stdout."""
        assert self.stage.server.ended() == 255
        assert f"Failed to start server. Error: {words}" in self.stage.server.out

    def watch(self) -> None:
        """From now on ask all the time: no request may fail, and states must come in order."""
        self._watcher = Watcher(Served(self.served.rest, self.served.grpc, self.stage.protos), self)

    def seen(self, *numbers: int) -> None:
        """The answers that the watcher got, in order and without repetitions."""
        assert self._watcher is not None
        self._wait(self._watcher.answers, list(numbers))

    def _wait(self, look: Callable[[], Any], expected: Any) -> None:
        seen = [None]

        def is_there() -> bool:
            seen[0] = look()
            return seen[0] == expected

        try:
            wait_until(is_there, str(expected), pace_s=0.05)
        except AssertionError as exc:
            raise AssertionError(f"{exc}, seen {seen[0]}") from exc

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
        self._states: list[list[tuple[int, str]]] = []
        self._answers: list[int] = []
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
                    _add(self._answers, int(number))

    def answers(self) -> list[int]:
        return list(self._answers)

    def check(self) -> None:
        self.close()
        assert not self._errors, self._errors
        assert self._n_asked > 100
        for before, after in pairwise(map(dict, self._states)):
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


def versions(served: Served, name: str) -> list[tuple[int, str]]:
    """The versions of a model and their states, as listed; none if the model is not known."""
    listed = served.ask("GET", f"/v1/models/{name}").json.get("model_version_status", [])
    return [(int(version["version"]), version["state"]) for version in listed]


def _predict(served: Served, name: str, target: str) -> Answer:
    path = f"/v1/models/{name}{'/' if target else ''}{target}:predict"
    return served.ask("POST", path, '{"instances": [0]}')


def _add(seen: list[Any], new: Any) -> None:
    if seen[-1:] != [new]:
        seen.append(new)


def _reloaded(answers: list[int]) -> set[int]:
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
