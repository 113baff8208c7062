"""What becomes of versions, labels and models over time: section 5, as plays."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.conformance import failed_version_cases, version_cases
from tests.conformance.protos import Protos
from tests.conformance.version_cases import SHARED_FLAGS, Play
from tests.conformance.version_plays import Actor, Stage
from tests.serving.servers import Launcher

PLAYS = {play.name: play for play in version_cases.PLAYS + failed_version_cases.PLAYS}
SHARED = [play for play in PLAYS.values() if play.flags is None]
ALONE = [play for play in PLAYS.values() if play.flags is not None]
RESTORED = [play for play in ALONE if play.restored_by]
_AT_ONCE = 4

Acted = dict[tuple[str, bool], Future[None]]


@pytest.fixture(scope="module")
def acted(
    launcher: Launcher,
    table_models: Path,
    serving_protos: Protos,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Acted]:
    """All plays, under way: they wait most of the time, so they are acted side by side."""
    folder, numbered = tmp_path_factory.mktemp("plays"), table_models / "numbered"

    def stage(name: str, *flags: str) -> Stage:
        (folder / name).mkdir()
        return Stage(launcher, numbered, serving_protos, folder / name, *flags)

    def act_alone(play: Play, *, is_ours: bool, flags: tuple[str, ...]) -> None:
        name = play.name if is_ours else f"{play.name}_restored"
        with closing(stage(name, *(play.flags or ()), *flags)) as own:
            actor = Actor(play, own, is_ours=is_ours)
            actor.prepare()
            own.start()
            actor.act()

    with ExitStack() as stack:
        shared = stack.enter_context(closing(stage("shared", *SHARED_FLAGS)))
        actors = [Actor(play, shared, is_ours=launcher.is_ours) for play in SHARED]
        for actor in actors:
            actor.prepare()
        shared.start()
        together = stack.enter_context(ThreadPoolExecutor(len(SHARED)))
        few = stack.enter_context(ThreadPoolExecutor(_AT_ONCE))
        plays: Acted = {(a.name, False): together.submit(a.act) for a in actors}
        for play in ALONE:
            plays[play.name, False] = few.submit(
                act_alone, play, is_ours=launcher.is_ours, flags=()
            )
        for play in RESTORED if launcher.is_ours else ():
            plays[play.name, True] = few.submit(
                act_alone, play, is_ours=False, flags=play.restored_by
            )
        yield plays
        few.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", PLAYS)
def test_the_plays_end_as_they_should(launcher: Launcher, acted: Acted, name: str) -> None:
    acted[name, False].result()


@pytest.mark.parametrize("play", RESTORED, ids=lambda play: f"{play.name} {play.restored_by[0]}")
def test_the_originals_way_comes_back_with_flags(
    launcher: Launcher, acted: Acted, play: Play
) -> None:
    if not launcher.is_ours:
        pytest.skip("these flags are ours alone")
    acted[play.name, True].result()
