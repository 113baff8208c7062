"""Published versions in MLflow's registry, to browse and for other tools.

What serves is decided by files: a version's folder, and the record of champions beside it. The
registry follows them: `reconcile` makes it agree, whatever was killed or deleted, and so it can be
removed at any time and is written anew. MLflow is imported where it's used, without its telemetry.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from mlops_mini import files
from mlops_mini.errors import (
    DataIntegrityError,
    FailedPreconditionError,
    UnavailableError,
)
from mlops_mini.model import champions, publish
from mlops_mini.model.publish import Publication, PublishedVersion

_SQLITE = "sqlite:///"
_RUN_TAG = "pipeline_run"
_FILE = "registry.sqlite"

logger = logging.getLogger(__name__)


def uri_beside(model_folder: Path) -> str:
    """Tell the registry of all models whose folders lie side by side, there or not.

    >>> uri_beside(Path("/srv/models/churn"))
    'sqlite:////srv/models/registry.sqlite'
    """
    return f"{_SQLITE}{model_folder.parent / _FILE}"


def publish_and_register(
    export_folder: Path, model_folder: Path, *, publication: Publication, uri: str = ""
) -> PublishedVersion:
    """Publish a model as `publish.publish` does, make it the champion, and register it.

    It is safe to do again for the same run, whatever was killed in between. A registry that can't
    be opened is an error before anything is published.

    Args:
        export_folder: A SavedModel.
        model_folder: Folder of the model's versions; its name is the model's in the registry.
        publication: Where the model comes from.
        uri: MLflow's address of the registry, empty for none.

    Returns:
        The version that this run has published, or that makes another superfluous.

    Raises:
        UnavailableError: The registry is locked by another process.
        FailedPreconditionError: The registry was made by another version of MLflow.
        DataIntegrityError: The registry's file holds something else.
    """
    registry = Registry(uri) if uri else None
    reconcile(model_folder, registry=registry)
    version = publish.publish(export_folder, model_folder, publication=publication)
    reconcile(model_folder, registry=registry)
    return version


def reconcile(model_folder: Path, *, registry: Registry | None) -> list[str]:
    """Make files and registry agree.

    Args:
        model_folder: Folder of the model's versions; it need not exist yet.
        registry: The registry, None if there is none.

    Returns:
        What was mended, a sentence each; nothing when it's called again.
    """
    mended = []
    if publish.remove_unfinished(model_folder):
        mended.append("removed the unfinished copy of a killed publisher")
    for move in champions.reconcile(model_folder):
        why = f", for {move.reason}" if move.reason else ""
        mended.append(f"version {move.version} is the champion now{why}")
    if registry and publish.published_versions(model_folder):
        mended += registry.follow(model_folder)
    return mended


class Registry:
    """A registry of MLflow, on SQLite or wherever MLflow finds it."""

    def __init__(self, uri: str, *, timeout_s: float = 30.0) -> None:
        """Open a registry; one on SQLite is made if it's not there, whole or not at all.

        Args:
            uri: MLflow's address, such as `sqlite:////srv/models/registry.sqlite`.
            timeout_s: Seconds to wait for another process that holds its lock.

        Raises:
            UnavailableError: It is locked by another process.
            FailedPreconditionError: It was made by another version of MLflow, or is half-made.
            DataIntegrityError: The file holds something else.
        """
        self._uri = uri
        self._client: Any
        if not uri.startswith(_SQLITE):
            self._client = _open(uri)
            return
        file = Path(uri.removeprefix(_SQLITE))
        file.parent.mkdir(parents=True, exist_ok=True)
        with files.locked(file.with_suffix(".lock")):
            if not file.exists():
                with files.whole_file(file) as unfinished:
                    _open(f"{_SQLITE}{unfinished}")
        self._check(file, timeout_s)
        with _explained(uri):
            self._client = _open(f"{uri}?timeout={timeout_s:g}")

    def follow(self, model_folder: Path) -> list[str]:
        """Register what is published and not there yet, and move aliases to where they belong.

        Args:
            model_folder: Folder of the model's versions; its name is the model's.

        Returns:
            What has changed, a sentence each.
        """
        name = model_folder.name
        # One process at a time, or two would register the same version.
        with files.locked(model_folder / ".registry.lock"), _explained(self._uri):
            known = self._model(name)
            changed = []
            for each in publish.published_versions(model_folder):
                publication = Publication.read(each.path)
                if publication and each.version not in known:
                    known[each.version] = self._register(name, each, publication)
                    changed.append(f"registered version {each.version}")
            present = {each.version for each in publish.published_versions(model_folder)}
            for version, entry in known.items():
                if version not in present and "deleted" not in entry.tags:
                    self._client.set_model_version_tag(name, entry.version, "deleted", "true")
                    changed.append(f"noted that the folder of version {version} is gone")
            return changed + self._move_aliases(name, model_folder, known)

    def tag(self, model: str, version: int, key: str, value: str) -> None:
        """Say something of a version, by its number in the model's folder."""
        with _explained(self._uri):
            self._client.set_model_version_tag(
                model, self._model(model)[version].version, key, value
            )

    def run_of(self, model: str, pipeline_run: str, *, began: str = "") -> str:
        """Find MLflow's run for a run of the pipeline, made if it's not there.

        Args:
            model: The model's name; its runs are one experiment.
            pipeline_run: Id of the pipeline's run.
            began: When it began, ISO 8601; now if empty.

        Returns:
            MLflow's own id of the run.
        """
        with _explained(self._uri):
            experiment = self._experiment(model)
            runs = self._client.search_runs([experiment], f"tags.{_RUN_TAG} = '{pipeline_run}'")
            if runs:
                return str(runs[0].info.run_id)
            tags = {_RUN_TAG: pipeline_run}
            began_ms = int(datetime.fromisoformat(began).timestamp() * 1000) if began else None
            made = self._client.create_run(
                experiment, start_time=began_ms, run_name=pipeline_run, tags=tags
            )
            return str(made.info.run_id)

    @property
    def client(self) -> Any:
        """MLflow's own client, for what this class doesn't do."""
        return self._client

    def _check(self, file: Path, timeout_s: float) -> None:
        """Look at the file first, for MLflow tries again for minutes whatever is wrong."""
        try:
            with closing(sqlite3.connect(file, timeout=timeout_s)) as connection:
                connection.execute("begin immediate")
                connection.rollback()
                connection.execute("select version_num from alembic_version").fetchall()
        except sqlite3.DatabaseError as exc:
            raise _as_ours(self._uri, exc) from exc

    def _model(self, name: str) -> dict[int, Any]:
        """Read a model's registered versions by their number in its folder; make the model."""
        if not self._client.search_registered_models(f"name = '{name}'"):
            self._client.create_registered_model(name)
        entries = self._client.search_model_versions(f"name = '{name}'")
        return {
            int(entry.tags["serving_version"]): entry
            for entry in entries
            if "serving_version" in entry.tags
        }

    def _experiment(self, name: str) -> str:
        if found := self._client.get_experiment_by_name(name):
            return str(found.experiment_id)
        where = None
        if self._uri.startswith(_SQLITE):
            folder = Path(self._uri.removeprefix(_SQLITE)).parent / ".mlflow" / name
            where = folder.as_uri()
        return str(self._client.create_experiment(name, artifact_location=where))

    def _register(self, name: str, version: PublishedVersion, publication: Publication) -> Any:
        tags = {
            "serving_version": str(version.version),
            "model_digest": publication.model_digest,
            "data_digest": publication.data_digest,
            "train_periods": ", ".join(publication.train_periods),
            "test_period": publication.test_period,
            _RUN_TAG: publication.run_id,
        }
        if publication.approved_by:
            tags["approved_by"] = publication.approved_by
        return self._client.create_model_version(
            name,
            source=str(version.path),
            run_id=self.run_of(name, publication.run_id, began=publication.began),
            tags=tags,
            description=f"folder {version.version} of {version.path.parent}",
        )

    def _move_aliases(self, name: str, model_folder: Path, known: dict[int, Any]) -> list[str]:
        changed = []
        wanted = champions.aliases(model_folder)
        aliases = self._client.get_registered_model(name).aliases
        for alias in ("champion", "challenger"):
            entry = known.get(wanted.get(alias, -1))
            target = str(entry.version) if entry else None
            current = str(aliases[alias]) if alias in aliases else None
            if target == current:
                continue
            if target is None:
                self._client.delete_registered_model_alias(name, alias)
                changed.append(f"nothing is the {alias}")
            else:
                self._client.set_registered_model_alias(name, alias, target)
                changed.append(f"alias {alias} is at version {wanted[alias]}")
        since: dict[int, list[str]] = {}
        for move in champions.moves(model_folder):
            since.setdefault(move.version, []).append(f"{move.at} {move.kind}")
        for version, entry in known.items():
            text = json.dumps(since.get(version, []))
            if version in since and entry.tags.get("champion_since") != text:
                self._client.set_model_version_tag(name, entry.version, "champion_since", text)
                changed.append(f"noted since when version {version} is or was the champion")
        return changed


def _open(uri: str) -> Any:
    # Without it, MLflow looks for a host on the internet as soon as it's imported.
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turn what MLflow raises into an error of ours."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError) as exc:
        raise _as_ours(uri, exc) from exc


def _as_ours(uri: str, exc: Exception) -> Exception:
    reason = str(exc).partition("\n")[0]
    anew = "remove it, and `mlops-mini reconcile` writes it anew from the versions' folders"
    if "locked" in reason:
        return UnavailableError(
            f"the registry {uri} is locked by another process ({reason}): end that, or try again"
        )
    if "not a database" in reason or "malformed" in reason:
        return DataIntegrityError(f"the registry {uri} is damaged ({reason}): {anew}")
    return FailedPreconditionError(
        f"the registry {uri} is half-made, or another version of MLflow has made it ({reason}):"
        f" {anew}"
    )
