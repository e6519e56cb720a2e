"""Where the keys come from that credentials are kept under: the settings, or a file made once in the data folder."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from rag_service.db import Database, sealed
from rag_service.settings import Settings
from rag_service.vault import Vault, missing, new_key, parse_keys


@dataclass(frozen=True)
class KeyFile:
    """Keys, one a line, the newest first, readable by their owner only."""

    path: Path

    def load(self) -> list[bytes]:
        """No keys where there is no file. Raises ConfigError."""
        return parse_keys(self.path.read_text()) if self.path.exists() else []

    def make(self) -> list[bytes]:
        """One new key, unless somebody else was first."""
        fresh = self._written([new_key()])
        try:
            os.link(fresh, self.path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
        return self.load()

    def add(self) -> None:
        """Put a new key before those there are."""
        self._written([new_key(), *self._lines()]).replace(self.path)

    def keep_newest(self) -> None:
        self._written(self._lines()[:1]).replace(self.path)

    def _lines(self) -> list[str]:
        return self.path.read_text().split() if self.path.exists() else []

    def _written(self, lines: list[str]) -> Path:
        """Complete under another name, then moved by the caller: a crash leaves the keys of before or those of now."""
        fresh = self.path.with_name(f"{self.path.name}.{secrets.token_hex(4)}")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.writelines(f"{line}\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        return fresh


def key_file(settings: Settings) -> KeyFile | None:
    """The file of keys; None where RAG_SECRET_KEYS gives them."""
    return KeyFile(settings.data_dir / "secret.key") if settings.secret_keys is None else None


def make_vault(settings: Settings, *, alone: bool) -> Vault:
    """`alone`: one process holds everything. Several machines must be told their keys: none makes one for itself."""
    if settings.secret_keys is not None:
        given = settings.secret_keys.get_secret_value()
        return Vault(lambda: parse_keys(given))
    file = KeyFile(settings.data_dir / "secret.key")
    return Vault(file.load, file.make) if alone else Vault(file.load)


def check_keys(database: Database, vault: Vault) -> None:
    """Raises ConfigError when something is stored that is encrypted under a key that is not here."""
    with database.read() as connection:
        used = sealed.key_ids(connection)
    if lacking := {what: lacks for what, keys in used.items() if (lacks := vault.lacks(keys))}:
        raise missing(lacking)
