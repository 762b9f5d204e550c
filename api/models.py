"""Tables of conversations, messages, citations, feedback, API keys and widget sites."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from rag.store.base import Base, now
from rag.store.models import new_id

PURGED = "（这个回答引用的文档已被彻底清除，内容不再保留。）"
_NO_TEXT = ("answerable", "p_answerable", "model", "generation", "run_id", "timings_ms")
"""Figures of an answer that hold no words of a document."""


class Conversation(Base):
    """A row of questions and answers over one knowledge base, kept for one owner."""

    __tablename__ = "conversations"
    __table_args__ = (Index("ix_conversations_owner_updated", "owner", "updated_at", "id"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    owner: Mapped[str] = mapped_column(String(80))
    """``local``, ``key:<id>`` or ``visitor:<id>``: only the owner (or an admin key) sees it."""
    kb: Mapped[str] = mapped_column(String(64))
    """Slug; the conversation outlives the knowledge base."""
    title: Mapped[str] = mapped_column(String(200), default="")
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)

    messages: Mapped[list[Message]] = relationship(
        back_populates="conversation", cascade="all, delete-orphan", order_by="Message.ordinal"
    )


class Message(Base):
    """A question or an answer. An answer is ``interrupted`` until it is complete, whatever happens."""

    __tablename__ = "messages"
    __table_args__ = (
        UniqueConstraint("conversation_id", "ordinal"),
        CheckConstraint("role IN ('user', 'assistant')", name="role"),
        CheckConstraint("status IN ('complete', 'interrupted')", name="status"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    conversation_id: Mapped[str] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"))
    ordinal: Mapped[int] = mapped_column()
    role: Mapped[str] = mapped_column(String(20))
    status: Mapped[str] = mapped_column(String(20), default="complete")
    content: Mapped[str] = mapped_column(Text)
    """What a person reads; for an answer its ``display``."""
    answer: Mapped[dict[str, Any] | None] = mapped_column(JSON, default=None)
    """The answer's own figures: answer, answerable, reason, model, generation, run_id, timings."""
    created_at: Mapped[datetime] = mapped_column(default=now)

    @classmethod
    def purge_document(cls, session: Session, document_id: str) -> None:
        """Answers that cite a purged document hold its words: what they said goes, what they were stays."""
        citing = select(MessageCitation.message_id).where(MessageCitation.document_id == document_id)
        for message in session.scalars(select(cls).where(cls.id.in_(citing))):
            kept = {name: (message.answer or {}).get(name) for name in _NO_TEXT}
            message.answer = kept | {"answer": PURGED}
            message.content = PURGED

    conversation: Mapped[Conversation] = relationship(back_populates="messages")
    citations: Mapped[list[MessageCitation]] = relationship(
        back_populates="message", cascade="all, delete-orphan", order_by="MessageCitation.id"
    )
    feedback: Mapped[Feedback | None] = relationship(
        back_populates="message", cascade="all, delete-orphan", uselist=False
    )


class MessageCitation(Base):
    """A citation as it was shown. It points at a document *version* and holds its own quote."""

    __tablename__ = "message_citations"

    id: Mapped[int] = mapped_column(primary_key=True)
    message_id: Mapped[str] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"), index=True)
    version_id: Mapped[int | None] = mapped_column(ForeignKey("document_versions.id", ondelete="SET NULL"), index=True)
    document_id: Mapped[str] = mapped_column(String(36), index=True)
    marker: Mapped[int] = mapped_column()
    title: Mapped[str] = mapped_column(String(500))
    path: Mapped[str] = mapped_column(String(1024))
    page: Mapped[int | None] = mapped_column(default=None)
    char_start: Mapped[int] = mapped_column()
    char_end: Mapped[int] = mapped_column()
    quote: Mapped[str] = mapped_column(Text)
    answer_start: Mapped[int] = mapped_column()
    answer_end: Mapped[int] = mapped_column()
    kind: Mapped[str] = mapped_column(String(20))
    score: Mapped[float] = mapped_column()

    @classmethod
    def purge_document(cls, session: Session, document_id: str) -> None:
        """The quote and the title of a purged document go."""
        session.execute(update(cls).where(cls.document_id == document_id).values(quote="", title=""))

    message: Mapped[Message] = relationship(back_populates="citations")


class Feedback(Base):
    """A reader's thumb on one answer."""

    __tablename__ = "feedback"
    __table_args__ = (CheckConstraint("rating IN ('up', 'down')", name="rating"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    message_id: Mapped[str] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"), unique=True)
    rating: Mapped[str] = mapped_column(String(10))
    comment: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime] = mapped_column(default=now)

    message: Mapped[Message] = relationship(back_populates="feedback")


class ApiKey(Base):
    """A key's hash and what it may do. The key itself is shown once and stored nowhere."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(200))
    prefix: Mapped[str] = mapped_column(String(16), unique=True)
    """First characters of the key, to tell keys apart; no secret."""
    sha256: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[list[Any]] = mapped_column(JSON)
    kbs: Mapped[list[Any]] = mapped_column(JSON, default=list)
    """Slugs that it is limited to; empty: all."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None] = mapped_column(default=None)
    last_used_at: Mapped[datetime | None] = mapped_column(default=None)
    revoked_at: Mapped[datetime | None] = mapped_column(default=None)


class WidgetSite(Base):
    """A web page's origin that may hold the chat widget, and the knowledge base that it asks."""

    __tablename__ = "widget_sites"
    __table_args__ = (UniqueConstraint("origin", "kb"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    origin: Mapped[str] = mapped_column(String(300))
    """``scheme://host[:port]``, lower case."""
    kb: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=now)


class Secret(Base):
    """A random value of this installation (signs widget tokens), made on first use."""

    __tablename__ = "secrets"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(String(128))
    created_at: Mapped[datetime] = mapped_column(default=now)
