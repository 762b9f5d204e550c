"""E-mail messages with their attachments, as far as those can be read."""

from __future__ import annotations

import email
import email.policy
import mimetypes
import re
import tempfile
from contextlib import suppress
from email.message import EmailMessage, MIMEPart
from pathlib import Path, PurePosixPath

from ingest.canonical import Draft
from ingest.errors import EmptyFile, SourceError
from ingest.formats.encoding import declared_charset, decode

MEDIA_TYPE = "message/rfc822"
_HEADERS = (("from", "发件人"), ("to", "收件人"), ("cc", "抄送"), ("date", "日期"))
MAX_DEPTH = 3
"""Messages within messages, however they are attached."""
MAX_NOTES = 200
_HEADER = re.compile(
    rb"\A(?:[!-~]+:.*(?:\r?\n[ \t].*)*\r?\n)+|^content-[a-z-]+:.*(?:\r?\n[ \t].*)*", re.IGNORECASE | re.MULTILINE
)
"""The message's header lines, and those of its parts."""


def parse(data: bytes, name: str, depth: int = 0) -> Draft:
    """Subject as the title, the headers that people read, the body, attachments.

    Every part is text in the draft or a line of its fidelity report; of alternatives that say the
    same, the plainest is read.
    """
    message = email.message_from_bytes(_HEADER.sub(_as_utf8, data), policy=email.policy.default)
    return _message(message, depth)


def _message(message: EmailMessage, depth: int) -> Draft:
    if depth > MAX_DEPTH:
        raise SourceError(f"messages within messages are read {MAX_DEPTH} deep; save it as a file of its own")
    draft = Draft(MEDIA_TYPE)
    draft.title = str(message.get("subject") or "")
    if draft.title:
        draft.heading(draft.title, 1)
    for key, label in _HEADERS:
        if value := str(message.get(key) or "").strip():
            draft.text(f"{label}：{value}")
    attached: list[MIMEPart] = []
    _body(message, draft, attached)
    for part in attached:
        _attachment(part, draft, depth)
    return draft


def _as_utf8(header: re.Match[bytes]) -> bytes:
    """Header lines that hold bare GBK, as many Chinese programs write them, in the encoding that is read."""
    raw = header[0]
    if raw.isascii():
        return raw
    with suppress(SourceError):
        return decode(raw).text.encode()
    return raw


def _note(draft: Draft, line: str) -> None:
    """Reports what gives no text; beyond `MAX_NOTES` lines (a packed tree of sources, say) it is only counted."""
    lines = draft.fidelity.setdefault("attachments_without_text", [])
    if len(lines) < MAX_NOTES:
        lines.append(line)
    else:
        draft.fidelity["more_without_text"] = draft.fidelity.get("more_without_text", 0) + 1


# -- the body --------------------------------------------------------------------------------------


def _body(part: MIMEPart, draft: Draft, attached: list[MIMEPart]) -> None:
    """Appends the texts of a part in their order; what is no text of the body goes to ``attached``."""
    from ingest.formats import supported

    kind = part.get_content_maintype()
    if kind == "multipart" and part.is_multipart():
        if part.get_content_subtype() == "alternative":
            _alternatives(part, draft, attached)
        else:
            for inner in part.iter_parts():
                _body(inner, draft, attached)
    elif kind == "multipart" or (  # without the boundary that it speaks of: one text
        part.get_content_type() in ("text/plain", "text/html")
        and not part.is_attachment()
        and not supported(part.get_filename() or "")
    ):
        _text(part, draft)
    else:
        attached.append(part)


def _alternatives(part: MIMEPart, draft: Draft, attached: list[MIMEPart]) -> None:
    """The first (plainest) one that says at least half of what the longest says: some are blank, or only
    ask for another program."""
    found: list[tuple[int, str, Draft]] = []
    for inner in part.iter_parts():
        own = Draft(draft.media_type, fidelity=draft.fidelity)
        _body(inner, own, attached)
        if size := sum(len("".join(text.split())) for _, text, *_ in own.blocks):
            found.append((size, inner.get_content_type(), own))
    if not found:
        return
    longest = max(size for size, *_ in found)
    taken = next(one for one in found if one[0] * 2 >= longest)
    draft.blocks.extend(taken[2].blocks)
    for size, kind, _ in (one for one in found if one is not taken):
        line = f"{kind}: {size} characters; {taken[1]} was read instead ({taken[0]})"
        draft.fidelity.setdefault("alternatives_left_out", []).append(line)


def _text(part: MIMEPart, draft: Draft) -> None:
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes) or not data.strip():
        return
    try:
        text = decode(data, part.get_content_charset() or declared_charset(data)).text
    except SourceError as error:
        _note(draft, f"{part.get_content_type()}: {error}")
        return
    if part.get_content_subtype() == "html":
        from selectolax.lexbor import LexborHTMLParser

        from ingest.formats.html import walk_body

        walk_body(LexborHTMLParser(text), draft)
    else:
        draft.text(text)


# -- attachments -----------------------------------------------------------------------------------


def _attachment(part: MIMEPart, draft: Draft, depth: int) -> None:
    name = (part.get_filename() or "").strip()
    data = part.get_payload(decode=True)
    if part.get_content_type() in ("message/rfc822", "message/global") and part.is_multipart():
        for inner in part.iter_parts():
            _append(name or f"{inner.get('subject') or 'message'}.eml", inner, draft, depth)
    elif isinstance(data, bytes):
        if not PurePosixPath(name).suffix:
            name = (name or "未命名") + (mimetypes.guess_extension(part.get_content_type()) or "")
        _append(name, data, draft, depth)
    else:
        _note(draft, f"{name or part.get_content_type()}: this kind of part is not read")


def _append(name: str, source: bytes | MIMEPart, draft: Draft, depth: int) -> None:
    """A file's or message's own blocks under a heading; what cannot be read is only named."""
    from ingest.archives import SEPARATOR, is_archive
    from ingest.formats import draft_of

    try:
        if not isinstance(source, bytes):
            inner = _message(source, depth + 1)  # type: ignore[arg-type]
        elif is_archive(name):
            _append_archive(name, source, draft, depth)
            return
        elif name.lower().endswith(".eml"):
            inner = parse(source, name, depth + 1)
        else:
            inner = draft_of(source, name)
        for line in inner.fidelity.pop("attachments_without_text", ()):
            _note(draft, f"{name}{SEPARATOR}{line}")
        if inner.fidelity:
            draft.fidelity.setdefault("attachments", []).append({"name": name, **inner.fidelity})
        if not any(text.strip() for _, text, *_ in inner.blocks):
            raise EmptyFile("the file holds no text")
    except SourceError as error:
        _note(draft, f"{name}: {error}")
        return
    draft.heading(f"附件：{name}", 2)
    for kind, text, level, header in inner.blocks:
        draft.blocks.append((kind, text.replace("\f", "\n"), min(level + 2, 6) if level else 0, header))


def _append_archive(name: str, data: bytes, draft: Draft, depth: int) -> None:
    """Each file of an archive as if it were attached itself, within the limits of archives."""
    from ingest import archives

    suffix = next(suffix for suffix in archives.SUFFIXES if name.lower().endswith(suffix))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file = Path(folder, f"x{suffix}")
        file.write_bytes(data)
        for member in archives.members(file):
            path = f"{name}{archives.SEPARATOR}{member.path}"
            try:
                if member.error:
                    raise SourceError(member.error)
                _append(path, archives.read(file, member.key), draft, depth)
            except SourceError as error:
                _note(draft, f"{path}: {error}")
