"""Alembic's entry: migrate over the connection that Database.migrate hands over."""

from alembic import context

from rag_service.db.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
