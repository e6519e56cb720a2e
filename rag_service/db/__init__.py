"""The metadata database: tables, and one file of functions per noun."""

from sqlalchemy import Connection

import rag_service.db.idempotency
import rag_service.db.judged
import rag_service.db.outside
import rag_service.db.watched  # noqa: F401 - whoever has the metadata has all its tables
from rag_service.db.engine import Database, Transaction

__all__ = ["Connection", "Database", "Transaction"]
