"""A second opinion on who may read what was returned: from the documents' own rows, by none of the ways of a search.

A search compares tokens in the index, and confirms by tokens in a table. This reads neither: team and ACL of each
document are taken from where they are declared, and compared by the rule itself.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, select

from rag_service.access import AccessScope, may_read
from rag_service.db.documents import document_of, tokens
from rag_service.db.tables import documents


@dataclass(frozen=True, slots=True)
class Breaches:
    """Ids of documents that the scope was shown and should not have been: of another team (or none), of its own."""

    foreign: frozenset[str]
    unreadable: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.foreign or self.unreadable)


def breaches(connection: Connection, document_ids: Collection[str], scope: AccessScope) -> Breaches:
    """Which of these documents `scope` may not read at this moment. One that there is not is nobody's, so foreign."""
    wanted = frozenset(document_ids)
    rows = list(connection.execute(select(documents).where(documents.c.id.in_(sorted(wanted)))))
    own = [document_of(row) for row in rows if row.team_id == scope.team]
    unreadable = {
        document.id
        for document in own
        if document.is_deleted or not may_read(scope, document.team_id, tokens(connection, document))
    }
    return Breaches(wanted - {document.id for document in own}, frozenset(unreadable))
