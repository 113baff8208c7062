"""Writes docs/model-server.md: the model server's flags, and where it differs from the original.

The flags, their defaults and meanings come from the code; a test compares page and code.

Example: python -m tools.model_server_page
"""

import dataclasses
from pathlib import Path

from mlops_mini.serving.config import ServerConfig

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


def page() -> str:
    """Write the page as text."""
    lines = [
        "# The model server",
        "",
        "`mini-model-server` takes the flags of `tensorflow_model_server` and speaks its protocol.",
        "",
        "<!-- Regenerate: python -m tools.model_server_page -->",
        *USE.rstrip().split("\n"),
    ]
    for kind, (title, words) in SECTIONS.items():
        lines += ["", f"## {title}", "", *([words] if words else [])]
        lines += ["| flag | type | default | meaning |", "| --- | --- | --- | --- |"]
        lines += [
            f"| `{f.name}` | {type(f.default).__name__} | {_shown(f)} | {f.metadata['help']} |"
            for f in dataclasses.fields(ServerConfig)
            if f.metadata["kind"] == kind
        ]
    lines += ["", "## Differences from TensorFlow Serving", ""]
    lines += ["| what | there | here | restored by |", "| --- | --- | --- | --- |"]
    lines += [f"| {' | '.join(row)} |" for row in DIFFERENCES]
    lines += WAITS.rstrip().split("\n")
    return "\n".join(lines) + "\n"


def _shown(flag: dataclasses.Field[object]) -> str:
    default = flag.default
    text = str(default).lower() if isinstance(default, bool) else str(default)
    return str(flag.metadata.get("shown") or text or "empty")


if __name__ == "__main__":
    PAGE.write_text(page())
