"""The set of models, with real folders and threads, and servables that are fakes."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlops_mini.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    MlopsMiniError,
    NotFoundError,
    by_code,
)
from mlops_mini.serving import lifecycle
from mlops_mini.serving.model_config import ModelConfig, VersionPolicy
from mlops_mini.serving.models import Models
from mlops_mini.wire import ModelSpec
from tests.serving.servers import wait_until

POLL_S = 0.01
MakeModels = Callable[..., Models]


class FakeServable:
    """Knows which folder it was loaded from."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.is_closed = folder, False

    def close(self) -> None:
        self.is_closed = True


def load(name: str, folder: Path, version: int) -> Any:
    if "broken" in (folder / "saved_model.pb").read_text():
        raise by_code(11, "Read less bytes than requested")
    return FakeServable(folder)


@pytest.fixture
def make_models() -> Iterator[MakeModels]:
    made: list[Models] = []

    def make(load: Any = load, **settings: Any) -> Models:
        made.append(Models(load, **{"poll_wait_s": POLL_S, **settings}))
        return made[-1]

    yield make
    for models in made:
        models.close(10)
        assert not models.is_busy


@pytest.fixture
def models(make_models: MakeModels) -> Models:
    return make_models()


def write(folder: Path, version: int = 1, content: str = "graph") -> Path:
    (folder / str(version)).mkdir(parents=True, exist_ok=True)
    (folder / str(version) / "saved_model.pb").write_text(content)
    return folder


def model(folder: Path, **settings: Any) -> ModelConfig:
    return ModelConfig(name=folder.name, base_path=str(folder), **settings)


def served(models: Models, name: str, **target: Any) -> str:
    with lifecycle.acquire(models.by_name, ModelSpec(name=name, **target)) as servable:
        folder = servable.folder  # type: ignore[attr-defined]
    return f"{folder.parent.name}/{folder.name}"


def test_replace_returns_with_every_new_model_available(models: Models, tmp_path: Path) -> None:
    configs = [model(write(tmp_path / name)) for name in ("b", "a")]

    models.replace(configs)

    assert [served(models, name) for name in ("a", "b")] == ["a/1", "b/1"]
    assert models.names() == ["a", "b"]
    assert models.configs() == configs[::-1]
    assert models.not_ready() == {}


def test_a_model_that_is_replaced_goes_and_its_versions_stay_listed(
    models: Models, tmp_path: Path
) -> None:
    models.replace([model(write(tmp_path / "a"))])
    models.replace([model(write(tmp_path / "b"))])

    wait_until(lambda: models.statuses("a")[0].state.name == "END", "the end of a")
    with pytest.raises(NotFoundError, match=r"^Servable not found for request: Latest\(a\)$"):
        served(models, "a")
    assert models.names() == ["b"]
    models.replace([model(tmp_path / "a")])  # back again
    assert served(models, "a") == "a/1"


def test_what_is_not_there_is_named_in_tensorflow_servings_words(
    models: Models, tmp_path: Path
) -> None:
    models.replace([model(write(tmp_path / "m"))])

    for call, text in (
        (lambda: served(models, "zz"), "Servable not found for request: Latest(zz)"),
        (
            lambda: served(models, "zz", version=0),
            "Servable not found for request: Specific(zz, 0)",
        ),
        (lambda: served(models, "m", version=9), "Servable not found for request: Specific(m, 9)"),
        (lambda: served(models, "zz", version_label="x"), "Unrecognized servable version label: x"),
        (lambda: served(models, "m", version_label="x"), "Unrecognized servable version label: x"),
        (lambda: models.statuses("zz"), "Could not find any versions of model zz"),
        (lambda: models.statuses("m", version=9), "Could not find version 9 of model m"),
    ):
        with pytest.raises(MlopsMiniError) as raised:
            call()
        assert str(raised.value) == text
        is_label = "label" in text
        assert isinstance(raised.value, InvalidArgumentError if is_label else NotFoundError)


def test_a_new_model_that_fails_fails_the_call_and_the_others_are_served(
    models: Models, tmp_path: Path
) -> None:
    models.replace([model(write(tmp_path / "good"))])
    configs = [model(tmp_path / "good"), model(write(tmp_path / "bad", content="broken"))]

    with pytest.raises(MlopsMiniError) as raised:
        models.replace(configs)

    assert raised.value.code == 2
    assert str(raised.value) == (
        "1 model(s) did not become available: {{{name: bad version: 1} due to error: OUT_OF_RANGE:"
        " Read less bytes than requested}, }"
    )
    assert served(models, "good") == "good/1"
    assert models.not_ready() == {
        "bad": "version 1 cannot be loaded: Read less bytes than requested"
    }
    write(tmp_path / "bad", content="repaired")
    wait_until(lambda: not models.not_ready(), "the repaired version")


def test_a_first_set_that_fails_is_worded_as_at_the_start(models: Models, tmp_path: Path) -> None:
    with pytest.raises(MlopsMiniError, match=r"^1 servable\(s\) did not become available: \{\{\{"):
        models.replace([model(write(tmp_path / "bad", content="broken"))])


def test_a_set_that_fails_after_an_empty_one_is_no_first_one(
    models: Models, tmp_path: Path
) -> None:
    models.replace([])
    with pytest.raises(MlopsMiniError, match=r"^1 model\(s\) did not become available: \{\{\{"):
        models.replace([model(write(tmp_path / "bad", content="broken"))])


def test_a_broken_newest_version_beside_a_good_one_fails_nothing(
    models: Models, tmp_path: Path
) -> None:
    write(tmp_path / "m", 2, "broken")

    models.replace([model(write(tmp_path / "m"))])

    assert served(models, "m") == "m/1"


def test_a_missing_folder_holds_up_nobody_but_who_waits_for_it(
    models: Models, tmp_path: Path
) -> None:
    missing = model(tmp_path / "missing")
    with pytest.raises(DeadlineExceededError, match=r"^missing not available within 0\.3 s: Could"):
        models.replace([missing, model(write(tmp_path / "m"))], timeout_s=0.3)

    wait_until(lambda: list(models.not_ready()) == ["missing"], "the other model")
    assert served(models, "m") == "m/1"


def test_a_call_that_waits_ends_when_its_model_is_taken_away(
    models: Models, tmp_path: Path
) -> None:
    waiting = threading.Thread(target=models.replace, args=[[model(tmp_path / "missing")]])
    waiting.start()
    wait_until(lambda: models.names() == ["missing"], "the first call to be in force")

    models.replace([model(write(tmp_path / "m"))])

    waiting.join(10)
    assert not waiting.is_alive()


def test_a_slow_load_holds_up_no_other_model(make_models: MakeModels, tmp_path: Path) -> None:
    go = threading.Event()

    def wait_and_load(name: str, folder: Path, version: int) -> Any:
        if name == "slow":
            assert go.wait(30)
        return load(name, folder, version)

    models = make_models(wait_and_load)
    models.configure([model(write(tmp_path / name)) for name in ("slow", "quick")])

    wait_until(lambda: list(models.not_ready()) == ["slow"], "the quick one alone")
    go.set()
    wait_until(lambda: not models.not_ready(), "the slow one")


def test_whatever_a_load_raises_ends_the_version_and_not_its_thread(
    make_models: MakeModels, tmp_path: Path
) -> None:
    def fail_or_load(name: str, folder: Path, version: int) -> Any:
        if version == 2:
            raise ZeroDivisionError("odd")
        return load(name, folder, version)

    models = make_models(fail_or_load)
    write(tmp_path / "m", 2)
    models.replace([model(write(tmp_path / "m"))])

    failed, available = models.statuses("m")
    assert (failed.error_code, failed.error_message) == (13, "ZeroDivisionError: odd")
    assert available.state.name == "AVAILABLE"
    write(tmp_path / "m", 3)
    wait_until(lambda: served(models, "m") == "m/3", "the next version")


def test_no_more_models_load_at_the_same_time_than_are_told(
    make_models: MakeModels, tmp_path: Path
) -> None:
    lock, now, most = threading.Lock(), [0], [0]

    def count_and_load(name: str, folder: Path, version: int) -> Any:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        try:
            return load(name, folder, version)
        finally:
            with lock:
                now[0] -= 1

    models = make_models(count_and_load, n_load_threads=1)
    models.replace([model(write(tmp_path / f"m{number}")) for number in range(8)])

    assert most == [1]


def test_a_change_of_platform_is_refused_and_another_one_is_unknown(
    models: Models, tmp_path: Path
) -> None:
    config = model(write(tmp_path / "m"))
    models.replace([config])
    other = model(tmp_path / "m", platform="other")

    with pytest.raises(InvalidArgumentError) as raised:
        models.replace([other])
    assert str(raised.value) == (
        "Illegal to change a model's platform. For model m platform was tensorflow and new platform"
        " requested is other"
    )
    with pytest.raises(InvalidArgumentError, match=r"^Model n requests unsupported platform x$"):
        models.replace([model(write(tmp_path / "n"), platform="x")])
    assert models.configs() == [config]


def test_labels_are_applied_by_the_time_their_versions_answer(
    models: Models, tmp_path: Path
) -> None:
    write(tmp_path / "m", 2)
    config = model(
        write(tmp_path / "m"), policy=VersionPolicy(n_latest=0), labels={"old": 1, "new": 2}
    )
    models.replace([config])

    wait_until(lambda: len(models.statuses("m")) == 2, "both versions")
    assert served(models, "m", version_label="new") == "m/2"
    wait_until(lambda: models.statuses("m")[1].state.name == "AVAILABLE", "version 1")
    assert served(models, "m", version_label="old") == "m/1"


@pytest.mark.parametrize("allow", [False, True])
def test_strict_labels_need_an_available_version(
    make_models: MakeModels, tmp_path: Path, allow: bool
) -> None:
    models = make_models(strict_labels=True, allow_unavailable_labels=allow)
    folder = write(tmp_path / "m")
    refused = r"^Request to assign label to version {} of model m, which is not currently available"
    if allow:
        models.replace([model(folder, labels={"stable": 1})])
    else:
        with pytest.raises(FailedPreconditionError, match=refused.format(1)):
            models.replace([model(folder, labels={"stable": 1})])
        assert models.names() == []
        models.replace([model(folder)])
        models.replace([model(folder, labels={"stable": 1})])

    with pytest.raises(FailedPreconditionError, match=refused.format(2)):
        models.replace([model(folder, labels={"stable": 2})])  # a move, refused in both modes
    assert served(models, "m", version_label="stable") == "m/1"
    if allow:
        models.replace([model(folder, labels={"stable": 1, "next": 2})])
        with pytest.raises(NotFoundError, match=r"Specific\(m, 2\)"):
            served(models, "m", version_label="next")


def test_a_removed_model_is_unloaded_when_its_last_request_ends(
    make_models: MakeModels, tmp_path: Path
) -> None:
    models = make_models(poll_wait_s=1000)  # nothing happens unless something wakes it
    models.replace([model(write(tmp_path / "m"))])
    with lifecycle.acquire(models.by_name, ModelSpec(name="m")) as servable:
        models.configure([])
        wait_until(lambda: models.statuses("m")[0].state.name == "UNLOADING", "the unload to begin")
        assert not servable.is_closed  # type: ignore[attr-defined]
        assert models.n_running == 1

    wait_until(lambda: models.statuses("m")[0].state.name == "END", "the end")
    assert servable.is_closed  # type: ignore[attr-defined]
    wait_until(lambda: not models.is_busy, "its thread to end")


@pytest.mark.parametrize("poll_wait_s", [0, -1])
def test_who_does_not_poll_looks_until_the_first_version_is_there_or_never(
    make_models: MakeModels, tmp_path: Path, poll_wait_s: int
) -> None:
    models = make_models(poll_wait_s=poll_wait_s)
    config = model(tmp_path / "m")
    models.configure([config])
    write(tmp_path / "m")
    if poll_wait_s < 0:
        assert not models.is_busy
        return
    wait_until(lambda: not models.not_ready(), "version 1")
    write(tmp_path / "m", 2)
    models.replace([config, model(write(tmp_path / "n"))])

    assert served(models, "m") == "m/1"


def test_without_polling_a_reload_loads_what_it_names(
    make_models: MakeModels, tmp_path: Path
) -> None:
    models = make_models(poll_wait_s=0)
    models.replace([model(write(tmp_path / "m"))])
    write(tmp_path / "m", 3)

    models.replace([model(tmp_path / "m", policy=VersionPolicy(specific=frozenset({3})))])

    wait_until(lambda: served(models, "m") == "m/3", "version 3")


def test_no_failure_ends_the_thread_of_a_model(models: Models, tmp_path: Path) -> None:
    unthinkable = ModelConfig(name="m", base_path=f"{tmp_path}/\0")  # which no system call takes
    models.configure([unthinkable])
    models.wait_for_first_tries()
    assert models.is_busy

    models.configure([model(write(tmp_path / "m"))])

    wait_until(lambda: not models.not_ready(), "the model")
    assert served(models, "m") == "m/1"


def test_a_stop_in_the_very_moment_in_which_a_model_falls_asleep_wakes_it(
    make_models: MakeModels, tmp_path: Path
) -> None:
    models = make_models(poll_wait_s=0)  # it would sleep for good
    models.replace([model(write(tmp_path / "m"))])

    class StopsAtClear(threading.Event):
        def clear(self) -> None:
            closing = threading.Thread(target=models.close)
            closing.start()
            closing.join(30)
            super().clear()

    looked_after = models.by_name["m"]
    before, looked_after.wake = looked_after.wake, StopsAtClear()
    before.set()

    wait_until(lambda: not models.is_busy, "its thread to end")


def test_closing_ends_every_wait(models: Models, tmp_path: Path) -> None:
    waiting = threading.Thread(target=models.replace, args=[[model(tmp_path / "missing")]])
    waiting.start()
    wait_until(lambda: models.names() == ["missing"], "the call to be in force")

    models.close(10)

    waiting.join(10)
    assert not waiting.is_alive()
