"""Are answers right when requests are run together? 100,000 mixed requests, each checked.

First each of some hundred bodies is asked alone, on one connection. Then eight threads ask them at
random, over REST, and every answer must be that of the lone request to 1e-5. Prints the result and
writes it to benchmarks/server_answers.md; fails if one answer is wrong.

Example: python -m benchmarks.server_answers --requests 100000
"""

import argparse
import http.client
import json
import random
import sys
import tempfile
import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.server_speed import start_ours, table, write_models

_N_THREADS = 8
_N_BODIES = 40  # of each model
_TOLERANCE = 1e-5


def requests() -> list[tuple[str, bytes]]:
    """Make up bodies of one to twelve rows for each model."""
    rng = np.random.default_rng(3)
    tabular, flight = table(2, 4).dropna(), table(5, 20)
    asked: list[tuple[str, Any]] = []
    for i in range(_N_BODIES):
        n_rows = int(rng.integers(1, 4)) if i % 8 else 12
        key = ("instances", "inputs")[i % 2]
        asked.append(("half_plus_two", {key: rng.normal(size=n_rows).round(3).tolist()}))
        asked.append(("dense", {key: rng.normal(size=(n_rows, 30)).round(4).tolist()}))
        asked.append(("cnn", {key: rng.random((n_rows, 28, 28, 1)).round(3).tolist()}))
        rows = tabular.iloc[i : i + n_rows]
        asked.append(("tabular", {"instances": rows.to_dict("records")}))
        asked.append(("flight", {"inputs": flight.iloc[i : i + n_rows].to_dict("list")}))
    return [(model, json.dumps(document).encode()) for model, document in asked]


def ask(connection: http.client.HTTPConnection, model: str, body: bytes) -> Any:
    """Return the numbers of an answer."""
    connection.request("POST", f"/v1/models/{model}:predict", body)
    (numbers,) = json.loads(connection.getresponse().read()).values()
    return np.array(numbers)


def count_wrong(address: str, n_requests: int) -> int:
    """Ask at random on several threads and count the answers that aren't those of a lone client."""
    asked = requests()
    with closing(http.client.HTTPConnection(address, timeout=60)) as connection:
        expected = [ask(connection, *request) for request in asked]
    n_wrong = [0] * _N_THREADS

    def work(number: int) -> None:
        rng = random.Random(number)  # noqa: S311 - a load, not a secret
        with closing(http.client.HTTPConnection(address, timeout=60)) as connection:
            for _ in range(n_requests // _N_THREADS):
                index = rng.randrange(len(asked))
                answer = ask(connection, *asked[index])
                is_right = answer.shape == expected[index].shape and np.allclose(
                    answer, expected[index], rtol=_TOLERANCE, atol=_TOLERANCE
                )
                n_wrong[number] += not is_right

    threads = [threading.Thread(target=work, args=[number]) for number in range(_N_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(n_wrong)


def main() -> int:
    """Ask, print and write the result; 1 if an answer was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="keep the models there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        (folder / "ours.json").unlink(missing_ok=True)
        process, address = start_ours(folder, write_models(folder))
        try:
            n_wrong = count_wrong(address, options.requests)
        finally:
            process.kill()
            process.wait()
        n_alone = (folder / "ours.log").read_text().count("one by one")
    text = (
        "# Answers of requests that are run together\n\n"
        f"{options.requests:,} mixed requests to five models on {_N_THREADS} connections,"
        f" {datetime.now(UTC):%Y-%m-%d}:\n{n_wrong} answers differ from those of a lone client by"
        f" more than {_TOLERANCE:g}; {n_alone} signatures were found to be\nunfit for batches.\n"
    )
    Path(__file__).with_suffix(".md").write_text(text)
    print(text)
    return 1 if n_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
