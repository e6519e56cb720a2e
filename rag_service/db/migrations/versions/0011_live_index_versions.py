"""A collection has several index versions"""

import sqlalchemy as sa
from alembic import op

from rag_service.db.tables import Json, UtcDateTime

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_MOVED = ("term_count", "calibration")
_COPY = """
INSERT INTO indexed_documents (index_version, document_id, version, content_hash, text_key, parser, chunk_count,
                               term_count, calibration, searchable_at)
SELECT index_version, id, indexed_version, indexed_hash, text_key, parser, chunk_count, term_count, calibration,
       searchable_at
FROM documents WHERE indexed_version IS NOT NULL AND index_version IS NOT NULL AND deleted_at IS NULL
"""
_OWNED = """
UPDATE chunks SET index_version = coalesce(
    (SELECT documents.index_version FROM documents WHERE documents.id = chunks.document_id), '')
"""


def upgrade() -> None:
    op.create_table(
        "indexed_documents",
        sa.Column("index_version", sa.String(length=80), nullable=False),
        sa.Column("document_id", sa.String(length=80), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("content_hash", sa.String(length=64), nullable=True),
        sa.Column("text_key", sa.String(length=200), nullable=True),
        sa.Column("outline", Json, nullable=True),
        sa.Column("parser", sa.String(length=100), nullable=False),
        sa.Column("chunk_count", sa.Integer(), nullable=False),
        sa.Column("term_count", sa.Integer(), nullable=False),
        sa.Column("calibration", sa.Integer(), nullable=False),
        sa.Column("searchable_at", UtcDateTime(timezone=True), nullable=True),
        sa.Column("error", Json, nullable=True),
        sa.PrimaryKeyConstraint("index_version", "document_id", name=op.f("pk_indexed_documents")),
    )
    op.execute(_COPY)
    with op.batch_alter_table("indexed_documents", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_indexed_documents_document_id"), ["document_id"], unique=False)
    with op.batch_alter_table("chunks", schema=None) as batch_op:
        batch_op.add_column(sa.Column("index_version", sa.String(length=80), nullable=False, server_default=""))
        batch_op.create_index(
            batch_op.f("ix_chunks_index_version_text_hash"), ["index_version", "text_hash"], unique=False
        )
    op.execute(_OWNED)
    with op.batch_alter_table("documents", schema=None) as batch_op:
        for name in _MOVED:
            batch_op.drop_column(name)
    with op.batch_alter_table("index_versions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("number", sa.Integer(), nullable=False, server_default="1"))
        batch_op.add_column(sa.Column("pipeline", Json, nullable=False, server_default="{}"))
        batch_op.add_column(sa.Column("note", sa.Text(), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("paused", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch_op.add_column(sa.Column("priority", sa.String(length=20), nullable=False, server_default="normal"))
        batch_op.add_column(sa.Column("max_concurrency", sa.Integer(), nullable=False, server_default="1"))
        batch_op.add_column(sa.Column("progress", Json, nullable=False, server_default="{}"))
        batch_op.add_column(sa.Column("quality", Json, nullable=True))
        batch_op.add_column(sa.Column("error", Json, nullable=True))
        for name in ("holding_until", "built_at", "activated_at", "retire_at", "retired_at"):
            batch_op.add_column(sa.Column(name, UtcDateTime(timezone=True), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("index_versions", schema=None) as batch_op:
        for name in (
            *("retired_at", "retire_at", "activated_at", "built_at", "holding_until", "error", "quality", "progress"),
            *("max_concurrency", "priority", "paused", "note", "pipeline", "number"),
        ):
            batch_op.drop_column(name)
    with op.batch_alter_table("documents", schema=None) as batch_op:
        for name in _MOVED:
            batch_op.add_column(sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
    for name in _MOVED:
        op.execute(
            f"UPDATE documents SET {name} = coalesce((SELECT {name} FROM indexed_documents"  # noqa: S608 -- two names
            " WHERE document_id = documents.id AND indexed_documents.index_version = documents.index_version), 0)"
        )
    op.execute(
        "DELETE FROM chunks WHERE index_version <> (SELECT documents.index_version FROM documents"
        " WHERE documents.id = chunks.document_id)"
    )
    with op.batch_alter_table("chunks", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_chunks_index_version_text_hash"))
        batch_op.drop_column("index_version")
    op.drop_table("indexed_documents")
