"""Asks 1,000 times through Envoy, counts who has answered, and asks Prometheus what it has seen.

Exits 0 if the canary had its tenth, within what chance explains, and Prometheus counts the same.
"""

import collections
import http.client
import json
import sys
import time
import urllib.parse

N, WEIGHT = 1000, 0.1
# What the two versions make of 1: stable halves it and adds 2, canary adds 3.
ANSWERS = {2.5: "stable", 3.5: "canary"}
COUNT = 'sum by (instance) ({__name__=":tensorflow:serving:request_count"})'
# Four standard deviations of a count of 1,000 requests with that chance.
MARGIN = 4 * (N * WEIGHT * (1 - WEIGHT)) ** 0.5
GIVE_UP_S = 120.0


def ask(host: str, method: str, path: str, body: str | None = None) -> dict | None:
    """Ask, and return the answer; None while nobody answers."""
    connection = http.client.HTTPConnection(host, timeout=30)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return json.loads(response.read()) if response.status == 200 else None
    except OSError:
        return None
    finally:
        connection.close()


def wait_for(look, what):
    """Look until there's something."""
    deadline = time.monotonic() + GIVE_UP_S
    while not (seen := look()):
        if time.monotonic() > deadline:
            sys.exit(f"waited {GIVE_UP_S:.0f} s for {what}")
        time.sleep(0.2)
    return seen


def predict():
    """Ask for one prediction."""
    return ask("envoy:8501", "POST", "/v1/models/m:predict", '{"instances": [1.0]}')


def seen_by_prometheus():
    """Count the requests that Prometheus knows of; None until it knows of all."""
    query = urllib.parse.urlencode({"query": COUNT})
    answer = ask("prometheus:9090", "GET", f"/api/v1/query?{query}") or {"data": {"result": []}}
    counts = {
        each["metric"]["instance"].partition(":")[0]: int(float(each["value"][1]))
        for each in answer["data"]["result"]
    }
    return counts if sum(counts.values()) >= N + 1 else None


first = wait_for(predict, "Envoy")
answered = collections.Counter([ANSWERS[first["predictions"][0]]])
for _ in range(N):
    answer = predict()
    answered[ANSWERS[answer["predictions"][0]] if answer else "failed"] += 1
print(
    f"stable answered {answered['stable']}, canary {answered['canary']},"
    f" failed {answered['failed']}"
)
counted = wait_for(seen_by_prometheus, "Prometheus to have seen them all")
print(f"Prometheus counts stable {counted['stable']}, canary {counted['canary']}")
is_a_tenth = abs(answered["canary"] - N * WEIGHT) <= MARGIN
sys.exit(0 if is_a_tenth and not answered["failed"] and counted == dict(answered) else 1)
