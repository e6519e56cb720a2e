"""How a collection's questions are answered"""

import sqlalchemy as sa
from alembic import op

from rag_service.db.tables import Json

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("collections", schema=None) as batch_op:
        batch_op.add_column(sa.Column("retrieval", Json, nullable=False, server_default="{}"))


def downgrade() -> None:
    with op.batch_alter_table("collections", schema=None) as batch_op:
        batch_op.drop_column("retrieval")
