"""Lexical vectors know how they were encoded"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ADDED = {
    "index_versions": ("calibration", "chunks_written", "calibrate_at"),
    "documents": ("term_count", "calibration"),
}


def upgrade() -> None:
    for table, names in _ADDED.items():
        with op.batch_alter_table(table, schema=None) as batch_op:
            for name in names:
                batch_op.add_column(sa.Column(name, sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    for table, names in _ADDED.items():
        with op.batch_alter_table(table, schema=None) as batch_op:
            for name in names:
                batch_op.drop_column(name)
