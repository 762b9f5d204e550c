"""E-mail messages with their attachments, as far as those can be read."""

from __future__ import annotations

import email
import email.policy
import re
from contextlib import suppress
from email.message import MIMEPart

from ingest.canonical import Draft
from ingest.errors import SourceError
from ingest.formats.encoding import declared_charset, decode

_HEADERS = (("from", "发件人"), ("to", "收件人"), ("cc", "抄送"), ("date", "日期"))
MAX_DEPTH = 3
_HEADER = re.compile(
    rb"\A(?:[!-~]+:.*(?:\r?\n[ \t].*)*\r?\n)+|^content-[a-z-]+:.*(?:\r?\n[ \t].*)*", re.IGNORECASE | re.MULTILINE
)
"""The message's header lines, and those of its parts."""


def parse(data: bytes, name: str, depth: int = 0) -> Draft:
    """Subject as the title, the headers that people read, the body (plain text before HTML), attachments."""
    message = email.message_from_bytes(_HEADER.sub(_as_utf8, data), policy=email.policy.default)
    draft = Draft("message/rfc822")
    draft.title = str(message.get("subject") or "")
    if draft.title:
        draft.heading(draft.title, 1)
    for key, label in _HEADERS:
        if value := str(message.get(key) or "").strip():
            draft.text(f"{label}：{value}")
    body = message.get_body(("plain", "html"))
    if body is not None:
        _body(body, draft)
    for attachment in message.iter_attachments():
        _attachment(attachment, draft, depth)
    return draft


def _as_utf8(header: re.Match[bytes]) -> bytes:
    """Header lines that hold bare GBK, as many Chinese programs write them, in the encoding that is read."""
    raw = header[0]
    if raw.isascii():
        return raw
    with suppress(SourceError):
        return decode(raw).text.encode()
    return raw


def _body(part: MIMEPart, draft: Draft) -> None:
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return
    text = decode(data, part.get_content_charset() or declared_charset(data)).text
    if part.get_content_subtype() == "html":
        from selectolax.lexbor import LexborHTMLParser

        from ingest.formats.html import walk_body

        walk_body(LexborHTMLParser(text), draft)
    else:
        draft.text(text)


def _attachment(part: MIMEPart, draft: Draft, depth: int) -> None:
    """The attachment's own blocks under a heading; what cannot be read is only named."""
    from ingest.formats import draft_of

    name = part.get_filename() or ""
    data = part.get_payload(decode=True)
    if part.get_content_type() == "message/rfc822" and depth < MAX_DEPTH:
        inner = part.get_content()
        name = name or f"{inner.get('subject') or 'message'}.eml"
        data = inner.as_bytes()
    if not isinstance(data, bytes):
        return
    try:
        inner_draft = parse(data, name, depth + 1) if name.endswith(".eml") else draft_of(data, name)
    except SourceError as error:
        draft.fidelity.setdefault("attachments_without_text", []).append(f"{name}: {error}")
        return
    draft.heading(f"附件：{name}", 2)
    for kind, text, level, header in inner_draft.blocks:
        draft.blocks.append((kind, text.replace("\f", "\n"), min(level + 2, 6) if level else 0, header))
