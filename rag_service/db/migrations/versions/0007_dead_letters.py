"""Jobs remember how they failed, and those that gave up are dead letters"""

import sqlalchemy as sa
from alembic import op

from rag_service.db.tables import Json

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_ADDED = ("failures", "history", "retried", "letter", "worker", "former_worker")


def upgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("failures", Json, nullable=False, server_default="{}"))
        batch_op.add_column(sa.Column("history", Json, nullable=False, server_default="[]"))
        batch_op.add_column(sa.Column("retried", Json, nullable=False, server_default="[]"))
        batch_op.add_column(sa.Column("letter", sa.String(length=20), nullable=True))
        batch_op.add_column(sa.Column("worker", sa.String(length=200), nullable=True))
        batch_op.add_column(sa.Column("former_worker", sa.String(length=200), nullable=True))
        batch_op.create_index(batch_op.f("ix_jobs_letter"), ["letter"], unique=False)
    op.execute("UPDATE jobs SET letter = 'open' WHERE state = 'failed'")


def downgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_jobs_letter"))
        for name in _ADDED:
            batch_op.drop_column(name)
