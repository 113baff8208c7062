"""Writes docs/model-server.md: the model server's flags, and where it differs from the original.

The flags, their defaults and meanings come from the code; a test compares page and code.

Example: python -m tools.model_server_page
"""

import dataclasses
from pathlib import Path

from mlops_mini.serving.config import ServerConfig, flag_type

PAGE = Path(__file__).parents[1] / "docs" / "model-server.md"
SECTIONS = {
    "served": ("Flags of TensorFlow Serving", ""),
    "ours": ("Our own flags", ""),
    "inert": (
        "Flags that are accepted and do nothing",
        "A value other than the default is answered with one warning line at the start.\n",
    ),
}
# What, how it is in TensorFlow Serving, how it is here, what restores the original.
DIFFERENCES = (
    (
        "An error over REST",
        '`{"error": ...}`',
        "the same text first; beside it, where a request does not fit, a `hint` with one that does",
        "none",
    ),
    ("Listens on", "every address", "127.0.0.1", "`--bind_address=0.0.0.0`, or `::`"),
    (
        "Ports open",
        "once every model has a version",
        (
            "once every model has had its first load, well or not; one without versions holds up"
            " nobody. With `--open_ports_early` at once: a model that is not there yet is not found"
            " (404), and `/readyz` tells when it is"
        ),
        "`--strict_start`, which ends the process if a load fails",
    ),
    (
        "A model that fails to load at the start",
        "ends the process",
        "the others are served, its next lower version too; `/readyz` names it if there is none",
        "`--strict_start`, for a model of which no version loads",
    ),
    (
        "A label of a version that is not available",
        "is refused, at the start too",
        "waits for its version, with a line in the log; one that moves stays until then",
        "`--strict_version_labels`",
    ),
    (
        "A version folder that is still being copied",
        "is loaded as it is",
        "waits until two looks find the same files",
        "none",
    ),
    (
        "A version that is an empty folder, a plain file, a dead link, or unreadable",
        "fails to load",
        "is said once in the log and in `/readyz`, and loaded once it can be; others are served",
        "none",
    ),
    (
        "Files that change under a number that is served",
        "are not looked at",
        "are not loaded either, and get one warning in the log",
        "none",
    ),
    (
        "A reload with `--file_system_poll_wait_seconds=0`",
        "finds nothing new",
        "loads the versions that it names",
        "none",
    ),
    (
        "A reload by gRPC from another machine",
        "is done",
        "is refused (PERMISSION_DENIED), unless clients show a certificate (`client_verify`)",
        "`--enable_model_management`",
    ),
    (
        "The body of a REST request",
        "may have any size",
        (
            "has at most 256 MiB, else 413. For gRPC there is no limit, unless"
            " `--grpc_channel_arguments=grpc.max_receive_message_length=...` sets one"
        ),
        "`--rest_max_body_bytes=0`",
    ),
    (
        "A limit or deadline that passes while one long operation runs",
        "is answered when that operation ends",
        "is answered at once; the operation goes on until it ends",
        "none",
    ),
    (
        "Without `--enable_batching`",
        "each request is run on its own",
        "requests that come together are run together where that can't change an answer",
        "`--enable_batching=false`",
    ),
    (
        "With `--enable_batching`, a bad request in a batch",
        "fails all of it, with one message",
        (
            "fails alone: the batch is run again, one by one, once, unless a run may change the"
            " model"
        ),
        "none",
    ),
    (
        "Requests of other inner shapes in such a batch, without padding",
        "fail together (FAILED_PRECONDITION)",
        "are run apart",
        "none",
    ),
    (
        "A request of 0 rows with `--enable_batching`",
        "is never answered",
        "is answered at once",
        "none",
    ),
    (
        "A request whose time ends while it waits for its batch",
        "is answered when the batch is full (RESOURCE_EXHAUSTED)",
        "is answered at once, in the same words, and isn't run",
        "none",
    ),
    (
        "Classify, Regress and MultiInference with `--enable_batching`",
        "are batched",
        "run on their own",
        "none",
    ),
    (
        "A signature with a ragged or sparse tensor",
        "fails when it is asked",
        "says what it is (UNIMPLEMENTED, 501) when it is asked; the other signatures serve",
        "none",
    ),
    (
        "A version that failed for good",
        "is never tried again",
        "is tried again when its files change",
        "none",
    ),
    (
        "A model whose folder is missing",
        "holds up all other models",
        "holds up nobody",
        "none",
    ),
    (
        "A failed newest version that is removed",
        "can block the model until a higher one comes",
        "leaves the others as they were",
        "none",
    ),
    (
        "A policy that names only versions that are not there",
        "unloads what is served",
        "keeps what is served while its folder is there",
        "none",
    ),
    (
        "`logging_config`",
        "is refused: no log collector is built in",
        "logs requests to TFRecord files",
        "none",
    ),
    (
        "A TF Lite model with TensorFlow's op ParseExample",
        "is served",
        "fails to load: LiteRT doesn't have it",
        "none",
    ),
    (
        "A profile asked for by another machine",
        "is taken",
        "is refused (PERMISSION_DENIED), unless clients show a certificate (`client_verify`)",
        "`--enable_model_management`",
    ),
    (
        "A reload that waits for its models",
        "makes later reloads wait too",
        "ends when a later one takes its models away",
        "none",
    ),
    (
        "The configuration file, polled",
        "is applied at each look",
        "is applied when it says something new, so that a reload by RPC stays",
        "none",
    ),
    ("A relative `--model_base_path`", "is refused", "is taken from the working folder", "none"),
    ("`gs://` and other remote paths", "are served", "are refused", "none"),
    (
        "SIGTERM and SIGINT",
        "end the process at once",
        "let requests in flight finish, exit status 0",
        "`--drain_timeout_s=0`",
    ),
    (
        "A tensor of more than 64 dimensions",
        "is read, up to 254",
        "is refused: numpy has no more",
        "none",
    ),
    (
        "A gRPC tensor of few texts and a large shape",
        "repeats the last text as often as the shape says",
        "is refused where that is more than 262,144 times: such a request is a few bytes long",
        "none",
    ),
    ("`--name value`, with a blank", "is not understood", "is read as `--name=value`", "none"),
    (
        "Routes outside `/v1`",
        "none",
        "`/healthz`, and `/readyz` with versions, labels and last errors of each model",
        "none",
    ),
)


USE = """
## How to use it

```
mini-model-server --model_config_file=models.config --rest_api_port=8501 \\
  --model_config_file_poll_wait_seconds=5
```

This serves the models that `models.config` lists, and reads the file again every 5 s:

```
model_config_list {
  config {
    name: "m"
    base_path: "/models/m"
    model_platform: "tensorflow"
    model_version_policy { specific { versions: 1 versions: 2 } }
    version_labels { key: "stable" value: 1 }
    version_labels { key: "canary" value: 2 }
  }
}
```

Without a policy the latest version is served; `all {}` serves all. A request that names neither
version nor label gets the highest version.

```
curl -d '{"instances": [[1, 2, 3]]}' localhost:8501/v1/models/m:predict
curl -d '{"instances": [[1, 2, 3]]}' localhost:8501/v1/models/m/labels/canary:predict
curl localhost:8501/v1/models/m             # its versions and their states
curl localhost:8501/v1/models/m/metadata    # its signatures
curl localhost:8501/healthz                 # 200 while the process answers
curl localhost:8501/readyz                  # 200 if every model answers, else 503; says why
```

The ports open when each model has had its first load, so an open port means an answer. Models come
and go by the configuration file, or by gRPC's `HandleReloadConfigRequest`; a model is a program, so
the second way is open on loopback only, or to clients with a certificate.

- Publish a version by copying it beside the others and renaming it to its number.
- Requests to warm a version up with stand in its folder, as a TFRecord file of PredictionLog:
  `assets.extra/tf_serving_warmup_requests`.
- The file of `--ssl_config_file` holds the keys themselves, with `\\n` for a new line:
  `server_key: "-----BEGIN PRIVATE KEY-----\\n..."`, then `server_cert`, and for clients that must
  prove who they are `custom_ca` and `client_verify: true`. Our clients then need `tls=Tls(...)`.
"""


# Family of TensorFlow Serving, how it is here, why.
METRICS = (
    ("serving:mlmd_map", "none", "no model here comes from an ML Metadata store"),
    (
        "serving:request_count",
        "`(unknown)` stands for all names that were never configured",
        "else clients could make series without end",
    ),
    (
        "serving:batching_session:...",
        "also without `--enable_batching`; only requests that ran with others",
        "what arrives together runs together",
    ),
    ("serving:..._sum", "all digits, not six", "rates of sums are exact after a month, too"),
    (
        "cc:saved_model:..., serving:model_warmup_...",
        "the latest 100 version folders",
        "a server runs for years",
    ),
    (
        "core:graph_runs, core:graph_run_time_usecs",
        "runs of requests, without warm-up",
        "counted here, not in TensorFlow",
    ),
    ("the other 140 families of TensorFlow's own", "none", "Python can't read them"),
)


MONITORING = """
## Metrics

Off, unless `--monitoring_config_file` names a file such as [this one](../deploy/monitoring.config);
without a `path` in it, it is `/monitoring/prometheus/metrics`. The page is on the REST port.

```
mini-model-server --model_config_file=models.config --rest_api_port=8501 \\
  --monitoring_config_file=deploy/monitoring.config
prometheus --config.file=deploy/prometheus.yml
promtool test rules deploy/alerts_test.yml
```

[deploy/](../deploy) has Prometheus' configuration, rules with alerts and their unit tests, and a
dashboard for Grafana, which `python -m tools.dashboard` writes.

Names, types, labels and buckets are TensorFlow Serving's, for request and runtime latencies,
requests, examples, warm-up, batches and loads. `promtool check metrics` reads the page and finds
that those names have colons and no help, as in the original; it has nothing against ours:

"""
# Name, labels, what it is.
OWN_METRICS = (
    ("model_ready", "model_name", "1 if a version answers"),
    (
        "version_state",
        "model_name, version, state",
        "1 for the state that a version is in; where it has ended, only if it failed",
    ),
    ("version_label", "model_name, label, version", "1 for the version that a label stands for"),
    ("loads_total", "model_name, status", "loads by how they ended, warm-up included"),
    (
        "run_requests_total",
        "model_name, version, signature",
        "predict requests that were run, well or not",
    ),
    ("run_rows", "model_name, version, signature", "rows of each run, padding included"),
    ("queued_requests", "model_name, version, signature", "requests that wait to be run"),
    ("requests_running", "model_name", "requests that hold a version"),
    (
        "event_loop_stall_seconds",
        "",
        "how much later than due the event loop did something",
    ),
)
MONITORING_LIMITS = """
The series of a version go with it. To write the page takes a tenth of the event loop's time at
most, however many ask for it.

What differs from TensorFlow Serving:

| family | here | why |
| --- | --- | --- |
"""


# What is asked of TensorFlow Serving in its tracker, how it is here, and the test that shows it.
WISHES = (
    (
        "arm64 and Apple silicon, without Docker",
        "pure Python, on macOS and Linux; Windows has WSL2",
        "test_wheel.py::test_it_holds_the_package_whole_and_nothing_else",
    ),
    (
        "Install it with pip",
        "`pip install`, and the same flags",
        "serving/test_server.py::test_the_script_serves_and_stops",
    ),
    (
        "SIGTERM must lose no request",
        "what is in flight ends, then exit status 0",
        "serving/test_server.py::test_sigterm_lets_the_request_in_flight_finish",
    ),
    (
        "Health and readiness without a model's name",
        "`/healthz`, `/readyz`, and gRPC health by model",
        "conformance/test_transport.py::test_health_follows_the_models_and_ends_with_the_server",
    ),
    (
        "Labels at the start",
        "wait for their versions",
        "serving/test_models.py::test_labels_are_applied_by_the_time_their_versions_answer",
    ),
    (
        "Canary by percentage, A/B",
        (
            "labels, and many versions at a time; the shares of traffic belong to a proxy in front."
            " gRPC answers name the version"
        ),
        (
            "serving/test_server_versions.py"
            "::test_no_request_fails_over_twenty_reloads_that_swap_version_and_label"
        ),
    ),
    (
        "A broken or missing model must not stop the others",
        "each is looked after by a thread of its own",
        "conformance/test_idioms.py::test_models_that_cannot_be_loaded_keep_no_port_closed",
    ),
    (
        "A version that is half copied, or fails once",
        "is not loaded yet, and is tried again when its files change",
        "serving/test_lifecycle.py::test_a_folder_that_still_changes_waits",
    ),
    (
        "Rollback must not block",
        "a removed version gives way to the one before",
        (
            "serving/test_lifecycle.py"
            "::test_a_rollback_from_a_broken_version_and_back_again_is_no_livelock"
        ),
    ),
    (
        "Memory that grows with each reload",
        "comes back; [measured](../benchmarks/server_soak.md) over half a million requests, too",
        "serving/test_server_memory.py::test_thirty_cycles_of_load_and_unload_give_all_memory_back",
    ),
    (
        "See, add and remove models over REST",
        (
            "`/readyz` lists them; they change by the polled file, or by gRPC with a deadline. REST"
            " changes nothing"
        ),
        "conformance/test_reload.py::test_a_deadline_ends_the_wait_and_the_set_is_in_force",
    ),
    (
        "Metrics by version and signature, and of states",
        "`mlops_mini_run_requests_total`, `mlops_mini_version_state` and others",
        "conformance/test_metrics.py::test_the_numbers_are_those_of_the_requests",
    ),
    (
        "REST that is fast for arrays",
        (
            "numbers go straight to arrays; bodies may be gzip. Answers aren't compressed, and"
            " protobuf isn't taken over REST: for that there is gRPC"
        ),
        "serving/test_json_fast.py::test_numbers_are_read_as_the_exact_reader_reads_them",
    ),
    (
        "Errors that one can act on",
        "a `hint` beside the original's words",
        "serving/test_rest_api.py::test_what_is_not_there_has_a_hint_at_what_is",
    ),
    (
        "Misspelt flags are hard to find",
        "`did you mean --model_base_path?`",
        "serving/test_config.py::test_an_unknown_argument_that_is_like_a_flag_names_it",
    ),
    (
        "What batches do",
        "metrics of queues, sizes and padding",
        "conformance/test_metrics.py::test_batches_count_their_requests_and_their_padding",
    ),
    (
        "One bad request must not fail its batch",
        "it fails alone",
        "serving/test_batching.py::test_one_bad_request_fails_alone_and_the_batch_is_run_again_once",
    ),
    (
        "TLS",
        "on the gRPC port; over REST, and for the metrics, by a proxy in front",
        (
            "conformance/test_transport.py"
            "::test_with_keys_the_port_speaks_tls_and_may_ask_for_the_clients"
        ),
    ),
    (
        "Versions that have ended stay listed",
        "here too, since scripts read the list; metrics leave them out",
        (
            "serving/test_lifecycle.py"
            "::test_states_are_listed_in_descending_order_and_the_ended_are_kept"
        ),
    ),
    (
        "NaN is no JSON",
        "stands bare, as there: Python's clients read it, strict ones need gRPC",
        "serving/test_json_response.py::test_nan_and_infinity_stand_bare",
    ),
    (
        "A client without TensorFlow and its pins",
        "`mlops_mini.client`",
        "test_client.py::test_the_client_needs_neither_tensorflow_nor_pandas",
    ),
    (
        "gRPC reflection",
        "always on",
        "conformance/test_grpc.py::test_reflection_lists_the_services_and_describes_them",
    ),
)


REQUEST_LOG = """
## The request log

`--request_log_prefix=/logs/m` logs what the model is asked and answers; with several models, their
entries of the configuration file say it, as TensorFlow Serving's LoggingConfig:

```
config {
  name: "m"
  base_path: "/models/m"
  model_platform: "tensorflow"
  logging_config {
    log_collector_config { type: "tfrecord" filename_prefix: "/logs/m" }
    sampling_config { sampling_rate: 0.01 }
  }
}
```

Of all requests that are answered, by either API, that share is logged, chosen at random. The files
are TFRecord files of `tensorflow.serving.PredictionLog`, so TensorFlow Serving's tools read them:
one of up to 1,000 records, renamed to `assets.extra/tf_serving_warmup_requests`, warms a version
up. Requests by REST are logged as gRPC would have had them.

- The answer to a logged request has its id as `x-request-id`, by gRPC in the trailing metadata. It
  is the client's, where the request had one under that name, else ours. With the time to the
  microsecond it stands in two fields of the record that other readers skip: `request_id = 1001` and
  `time_us = 1002` of LogMetadata.
- `--request_log_leave_out_features` logs requests without their inputs, for all models: what was
  answered remains, and an output that repeats an input with it. Such a file can't warm up.
- A file is finished at 256 MiB or after an hour (`--request_log_rotate_bytes`, `_s`), and gets its
  name then: until that it ends in `.unfinished`, as it does for good if the server is killed.
  Records are in the file a twentieth of a second after the answer. Old files are yours to delete.
- No answer waits for the log. If the disk is full, or slower than the requests, records are
  dropped, counted, and one line in the server's log says so; once there is room, it goes on. A
  folder that can't be written ends the start, or refuses the reload.

`mlops_mini.prediction_log` reads a log without TensorFlow, record by record, to the bit; what is
cut off or damaged is skipped with a warning:

```python
from mlops_mini.prediction_log import Reader

for record in Reader(Path("/logs/m")):
    print(record.request_id, record.time_s, record.version, record.inputs, record.outputs)
```

[server_observability](../benchmarks/server_observability.py) measures what it costs, and metrics.

## TF Lite

With `--prefer_tflite_model` a version's `model.tflite` is served, where there is one, else its
SavedModel. The aliases are those of the file's `signature_defs_metadata`; without it, there is one
signature, `serving_default`, with the names of the tensors. Batches may have any size.

## Profile

```python
import tensorflow as tf

tf.profiler.experimental.client.trace("grpc://localhost:8500", "/tmp/trace", 2000)
```

makes the server write where the time of its runs went in these 2 s, for TensorBoard, into a folder
of its own machine. Who may do that is who may change its models. `--enable_profiler=false` switches
it off.
"""


WAITS = """
## Who waits for whom

A request never waits for the load of a model, nor for somebody else's long run or large body;
[server_stalls](../benchmarks/server_stalls.md) measures how long answers take meanwhile. Short runs
are made on the event loop. Which ones are short is learned from the requests: the first twenty of
each signature and version go to threads, and so does an input of a size not seen yet.

What can still hold everybody up for a moment:

- one constant of many megabytes, or one very large function, in a graph that is loaded: TensorFlow
  imports it in one piece. Weights in variables, as Keras exports them, don't;
- text tensors, gRPC messages, and bodies for classify and regress, of many megabytes;
- the first import of TensorFlow, with `--open_ports_early` only.
"""


BATCHES = """
## Requests that are run together

Without any flag, what has come in one turn of the event loop is one run, padded to a power of two,
of up to 64 rows; gRPC calls wait up to 2 ms for each other where several are under way. A request
of more than 8 rows runs alone, so that small ones don't wait for it. This is done only where it
can't change an answer: the first dimension of all inputs and outputs is free, the shapes are the
declared ones, no op that keeps a state is reached, and the first twenty batches of a signature are
also run one by one. Clients get those answers, and one that differs from the batch's by more than
1e-5 means that its requests run alone for good, with a line in the log. `--enable_batching=false`,
given explicitly, runs every request on its own, from the first one.

`--enable_batching` replaces all this by TensorFlow Serving's batches, for Predict on any model,
also one that keeps a state or mixes rows: whoever sets the flag has decided that it may be batched.

```
max_batch_size { value: 64 }              # rows of a request and of a batch: default 1000
batch_timeout_micros { value: 1000 }      # longest wait for more rows: 0
max_enqueued_batches { value: 100 }       # batches that wait, for each signature: 10
num_batch_threads { value: 2 }            # batches that run, of all models: the CPUs
allowed_batch_sizes: 16                   # pad to these; the last one is max_batch_size: none
allowed_batch_sizes: 64
pad_variable_length_inputs: true          # pad inner dimensions, too: false
enable_large_batch_splitting { value: true }   # cut large requests: false
max_execution_batch_size { value: 64 }    # into that many rows: max_batch_size
```

is a file for `--batching_parameters_file`, and, with `--enable_per_model_batching_parameters`,
`batching_params.pbtxt` in a version's folder; a version without it isn't batched, and the threads
stay those of the first file. Waits are kept to the millisecond. A full queue answers UNAVAILABLE
(503). A file that has unknown fields, or numbers that cannot be, ends the start; in a version's
folder it fails the load of that version.

`assets.extra/tf_serving_warmup_requests` is replayed at the load, each record once, and nothing
else is run; what a request would have to wait for, the ways to call the signature, is made then,
too. Whether batches change an answer is still tried on the first twenty real ones.
`mlops_mini.model.training` writes a record for each batch size, 1 to 64, from training rows, and
`publish` takes it along.
"""


def page() -> str:
    """Write the page as text."""
    lines = [
        "# The model server",
        "",
        "`mini-model-server` takes the flags of `tensorflow_model_server` and speaks its protocol.",
        "",
        "<!-- Regenerate: python -m tools.model_server_page -->",
        *(USE.rstrip() + "\n" + REQUEST_LOG.rstrip()).split("\n"),
    ]
    for kind, (title, words) in SECTIONS.items():
        lines += ["", f"## {title}", "", *([words] if words else [])]
        lines += ["| flag | type | default | meaning |", "| --- | --- | --- | --- |"]
        lines += [
            f"| `{f.name}` | {flag_type(f).__name__} | {_shown(f)} | {f.metadata['help']} |"
            for f in dataclasses.fields(ServerConfig)
            if f.metadata["kind"] == kind
        ]
    lines += ["", "## Differences from TensorFlow Serving", ""]
    lines += ["| what | there | here | restored by |", "| --- | --- | --- | --- |"]
    lines += [f"| {' | '.join(row)} |" for row in DIFFERENCES]
    lines += BATCHES.rstrip().split("\n") + MONITORING.rstrip().split("\n")
    lines += ["", "| metric | labels | what |", "| --- | --- | --- |"]
    lines += [f"| `mlops_mini_{name}` | {labels} | {what} |" for name, labels, what in OWN_METRICS]
    lines += MONITORING_LIMITS.rstrip().split("\n")
    lines += [f"| {_family(name)} | {here} | {why} |" for name, here, why in METRICS]
    lines += ["", "## What users ask of TensorFlow Serving", ""]
    lines += ["| what | here | shown by |", "| --- | --- | --- |"]
    lines += [f"| {what} | {here} | `tests/{test}` |" for what, here, test in WISHES]
    lines += ["", "The KServe v2 protocol isn't spoken.", *WAITS.rstrip().split("\n")]
    return "\n".join(lines) + "\n"


def _family(names: str) -> str:
    """Write families as code, with the prefix that all of TensorFlow's have."""
    if " " in names.replace(", ", ""):
        return names
    return ", ".join(f"`:tensorflow:{name}`" for name in names.split(", "))


def _shown(flag: dataclasses.Field[object]) -> str:
    default = flag.default
    text = str(default).lower() if isinstance(default, bool) else str(default)
    return str(flag.metadata.get("shown") or text or "empty")


if __name__ == "__main__":
    PAGE.write_text(page())
