"""What requests look like. Unknown fields are ignored everywhere."""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from rag.types import Turn

if TYPE_CHECKING:
    from rag.filters import Filters

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def _storable(text: str) -> str:
    if _UNSTORABLE.search(text):
        raise ValueError("must not contain NUL characters or lone surrogates")
    return text


Text = Annotated[str, AfterValidator(_storable)]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,64}$", description="Name of a knowledge base")]
Limit = Annotated[int, Field(ge=1, le=100)]


class HistoryTurn(BaseModel):
    """One earlier message."""

    role: Literal["user", "assistant"]
    content: Text


def turns(history: list[HistoryTurn]) -> list[Turn]:
    """The history as the answerer takes it."""
    return [Turn(t.role, t.content) for t in history]


class Restricted(BaseModel):
    """Which documents are looked at; what is left out does not restrict."""

    documents: list[Text] = Field(default=[], max_length=1000, description="Only in these documents (ids or paths)")
    path_prefix: Text = ""
    tags: list[Text] = Field(default=[], max_length=100, description="Only in documents with all of these tags")
    meta: dict[Text, str | int | float | bool] = Field(
        default={}, max_length=100, description="Only in documents whose metadata have these values"
    )
    since: date | None = Field(default=None, description="Only in documents of this day or later")
    until: date | None = Field(default=None, description="Only in documents of this day or earlier")

    def filters(self) -> Filters | None:
        """As the retriever takes them; None: no restriction.

        Raises:
            InvalidInput: the days are the wrong way round.
        """
        from rag.filters import Filters

        found = Filters(
            tuple(self.documents), self.path_prefix, tuple(self.tags), dict(self.meta), self.since, self.until
        )
        return found or None


class AskRequest(Restricted):
    """A question."""

    question: Text
    kb: Slug | None = None
    history: list[HistoryTurn] = Field(default=[], max_length=200)
    stream: bool = False
    conversation_id: str | None = None


class SearchRequest(Restricted):
    """A search for passages."""

    question: Text
    kb: Slug | None = None
    k: int = Field(default=10, ge=1, le=100)


class TextRequest(BaseModel):
    """A text, or a stored document by its id."""

    text: Text | None = None
    document_id: str | None = None
    stream: bool = False


class SummaryRequest(TextRequest):
    """A text to summarise."""


class TranslationRequest(TextRequest):
    """A text to translate."""

    direction: Literal["zh-en", "en-zh"] = "zh-en"


class KnowledgeBaseRequest(BaseModel):
    """A new knowledge base."""

    slug: Slug
    name: Text = Field(default="", max_length=200)


class ConversationRequest(BaseModel):
    """A new conversation."""

    kb: Slug | None = None
    title: Text = Field(default="", max_length=200)


class ConversationPatch(BaseModel):
    """A new title."""

    title: Text = Field(max_length=200)


class FeedbackRequest(BaseModel):
    """A thumb on an answer."""

    message_id: str
    rating: Literal["up", "down"]
    comment: Text = Field(default="", max_length=4000)


class WidgetSessionRequest(BaseModel):
    """A widget asks for its token."""

    site: str | None = None
    token: str | None = Field(default=None, max_length=2000)


class SiteRequest(BaseModel):
    """A web origin that may hold the widget."""

    origin: str = Field(max_length=300)
    kb: Slug = "default"


class KeyRequest(BaseModel):
    """A new API key."""

    name: Text = Field(min_length=1, max_length=200)
    scopes: list[str] = ["ask", "ingest"]
    kbs: list[Slug] = []
    expires_days: int | None = Field(default=None, ge=1, le=36_500)


def listing(rows: list[dict[str, Any]], has_more: bool = False) -> dict[str, Any]:
    """A page of a list."""
    return {
        "object": "list",
        "data": rows,
        "first_id": rows[0]["id"] if rows else None,
        "last_id": rows[-1]["id"] if rows else None,
        "has_more": has_more,
    }
