"""Query sets"""

import sqlalchemy as sa
from alembic import op

from rag_service.db.tables import Json, UtcDateTime

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "query_sets",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("team_id", sa.String(length=80), nullable=False),
        sa.Column("collection_id", sa.String(length=80), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("query_count", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("updated_at", UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_query_sets")),
        sa.UniqueConstraint("team_id", "name", name=op.f("uq_query_sets_team_id_name")),
    )
    with op.batch_alter_table("query_sets", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_query_sets_collection_id"), ["collection_id"], unique=False)
    op.create_table(
        "labelled_queries",
        sa.Column("set_id", sa.String(length=80), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(length=200), nullable=False),
        sa.Column("query", sa.Text(), nullable=False),
        sa.Column("expected", Json, nullable=False),
        sa.Column("expect_nothing", sa.Boolean(), nullable=False),
        sa.Column("as_user", Json, nullable=True),
        sa.Column("filter", Json, nullable=True),
        sa.Column("min_score", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("set_id", "position", name=op.f("pk_labelled_queries")),
        sa.UniqueConstraint("set_id", "id", name=op.f("uq_labelled_queries_set_id_id")),
    )


def downgrade() -> None:
    op.drop_table("labelled_queries")
    with op.batch_alter_table("query_sets", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_query_sets_collection_id"))

    op.drop_table("query_sets")
