"""Chunk sizes that a knowledge base keeps to.

Revision ID: 0004_chunking
Revises: 0003_originals
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004_chunking"
down_revision = "0003_originals"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add `knowledge_bases.chunking`."""
    op.add_column("knowledge_bases", sa.Column("chunking", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    """Take it back."""
    op.drop_column("knowledge_bases", "chunking")
