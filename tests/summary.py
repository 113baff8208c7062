"""What the end of a test run says besides: which tests were left out, and what was measured."""

from typing import Any

import pytest

N_LEFT_OUT = pytest.StashKey[int]()


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Count the tests that `-m "not docker"` leaves out, in each worker or without one."""
    n_left_out = sum(item.get_closest_marker("docker") is not None for item in items)
    if n_left_out:
        items[0].config.stash[N_LEFT_OUT] = n_left_out
        if hasattr(items[0].config, "workeroutput"):
            items[0].config.workeroutput["n_left_out"] = n_left_out


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a worker has counted; each counts the same."""
    output = getattr(node, "workeroutput", {})
    node.config.stash[N_LEFT_OUT] = output.get("n_left_out", 0)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say what was left out and why, and what tests have measured (`record_property`)."""
    for report in terminalreporter.getreports("passed"):
        for what, value in report.user_properties:
            terminalreporter.write_line(f"{what}: {value}")
    if n_left_out := config.stash.get(N_LEFT_OUT, 0):
        terminalreporter.write_line(
            f"left out, since they need a Docker engine: {n_left_out} (`make containers` runs them)"
        )
