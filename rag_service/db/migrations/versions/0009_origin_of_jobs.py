"""Jobs name the request they follow from; jobs and documents are counted by index"""

import sqlalchemy as sa
from alembic import op

from rag_service.db.tables import Json

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("origin", Json, nullable=False, server_default="{}"))
        batch_op.create_index(
            batch_op.f("ix_jobs_state_kind_created_at"), ["state", "kind", "created_at"], unique=False
        )
    with op.batch_alter_table("documents", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_documents_status"), ["status"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("documents", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_documents_status"))
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_jobs_state_kind_created_at"))
        batch_op.drop_column("origin")
