"""Trains as SageMaker wants it of a container: `docker run IMAGE train`.

Whatever the platform says is in files under one folder, and so is what it gets. Here that's a run
of the pipeline: the tables of the channel `train` are the data, hyperparameters say which period
judges, and the model is the version that the gate has blessed. No version is a failed job.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo.html
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from mlops_mini.errors import FailedPreconditionError, InvalidArgumentError, MlopsMiniError

logger = logging.getLogger(__name__)

_BASE = Path("/opt/ml")
_MAX_FAILURE = 1024  # characters that the platform shows
_TEXTS = ("use_case", "period")
_NUMBERS = ("train_periods", "holdout_days", "seed")


def main() -> int:
    """Train; exit status 0, or 1 with the reason in `output/failure`."""
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    base = Path(os.environ.get("SAGEMAKER_BASE_DIR", _BASE))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a job that's stopped
    failure = ""
    try:
        train(base)
    except MlopsMiniError as exc:
        failure = str(exc)
    except KeyboardInterrupt:
        failure = "the job was stopped before it was done"
    except Exception:  # noqa: BLE001 - whatever it is, the platform must hear of it
        failure = traceback.format_exc()
    if failure:
        logger.error("%s", failure)
        (base / "output").mkdir(parents=True, exist_ok=True)
        (base / "output" / "failure").write_text(failure[-_MAX_FAILURE:])
    return 1 if failure else 0


def train(base: Path) -> Path:
    """Run the pipeline on what the platform has put into a folder.

    Args:
        base: Has `input/config/hyperparameters.json` and `input/data/train`, a data folder. Gets
            `model/NAME/VERSION`, which becomes `model.tar.gz`, and `output/data/verdict.json`.

    Returns:
        The version's folder.

    Raises:
        InvalidArgumentError: A hyperparameter isn't known, or isn't what it should be.
        FailedPreconditionError: There's no data, there are several hosts, or the gate hasn't
            blessed the candidate.
        MlopsMiniError: The pipeline has failed.
    """
    from mlops_mini.pipeline import definition
    from mlops_mini.runner.runner import Runner
    from mlops_mini.use_case import load

    config = base / "input" / "config"
    given = _hyperparameters(_read(config / "hyperparameters.json"))
    hosts = _read(config / "resourceconfig.json").get("hosts", [])
    if len(hosts) > 1:
        raise FailedPreconditionError(
            f"there are {len(hosts)} hosts, and one trains: set InstanceCount to 1"
        )
    data = base / "input" / "data" / "train"
    if not data.is_dir() or not any(data.iterdir()):
        raise FailedPreconditionError("the channel 'train' is empty: it must hold the tables")
    use_case = given.pop("use_case")
    name = load(use_case).name
    with tempfile.TemporaryDirectory() as workspace:
        work = Path(workspace)
        arguments = definition.arguments(
            use_case,
            given.pop("period"),
            models_folder=work / "models" / name,
            verdicts_folder=work / "verdicts",
            data_folder=data,
            with_challenger=False,
            **given,
        )
        with Runner(work / "runs", on_task=_tell) as runner:
            run = runner.run(definition.continuous_training, arguments)
        return hand_over(work, run.id, base)


def hand_over(workspace: Path, run_id: str, base: Path) -> Path:
    """Put what a run has brought where the platform picks it up.

    Args:
        workspace: Has `runs` and `models`.
        run_id: Of the run, which has succeeded.
        base: As for `train`.

    Returns:
        The version's folder in `base`.

    Raises:
        FailedPreconditionError: The run has published no version.
    """
    from mlops_mini.lineage import lineage

    known = lineage.of_run(workspace, run_id)
    measured = known.metrics.get("candidate", {})
    logger.info("candidate auc=%s log_loss=%s", *map(measured.get, ("auc", "log_loss")))
    output = base / "output" / "data"
    output.mkdir(parents=True, exist_ok=True)
    (output / "verdict.json").write_text(json.dumps(known.verdict, indent=2) + "\n")
    if known.folder is None or known.version is None:
        decision, reason = known.verdict.get("decision"), known.verdict.get("reason")
        raise FailedPreconditionError(f"the candidate is {decision}: {reason}")
    target = base / "model" / known.model / str(known.version)
    shutil.copytree(known.folder, target)
    logger.info("version %d of %s is in %s", known.version, known.model, target)
    return target


def _tell(task: Any) -> None:
    logger.info("%s: %s", task.path, task.state)


def _hyperparameters(texts: dict[str, str]) -> dict[str, Any]:
    """Read the texts that all hyperparameters arrive as.

    >>> _hyperparameters({"use_case": "churn:CHURN", "period": "2013-03", "seed": "3"})
    {'use_case': 'churn:CHURN', 'period': '2013-03', 'seed': 3}
    """
    needed = {
        "use_case": "name what is learned, such as churn:CHURN",
        "period": "name the month or week that judges, such as 2013-03",
    }
    for key, advice in needed.items():
        if key not in texts:
            raise InvalidArgumentError(f"the hyperparameter {key!r} is missing: {advice}")
    read: dict[str, Any] = {}
    for key, text in texts.items():
        if key in _TEXTS:
            read[key] = text
        elif key not in _NUMBERS:
            known = ", ".join((*_TEXTS, *_NUMBERS))
            raise InvalidArgumentError(f"there's no hyperparameter {key!r}, only {known}")
        elif not re.fullmatch(r"[0-9]{1,9}", text):
            raise InvalidArgumentError(f"hyperparameter {key}={text!r} is no whole number")
        else:
            read["n_train_periods" if key == "train_periods" else key] = int(text)
    return read


def _read(file: Path) -> dict[str, Any]:
    """Read one of the platform's files; those that it doesn't always write may be missing."""
    try:
        document = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as exc:
        raise InvalidArgumentError(f"{file} holds no JSON: {exc}") from exc
    if not isinstance(document, dict):
        raise InvalidArgumentError(f"{file} holds no JSON object")
    return document


if __name__ == "__main__":
    sys.exit(main())
