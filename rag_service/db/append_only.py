"""Triggers that keep the audit log append-only, whoever speaks to the database.

They stop mistakes and stolen credentials of the service. The owner of the database can drop them: what is changed
then, the chain of hashes shows.
"""

from __future__ import annotations

_WHY = "the audit log is append-only"

_SQLITE = [
    f"CREATE TRIGGER audit_log_no_{verb} BEFORE {verb.upper()} ON audit_log BEGIN SELECT RAISE(ABORT, '{_WHY}'); END"
    for verb in ("update", "delete")
]
_SQLITE += [
    # INSERT OR REPLACE deletes without asking the trigger for DELETE.
    "CREATE TRIGGER audit_log_no_replace BEFORE INSERT ON audit_log "
    f"WHEN EXISTS (SELECT 1 FROM audit_log WHERE seq = NEW.seq) BEGIN SELECT RAISE(ABORT, '{_WHY}'); END",
    f"CREATE TRIGGER audit_head_no_delete BEFORE DELETE ON audit_head BEGIN SELECT RAISE(ABORT, '{_WHY}'); END",
    "CREATE TRIGGER audit_head_forward BEFORE UPDATE ON audit_head WHEN NEW.seq <= OLD.seq OR NEW.id <> OLD.id "
    f"BEGIN SELECT RAISE(ABORT, '{_WHY}'); END",
]

_POSTGRES = [
    "CREATE FUNCTION audit_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
    f"$$ BEGIN RAISE EXCEPTION '{_WHY}'; END $$",
    "CREATE TRIGGER audit_log_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log "
    "FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only()",
    "CREATE TRIGGER audit_head_no_delete BEFORE DELETE OR TRUNCATE ON audit_head "
    "FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only()",
    "CREATE TRIGGER audit_head_forward BEFORE UPDATE ON audit_head FOR EACH ROW "
    "WHEN (NEW.seq <= OLD.seq OR NEW.id <> OLD.id) EXECUTE FUNCTION audit_log_is_append_only()",
]


def triggers(dialect: str) -> list[str]:
    """The statements that make them, for `sqlite` or `postgresql`."""
    return _SQLITE if dialect == "sqlite" else _POSTGRES
