"""The chunks of one document in one index version are found by both"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("chunks", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_chunks_document_id_ordinal"))
        batch_op.create_index(
            batch_op.f("ix_chunks_document_id_index_version_ordinal"),
            ["document_id", "index_version", "ordinal"],
            unique=False,
        )


def downgrade() -> None:
    with op.batch_alter_table("chunks", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_chunks_document_id_index_version_ordinal"))
        batch_op.create_index(batch_op.f("ix_chunks_document_id_ordinal"), ["document_id", "ordinal"], unique=False)
