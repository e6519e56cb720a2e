"""The metadata database: tables, and one file of functions per noun."""

from sqlalchemy import Connection

from rag_service.db.engine import Database, Transaction

__all__ = ["Connection", "Database", "Transaction"]
