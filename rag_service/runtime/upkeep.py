"""What an administrator asks of the service as a whole: backups, and comparing its stores with each other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rag_service.backup.operations import Operations
from rag_service.backup.take import Backup, Progress
from rag_service.db.operations import Operation, OperationKind
from rag_service.errors import Conflict, InvalidRequest
from rag_service.ingest.doorbell import Doorbell
from rag_service.ingest.intake import Intake
from rag_service.ingest.reconcile import Reconciler
from rag_service.ingest.removal import Removal
from rag_service.ingest.repair import Repair
from rag_service.settings import Settings
from rag_service.types import utc_now

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Upkeep:
    """`folder` is where the service itself writes backups. All raise Conflict while another of their kind runs."""

    folder: Path
    operations: Operations
    backup: Backup
    reconciler: Reconciler

    def start_backup(self, name: str | None = None) -> Operation:
        """Begin a backup in `folder`, in a thread. Raises InvalidRequest for a name that could leave it, Conflict."""
        name = name or utc_now().strftime("%Y-%m-%dT%H%M%SZ")
        if not _NAME.fullmatch(name):
            raise InvalidRequest(
                "A backup's name has up to 100 letters, digits, '.', '_' and '-'.", code="invalid_name"
            )
        target = self.folder / name
        if target.exists():
            raise Conflict(f"There is a backup {name!r} already. Choose another name.", code="backup_exists")
        return self.operations.start(OperationKind.BACKUP, lambda progress: self._take(target, progress))

    def take_backup(self, target: Path) -> Operation:
        """Take a backup to `target` in this thread, and return how it ended."""
        return self.operations.run(OperationKind.BACKUP, lambda progress: self._take(target, progress))

    def start_reconcile(self, *, mend: bool) -> Operation:
        return self.operations.start(OperationKind.RECONCILE, lambda progress: self.reconciler.run(progress, mend=mend))

    def reconcile(self, *, mend: bool) -> Operation:
        """Compare, in this thread, and return how it ended."""
        return self.operations.run(OperationKind.RECONCILE, lambda progress: self.reconciler.run(progress, mend=mend))

    def close(self) -> None:
        self.operations.close()

    def _take(self, target: Path, progress: Progress) -> Mapping[str, Any]:
        made = asdict(self.backup.take(target, progress))
        told = ("created_at", "service", "schema", "models", "counts", "missing", "secret_keys")
        size = sum(file["bytes"] for file in made["files"].values())
        return {"path": str(target.absolute()), "bytes": size, **{name: made[name] for name in told}}


def make_upkeep(settings: Settings, stores: Backup, intake: Intake, removal: Removal, doorbell: Doorbell) -> Upkeep:
    database, blobs, vectors = stores.database, stores.blobs, stores.vectors
    return Upkeep(
        folder=(settings.backup_dir or settings.data_dir / "backups").absolute(),
        operations=Operations(database),
        backup=stores,
        reconciler=Reconciler(database, blobs, vectors, Repair(database, blobs, vectors, intake, removal, doorbell)),
    )
