"""Probes, fingerprints of models, and what answers are like"""

import sqlalchemy as sa
from alembic import op

from rag_service.db.tables import Json, UtcDateTime

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "alarms",
        sa.Column("subject", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=30), nullable=False),
        sa.Column("collection_id", sa.String(length=80), nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("detail", Json, nullable=False),
        sa.Column("since", UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("subject", name=op.f("pk_alarms")),
    )
    op.create_index(op.f("ix_alarms_collection_id"), "alarms", ["collection_id"], unique=False)
    op.create_table(
        "answer_counts",
        sa.Column("index_version", sa.String(length=80), nullable=False),
        sa.Column("hour", UtcDateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("answers", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("index_version", "hour", "outcome", name=op.f("pk_answer_counts")),
    )
    op.create_index(op.f("ix_answer_counts_hour"), "answer_counts", ["hour"], unique=False)
    op.create_table(
        "fingerprints",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("model", sa.String(length=300), nullable=False),
        sa.Column("revision", sa.String(length=100), nullable=False),
        sa.Column("dimensions", sa.Integer(), nullable=False),
        sa.Column("computation", sa.String(length=80), nullable=False),
        sa.Column("texts", sa.String(length=64), nullable=False),
        sa.Column("vectors", sa.LargeBinary(), nullable=False),
        sa.Column("at", UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_fingerprints")),
        sa.UniqueConstraint(
            "model",
            "revision",
            "dimensions",
            "computation",
            "texts",
            name=op.f("uq_fingerprints_model_revision_dimensions_computation_texts"),
        ),
    )
    op.create_table(
        "probe_runs",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("probe_id", sa.String(length=80), nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("recall", sa.Float(), nullable=True),
        sa.Column("hits", Json, nullable=False),
        sa.Column("failures", Json, nullable=False),
        sa.Column("took_ms", sa.Float(), nullable=False),
        sa.Column("newest_at", UtcDateTime(timezone=True), nullable=True),
        sa.Column("at", UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_probe_runs")),
    )
    op.create_index(op.f("ix_probe_runs_probe_id_id"), "probe_runs", ["probe_id", "id"], unique=False)
    op.create_table(
        "probes",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("team_id", sa.String(length=80), nullable=False),
        sa.Column("collection_id", sa.String(length=80), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("question", Json, nullable=False),
        sa.Column("expect", Json, nullable=False),
        sa.Column("every_s", sa.Integer(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("since", UtcDateTime(timezone=True), nullable=False),
        sa.Column("job_id", sa.String(length=80), nullable=True),
        sa.Column("last_run", sa.String(length=80), nullable=True),
        sa.Column("next_run_at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("created_at", UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_probes")),
        sa.UniqueConstraint("team_id", "name", name=op.f("uq_probes_team_id_name")),
    )
    op.create_index(op.f("ix_probes_collection_id"), "probes", ["collection_id"], unique=False)
    op.create_index(op.f("ix_probes_next_run_at"), "probes", ["next_run_at"], unique=False)
    op.create_index(op.f("ix_probes_team_id_id"), "probes", ["team_id", "id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("probes", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_probes_team_id_id"))
        batch_op.drop_index(batch_op.f("ix_probes_next_run_at"))
        batch_op.drop_index(batch_op.f("ix_probes_collection_id"))

    op.drop_table("probes")
    with op.batch_alter_table("probe_runs", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_probe_runs_probe_id_id"))

    op.drop_table("probe_runs")
    op.drop_table("fingerprints")
    with op.batch_alter_table("answer_counts", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_answer_counts_hour"))

    op.drop_table("answer_counts")
    with op.batch_alter_table("alarms", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_alarms_collection_id"))

    op.drop_table("alarms")
