"""Tags, metadata and dates to filter by; near-duplicates; what jobs need to try again.

Revision ID: 0002_labels
Revises: 0001_initial
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0002_labels"
down_revision = "0001_initial"
branch_labels = None
depends_on = None

# Columns are added without batch mode: copying a table on SQLite would drop it, and with it, by cascade,
# the rows that point to it.


def upgrade() -> None:
    """Make it so."""
    op.create_table(
        "document_tags",
        sa.Column("document_id", sa.String(length=36), nullable=False),
        sa.Column("tag", sa.String(length=100), nullable=False),
        sa.ForeignKeyConstraint(
            ["document_id"], ["documents.id"], name=op.f("fk_document_tags_document_id_documents"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("document_id", "tag", name=op.f("pk_document_tags")),
    )
    op.create_index(op.f("ix_document_tags_tag"), "document_tags", ["tag"])
    op.create_table(
        "document_fields",
        sa.Column("document_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("value", sa.String(length=500), nullable=False),
        sa.Column("number", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["document_id"], ["documents.id"], name=op.f("fk_document_fields_document_id_documents"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("document_id", "name", "value", name=op.f("pk_document_fields")),
    )
    op.create_index("ix_document_fields_name_value", "document_fields", ["name", "value"])
    op.create_index("ix_document_fields_name_number", "document_fields", ["name", "number"])
    op.create_table(
        "signature_bands",
        sa.Column("kb_id", sa.Integer(), nullable=False),
        sa.Column("band", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("value", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["kb_id"], ["knowledge_bases.id"], name=op.f("fk_signature_bands_kb_id_knowledge_bases"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["document_versions.id"],
            name=op.f("fk_signature_bands_version_id_document_versions"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("kb_id", "band", "value", "version_id", name=op.f("pk_signature_bands")),
    )
    op.create_index(op.f("ix_signature_bands_version_id"), "signature_bands", ["version_id"])
    op.create_table(
        "near_duplicates",
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("other_id", sa.Integer(), nullable=False),
        sa.Column("similarity", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["document_versions.id"],
            name=op.f("fk_near_duplicates_version_id_document_versions"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["other_id"],
            ["document_versions.id"],
            name=op.f("fk_near_duplicates_other_id_document_versions"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("version_id", "other_id", name=op.f("pk_near_duplicates")),
    )
    op.create_index(op.f("ix_near_duplicates_other_id"), "near_duplicates", ["other_id"])

    op.add_column("documents", sa.Column("dated", sa.Date(), nullable=True))
    op.add_column("documents", sa.Column("root", sa.String(length=16), server_default="", nullable=False))
    op.create_index(op.f("ix_documents_dated"), "documents", ["dated"])
    op.add_column("document_versions", sa.Column("title", sa.String(length=500), server_default="", nullable=False))
    op.add_column("document_versions", sa.Column("sidecar_sha256", sa.String(length=64), nullable=True))
    op.add_column("document_versions", sa.Column("signature", sa.LargeBinary(), nullable=True))
    op.add_column("jobs", sa.Column("deleted", sa.JSON(), server_default="[]", nullable=False))
    op.add_column("job_items", sa.Column("retry_at", sa.DateTime(), nullable=True))
    op.create_index("ix_job_items_job_state", "job_items", ["job_id", "state"])
    _carry_over()


def _carry_over() -> None:
    """Labels that are in JSON already become rows; the root of a document leaves its metadata."""
    connection = op.get_bind()
    documents = sa.table(
        "documents",
        *(sa.column(name) for name in ("id", "title", "root")),
        sa.column("tags", sa.JSON()),
        sa.column("meta", sa.JSON()),
    )
    versions = sa.table("document_versions", sa.column("document_id"), sa.column("title"))
    title = sa.select(documents.c.title).where(documents.c.id == versions.c.document_id).scalar_subquery()
    connection.execute(sa.update(versions).values(title=title))
    tags = sa.table("document_tags", sa.column("document_id"), sa.column("tag"))
    fields = sa.table("document_fields", *(sa.column(name) for name in ("document_id", "name", "value", "number")))
    for row in connection.execute(sa.select(documents.c.id, documents.c.tags, documents.c.meta)).all():
        meta = dict(row.meta or {})
        root = str(meta.pop("root", ""))
        change = sa.update(documents).where(documents.c.id == row.id)
        connection.execute(change.values(root=root, meta=meta))
        for tag in {str(tag)[:100] for tag in row.tags or ()}:
            connection.execute(sa.insert(tags).values(document_id=row.id, tag=tag))
        for name, value in {str(name)[:100]: value for name, value in meta.items()}.items():
            number = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            connection.execute(sa.insert(fields).values(document_id=row.id, name=name, value=text[:500], number=number))


def downgrade() -> None:
    """Take it back."""
    op.drop_index("ix_job_items_job_state", table_name="job_items")
    op.drop_column("job_items", "retry_at")
    op.drop_column("jobs", "deleted")
    for column in ("signature", "sidecar_sha256", "title"):
        op.drop_column("document_versions", column)
    op.drop_index(op.f("ix_documents_dated"), table_name="documents")
    for column in ("root", "dated"):
        op.drop_column("documents", column)
    for table in ("near_duplicates", "signature_bands", "document_fields", "document_tags"):
        op.drop_table(table)
