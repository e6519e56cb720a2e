"""What a collection wishes of a server that keeps its vectors"""

import sqlalchemy as sa
from alembic import op

from rag_service.db.tables import Json

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("collections", schema=None) as batch_op:
        batch_op.add_column(sa.Column("storage", Json, server_default="{}", nullable=False))


def downgrade() -> None:
    with op.batch_alter_table("collections", schema=None) as batch_op:
        batch_op.drop_column("storage")
