"""Which versions have their original file kept.

Revision ID: 0003_originals
Revises: 0002_labels
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003_originals"
down_revision = "0002_labels"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add `document_versions.original`."""
    op.add_column("document_versions", sa.Column("original", sa.Boolean(), server_default=sa.false(), nullable=False))


def downgrade() -> None:
    """Take it back."""
    op.drop_column("document_versions", "original")
