"""Whatever is sent, the answer is one of the protocol's, and the server lives on."""

from pathlib import Path

import pytest

from tests.conformance import fuzz
from tests.conformance.protos import Protos
from tests.conformance.served import serve_tables


@pytest.mark.slow
def test_a_thousand_odd_requests_to_each_edge_leave_the_server_as_it_was(
    table_models: Path, serving_protos: Protos, tmp_path: Path
) -> None:
    with serve_tables(table_models, tmp_path / "server", serving_protos) as (server, served):
        fuzz.check_both(served, server.process.pid, 1000)
