"""The soak of benchmarks/server_soak.py, with few requests."""

from pathlib import Path

from benchmarks import server_soak


def test_no_request_fails_and_no_memory_is_lost_whatever_is_done(
    toy_models: Path, tmp_path: Path
) -> None:
    soaked = server_soak.soak(toy_models, tmp_path, n_requests=5000)

    assert soaked.n_failed == 0
    assert min(soaked.counts.values()) > 0, soaked.counts
    assert soaked.growth_mb < 100  # mostly TensorFlow's own warming up: the long form says more
    assert soaked.n_log_files > 1
