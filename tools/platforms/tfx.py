"""TFX whole, beside a newer libc: a module from our pipeline, eight components, a pushed model.

Two of TFX's parts have wheels for glibc 2.39 and later alone, and none for Python 3.13. So a root
file system is made of Debian 13 with the Python 3.11 of Debian 12, TFX is installed into it from
outside, and what runs there sees nothing of this machine but one folder. It's kept in `.cache`.
"""

import base64
import json
import os
import platform
import shutil
import sys
import sysconfig
import time
from collections import Counter
from pathlib import Path
from typing import Any

from mlops_mini import local_server, workspace
from mlops_mini.errors import FailedPreconditionError, InvalidArgumentError
from mlops_mini.flights import datasets, tables
from mlops_mini.flights.use_case import FLIGHTS
from mlops_mini.pipeline import examples, tfx
from mlops_mini.statistics import mergeable, protos, schemas
from tools import image
from tools.platforms import environments
from tools.platforms.piece import Piece

FOLDER = environments.REPOSITORY / ".cache" / "tfx"
SITE = "opt/tfx"
N_COMPONENTS = 8
# The trap: what one would write without knowing of it. It stands after the module's own `export`.
TRAP = """

def export(model, transform, serve, folder):
    module = tf.Module()
    module.model, module.transform = model, transform
    signature = [tf.TensorSpec([None], tf.string, name="examples")]
    module.serve = tf.function(serve, input_signature=signature)
    tf.saved_model.save(module, folder, signatures={"serving_default": module.serve})
"""
_IN_ROOT = """
for each in proc dev; do mount --rbind /$each "$1/$each"; done
mkdir -p "$1/work"
mount --bind "$2" "$1/work"
root=$1; shift 2
exec chroot "$root" /usr/bin/env -i HOME=/work PATH=/usr/bin:/bin PYTHONPATH=/opt/tfx \
    TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES=-1 LC_ALL=C.UTF-8 python3.11 "$@"
"""
_WHAT: dict[str, Any] = {
    "name": "TFX",
    "notes_tool": "TFX",
    "our_object": "`pipeline.tfx.module`, and our statistics and schema",
    "command": "make platforms ONLY=tfx",
}


def missing_wheels() -> str:
    """Say in one line why nothing of TFX can be installed here; empty if something can."""
    machine = (platform.system(), platform.machine())
    if machine != ("Linux", "x86_64"):
        return f"TFX's wheels are for Linux on x86-64, and this is {' on '.join(machine)}"
    if sys.version_info[:2] != (3, 11):
        return f"its lock is for Python 3.11, and this is {platform.python_version()}"
    return ""


def missing() -> str:
    """Say in one line why the root file system can't be made here; empty if it can."""
    if os.getuid() != 0:
        return "only root can make and enter another root file system"
    for program, package in {
        "mmdebstrap": "mmdebstrap",
        "unshare": "util-linux",
        "c++": "g++",
    }.items():
        if not shutil.which(program):
            return f"there's no {program} here (on Debian: apt-get install {package})"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "this Python's headers aren't here (on Debian: apt-get install python3-dev)"
    return ""


def run(folder: Path) -> Piece:
    """Run TFX's pipeline twice, rightly and into the trap, and serve what it pushed."""
    (folder / "module").mkdir()
    _write_statistics(folder)
    if why := missing_wheels():
        return Piece(state="skipped", reason=why, **_WHAT)
    if why := missing():
        return _lighter(folder, why)
    began = time.monotonic()
    root = _root()
    made_s = time.monotonic() - began
    read = _checked(_in_root(root, folder, "tfdv_reads"))
    n_rows = _write_examples(folder / "data")
    text = tfx.module(FLIGHTS)
    right, right_s = _pipeline(root, folder, "right", text)
    served = _served(folder / "right" / "pushed" / "flights", right["asked"])
    largest = max(abs(a - b) for a, b in zip(served, right["answers"], strict=True))
    environments.require(largest < 1e-5, f"our server answers {largest} off TensorFlow's answers")
    trap, trap_s = _pipeline(root, folder, "trap", text + TRAP)
    refused = _refused(folder / "trap" / "pushed" / "flights", trap["asked"])
    return Piece(
        state="ran",
        facts={
            "TFX, TensorFlow, Keras": ", ".join(right["versions"]),
            "flights": f"{n_rows:,}",
            "components": ", ".join(right["states"]),
            "executions": _counted(right["states"]),
            "AUC by the Evaluator, which blesses it": f"{right['auc']:.3f}",
            "our server's answers to tf.Examples": (
                f"{len(served)}, at most {largest:.0e} from TensorFlow's own"
            ),
            "time of the pipeline": f"{right_s:.0f} s, start included",
            "the trap, `tf.saved_model.save`: executions": _counted(trap["states"]),
            "the trap: AUC by the Evaluator, which blesses it": f"{trap['auc']:.3f}",
            "the trap: our server's answer": refused,
            "the trap: time": f"{trap_s:.0f} s",
            **_read_facts(read),
            "root file system": f"{environments.size_mb(root)}, made or found in {made_s:.0f} s",
        },
        **_WHAT,
    )


def _pipeline(root: Path, folder: Path, export: str, module: str) -> tuple[dict[str, Any], float]:
    """Run TFX's components with a module, and return what was found, and the seconds."""
    (folder / "module" / "flights_tfx.py").write_text(module)
    began = time.monotonic()
    found = _in_root(root, folder, "tfx_pipeline", export)
    states = list(found["states"].values())
    environments.require(
        len(states) == N_COMPONENTS and set(states) <= {"COMPLETE", "CACHED"},
        f"{N_COMPONENTS} components are to be complete or cached: {found['states']}",
    )
    environments.require(found["is_blessed"], f"the Evaluator blesses no model ({export})")
    return found, time.monotonic() - began


def _counted(states: dict[str, str]) -> str:
    """Count the states of executions, such as `8 COMPLETE`."""
    counts = Counter(states.values())
    return ", ".join(f"{n} {state}" for state, n in counts.items())


def _checked(read: dict[str, Any]) -> dict[str, Any]:
    """Fail if TFDV finds what we don't; medians of very many numbers are estimates to both."""
    others = [name for name in read["differing"] if not name.endswith(" median")]
    environments.require(
        not (read["n_anomalies"] or read["n_drifted"] or others),
        f"TFDV finds {read['anomalies']}, {read['n_drifted']} drifted, {others} otherwise",
    )
    return read


def _read_facts(read: dict[str, Any]) -> dict[str, str]:
    return {
        f"TFDV {read['version']}: anomalies of our statistics by our schema": str(
            read["n_anomalies"]
        ),
        "TFDV: anomalies of February against January": str(read["n_drifted"]),
        "TFDV's own statistics that differ from ours beyond 6 decimals": (
            f"{len(read['differing'])} of {read['n_compared']} ({', '.join(read['differing'])})"
        ),
    }


def _lighter(folder: Path, why: str) -> Piece:
    """Have our files read by an older TFDV, which any libc can run."""
    environment = environments.made("tfdv")
    read = _checked(environments.ask(environment, "tfdv_reads", folder))
    facts = _read_facts(read)
    read_here = "; ".join(f"{what}: {value}" for what, value in facts.items())
    return Piece(state="skipped", reason=f"{why}. In its place, {read_here}", facts=facts, **_WHAT)


def _root() -> Path:
    """Make the root file system, or find the one that was made of the same lock."""
    lock = environments.REPOSITORY / "environments" / "tfx.txt"
    root, stamp = FOLDER / "root", FOLDER / "lock.txt"
    if stamp.exists() and stamp.read_text() == lock.read_text():
        return root
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    mirror = image.mirror()
    sources = [f"deb {mirror} {suite} main" for suite in ("trixie", "bookworm")]
    included = "--include=python3.11/bookworm,libstdc++6"
    command = ["mmdebstrap", "--quiet", "--variant=essential", included, "trixie", str(root)]
    environments.run([*command, *sources])
    environments.run(
        [
            str(environments.made("uv") / "bin" / "uv"), "pip", "install", "--quiet", "--no-deps",
            "--python", sys.executable, "--python-platform", "x86_64-manylinux_2_40",
            "--target", str(root / SITE), "--requirements", str(lock),
        ]
    )  # fmt: skip
    stamp.write_text(lock.read_text())
    return root


def _in_root(root: Path, folder: Path, script: str, *arguments: str) -> dict[str, Any]:
    """Run one of our scripts in the root file system, and return what it found out."""
    shutil.copy(environments.INSIDE / f"{script}.py", folder)
    command = ["unshare", "--mount", "--propagation=private", "sh", "-ec", _IN_ROOT, "sh"]
    environments.run([*command, str(root), str(folder), f"/work/{script}.py", "/work", *arguments])
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


def _write_statistics(folder: Path) -> None:
    """Write our statistics of two months and our schema, and the first month for TFDV to count."""
    shutil.copy(tables.FLIGHTS.schema, folder / "schema.pbtxt")
    schema = schemas.read(tables.FLIGHTS.schema)
    for month in ("2013-01", "2013-02"):
        rows = datasets.flights(month)
        counted = mergeable.add(mergeable.create(), rows)
        message = protos.to_proto(counted, name=month, schema=schema)
        (folder / f"{month}.pb").write_bytes(message.SerializeToString())
        rows.to_csv(folder / f"{month}.csv", index=False)


def _write_examples(folder: Path) -> int:
    """Write January's examples as our pipeline trains on them, CSV."""
    folder.mkdir()
    january = tables.CALENDAR.period("2013-01")
    read = examples.read(FLIGHTS, [january], data_folder=workspace.existing_data_folder(None))
    features, labels = read.periods[0].labeled()
    features.assign(**{FLIGHTS.label.column: labels.astype(int)}).to_csv(
        folder / "flights.csv", index=False
    )
    return len(features)


def _served(pushed: Path, asked: list[str]) -> list[float]:
    """Ask a server of ours for the probabilities of serialized `tf.Example`s, in base64."""
    with local_server.LocalServer(pushed, pushed.parent / "server") as server:
        server.wait_until_served(max(int(version.name) for version in pushed.iterdir()))
        with server.client("rest") as client:
            examples = [base64.b64decode(each) for each in asked]
            answer = client.predict({"examples": examples})
    return [float(each) for each in answer["probability"]]


def _refused(pushed: Path, asked: list[str]) -> str:
    """Say why a server of ours doesn't answer from what was pushed."""
    try:
        _served(pushed, asked)
    except InvalidArgumentError as exc:
        # Which variable is missed first may be another one next time.
        return f"refused: {str(exc).partition(' dense')[0]}"
    raise FailedPreconditionError(f"{pushed} is the trap, and our server answers from it")
