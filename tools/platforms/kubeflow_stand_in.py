"""Stands in for Kubeflow's API server: notes what it's sent, and answers with an id."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

Posted = list[tuple[str, Any]]


@contextmanager
def running() -> Iterator[tuple[str, Posted]]:
    """Listen on a free port of this machine.

    Yields:
        Its address, and a list that gets path and body of each request that makes something.
    """
    posted: Posted = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({"experiments": [{"experiment_id": "e"}]})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posted.append((self.path, json.loads(body)))
            self._answer({"run_id": "r", "recurring_run_id": "s"})

        def _answer(self, document: Any) -> None:
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", posted
        server.shutdown()
