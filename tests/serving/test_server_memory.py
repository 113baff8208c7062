"""What many loads and unloads leave behind in the server's process."""

import gc
import os
from pathlib import Path

from mlops_mini.serving import batching_options, server
from mlops_mini.serving.config import ServerConfig
from mlops_mini.serving.lifecycle import State
from mlops_mini.serving.model_config import ModelConfig
from mlops_mini.serving.server_metrics import ServerMetrics
from tests.serving.servers import run_in_child, wait_until

N_CYCLES = 30


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _check_cycles(base: Path) -> None:
    server_config = ServerConfig(model_base_path=str(base))
    metrics = ServerMetrics(lambda count, *labels: count(*labels))
    models = server._models(server_config, batching_options.common(server_config), metrics)
    config = ModelConfig(name="m", base_path=str(base))

    def is_unloaded() -> bool:
        return [s.state for s in models.statuses("m")] == [State.END]

    seen = []
    for _ in range(N_CYCLES + 3):  # the first ones warm what stays
        models.replace([config], timeout_s=60)
        models.configure([])
        wait_until(is_unloaded, "the model to be unloaded")
        seen.append((_resident_mb(), gc.get_freeze_count()))
    (first_mb, n_frozen), (last_mb, n_frozen_last) = seen[3], seen[-1]
    assert last_mb - first_mb < 10, [round(mb, 1) for mb, _ in seen]
    # TensorFlow's own objects are out of the collector's way, no model is.
    assert n_frozen == n_frozen_last > 100_000


def test_thirty_cycles_of_load_and_unload_give_all_memory_back(
    toy_models: Path, tmp_path: Path
) -> None:
    run_in_child(_check_cycles, toy_models / "convolution", log_file=tmp_path / "log")
