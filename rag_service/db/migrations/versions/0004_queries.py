"""Traces of queries"""

import sqlalchemy as sa
from alembic import op

from rag_service.db.tables import Json, UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "queries",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("team_id", sa.String(length=80), nullable=False),
        sa.Column("key_id", sa.String(length=80), nullable=True),
        sa.Column("key_name", sa.String(length=200), nullable=False),
        sa.Column("as_user", Json, nullable=True),
        sa.Column("query", sa.Text(), nullable=True),
        sa.Column("request", Json, nullable=False),
        sa.Column("plan", Json, nullable=False),
        sa.Column("hits", Json, nullable=False),
        sa.Column("usage", Json, nullable=False),
        sa.Column("degraded", Json, nullable=False),
        sa.Column("at", UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_queries")),
    )
    with op.batch_alter_table("queries", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_queries_at"), ["at"], unique=False)
        batch_op.create_index(batch_op.f("ix_queries_team_id_id"), ["team_id", "id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("queries", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_queries_team_id_id"))
        batch_op.drop_index(batch_op.f("ix_queries_at"))

    op.drop_table("queries")
