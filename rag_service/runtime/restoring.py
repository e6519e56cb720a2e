"""Restoring a service that does not run from a backup."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from rag_service.backup import exchange
from rag_service.backup.manifest import Manifest
from rag_service.backup.restore import Restore, checked
from rag_service.backup.take import Progress
from rag_service.db import snapshot
from rag_service.errors import ConfigError, Conflict
from rag_service.runtime import Runtime, build
from rag_service.runtime.secret_keys import check_keys
from rag_service.settings import Settings


def restore(settings: Settings, backup: Path, progress: Progress, *, force: bool = False) -> Manifest:
    """Fill the service of these settings from `backup`, all of which is verified before anything is touched.

    A data folder is replaced as a whole at the very end. With `force` it may hold another service's data, which is
    then gone. Servers (Postgres, Qdrant, S3) must be empty: their rows come last, in one transaction.
    Raises BackupDamaged, InvalidRequest, Conflict when the target is not empty, ConfigError when a process uses it.
    """
    progress("verify", 0, None)
    found = checked(backup)
    with closing(build(settings)) as target:
        target.lock_folder()
        if _lives_in_its_folder(target):
            _restore_folder(target, backup, found, progress, force=force)
        else:
            _restore_servers(target, backup, found, progress)
    return found


def keys_lacking(settings: Settings) -> str | None:
    """What a start would say of keys that the service of these settings does not have for what it holds."""
    with closing(build(settings)) as restored:
        try:
            check_keys(restored.database, restored.credentials.vault)
        except ConfigError as error:
            return error.message
    return None


def _lives_in_its_folder(target: Runtime) -> bool:
    return target.keeps_to_itself and not target.database.is_shared and target.settings.blobs_url is None


def _restore_folder(target: Runtime, backup: Path, found: Manifest, progress: Progress, *, force: bool) -> None:
    data_dir = target.settings.data_dir
    if not (force or exchange.is_empty(data_dir)):
        raise Conflict(
            f"The data folder {data_dir} holds a service's data. Choose an empty RAG_DATA_DIR, "
            "or replace what is there with --force.",
            code="not_empty",
        )
    aside = exchange.begin(data_dir)
    with closing(build(target.settings.model_copy(update={"data_dir": aside}))) as staged:
        Restore(staged.database, staged.blobs, staged.vectors, aside).run(backup, found, progress)
    with snapshot.opened(aside / exchange.DATABASE):
        pass  # its log is merged into it: one file is moved
    progress("replace", 0, None)
    exchange.commit(data_dir)


def _restore_servers(target: Runtime, backup: Path, found: Manifest, progress: Progress) -> None:
    Restore(target.database, target.blobs, target.vectors, target.settings.data_dir).run(backup, found, progress)
