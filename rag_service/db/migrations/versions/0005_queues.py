"""Jobs wait in queues, and know whether they were rung for"""

import sqlalchemy as sa
from alembic import op

from rag_service.db.tables import IS_OUT, IS_WAITING

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("queue", sa.String(length=20), nullable=False, server_default="maintenance"))
    op.execute("UPDATE jobs SET queue = 'syncs' WHERE kind = 'sync'")
    op.execute("UPDATE jobs SET queue = 'uploads' WHERE kind IN ('index', 'refresh') AND parent_id IS NULL")
    op.execute("UPDATE jobs SET queue = 'bulk' WHERE kind IN ('index', 'refresh') AND parent_id IS NOT NULL")
    op.create_index("ix_jobs_out", "jobs", ["team_id", "queue"], sqlite_where=IS_OUT, postgresql_where=IS_OUT)
    op.create_index(
        "ix_jobs_waiting",
        "jobs",
        ["team_id", "queue", "worker_deaths", "run_after", "id"],
        sqlite_where=IS_WAITING,
        postgresql_where=IS_WAITING,
    )
    op.create_table(
        "installation",
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_installation")),
    )


def downgrade() -> None:
    op.drop_table("installation")
    op.drop_index("ix_jobs_waiting", "jobs")
    op.drop_index("ix_jobs_out", "jobs")
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_column("queue")
