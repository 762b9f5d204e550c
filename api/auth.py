"""Who asks and what they may do: API keys, widget visitors, and the user of this machine.

Keys are 256 random bits, so a plain SHA-256 of them is as good as any slow hash. Widget tokens are
signed, short-lived, and bound to a page's origin and one knowledge base.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api.errors import Forbidden, Unauthorized
from api.models import ApiKey, Secret, WidgetSite
from api.origins import normal_origin
from rag.errors import InvalidInput, NotFound
from rag.store.base import now

SCOPES = ("ask", "ingest", "admin")
"""``ask``: questions, search, reading documents, conversations of its own. ``ingest``: uploads,
deletions, knowledge bases. ``admin``: both, keys, sites and everyone's conversations."""
KEY_PREFIX = "cg-"
TOKEN_PREFIX = "cgw-"
TOKEN_SECONDS = 3600
RENEW_SECONDS = 30 * 24 * 3600
_LAST_USED_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Principal:
    """The party behind a request. ``kbs`` empty means every knowledge base."""

    owner: str
    scopes: frozenset[str]
    kbs: tuple[str, ...] = ()

    @property
    def visitor(self) -> bool:
        """Whether it is a reader of a web page, not a key's holder."""
        return self.owner.startswith("visitor:")

    @property
    def admin(self) -> bool:
        """Whether it may do everything."""
        return "admin" in self.scopes

    def require(self, scope: str) -> None:
        """Raises Forbidden without the scope."""
        if not self.admin and scope not in self.scopes:
            raise Forbidden(f"This key lacks the scope «{scope}».")

    def kb(self, asked: str | None) -> str:
        """The knowledge base to use; raises Forbidden for one that is not open to this party."""
        slug = asked or ("default" if not self.kbs or "default" in self.kbs else self.kbs[0])
        if not self.sees(slug):
            raise Forbidden(f"This key is not for the knowledge base «{slug}».")
        return slug

    def sees(self, slug: str) -> bool:
        """Whether a knowledge base is open to this party."""
        return not self.kbs or slug in self.kbs


LOCAL = Principal("local", frozenset(SCOPES))
"""The user of this machine while there are no keys."""


def create_key(
    session: Session,
    name: str,
    scopes: Sequence[str] = ("ask", "ingest"),
    kbs: Sequence[str] = (),
    expires_days: int | None = None,
) -> tuple[ApiKey, str]:
    """A new key: its row, and the key itself, which is shown once.

    Raises:
        InvalidInput: an unknown scope, or an expiry in the past.
    """
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise InvalidInput(f"Scopes are {', '.join(SCOPES)}; not {', '.join(unknown) or 'none'}.")
    if expires_days is not None and not 1 <= expires_days <= 36_500:
        raise InvalidInput("A key can expire in 1 to 36500 days.")
    secret = KEY_PREFIX + secrets.token_hex(4) + "-" + secrets.token_urlsafe(32)
    key = ApiKey(
        name=name,
        prefix=secret[:11],
        sha256=_digest(secret),
        scopes=sorted(set(scopes)),
        kbs=sorted(set(kbs)),
        expires_at=now() + timedelta(days=expires_days) if expires_days else None,
    )
    session.add(key)
    session.flush()
    return key, secret


def list_keys(session: Session) -> list[ApiKey]:
    """All keys, newest first, revoked ones too."""
    return list(session.scalars(select(ApiKey).order_by(ApiKey.created_at.desc(), ApiKey.id)))


def revoke_key(session: Session, ident: str) -> ApiKey:
    """Ends a key, named by id or prefix. Raises NotFound."""
    key = session.scalar(select(ApiKey).where((ApiKey.id == ident) | (ApiKey.prefix == ident)))
    if key is None:
        raise NotFound(f"There is no key «{ident}». `chatgglm keys list` shows them all.")
    if key.revoked_at is None:
        key.revoked_at = now()
    return key


def keys_exist(session: Session) -> bool:
    """Whether keys guard the server: any that is not revoked, expired ones too (expiry opens nothing)."""
    return bool(session.scalar(select(func.count()).where(ApiKey.revoked_at.is_(None))))


def usable_key_exists(session: Session) -> bool:
    """Whether some key opens the server today."""
    usable = (ApiKey.revoked_at.is_(None)) & (ApiKey.expires_at.is_(None) | (ApiKey.expires_at > now()))
    return bool(session.scalar(select(func.count()).where(usable)))


def key_to_dict(key: ApiKey) -> dict[str, Any]:
    """A key as the CLI and the API show it, without its hash."""
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "scopes": key.scopes,
        "kbs": key.kbs,
        "created_at": iso(key.created_at),
        "expires_at": iso(key.expires_at),
        "last_used_at": iso(key.last_used_at),
        "revoked_at": iso(key.revoked_at),
    }


def authenticate(
    session: Session, authorization: str, origin: str = "", local: bool = False, foreign: bool = False
) -> Principal:
    """The party behind a request.

    ``authorization`` is the header (may be empty), ``origin`` the page's (may be empty), ``local``
    whether the request comes from this machine, ``foreign`` whether from another site's page: such a
    page never speaks for the user of this machine.

    Raises:
        Unauthorized: a key is needed and there is none, or it is not valid.
    """
    scheme, _, token = authorization.partition(" ")
    token = token.strip() if scheme.lower() == "bearer" else ""
    keyless = not keys_exist(session)
    if token.startswith(TOKEN_PREFIX):
        visitor = _visitor(session, token, origin)
        if visitor is None and keyless and local and not foreign:
            return LOCAL
        if visitor is None:
            raise Unauthorized("The widget's token is not valid here, or has expired. Ask for a new one.")
        return visitor
    if keyless:
        if local and not foreign:
            return LOCAL
        if foreign:
            raise Unauthorized("The widget needs a token: POST /v1/widget/sessions.")
        raise Unauthorized("This server needs an API key. Make one on it with: chatgglm keys create NAME")
    if not token:
        raise Unauthorized("Send an API key: Authorization: Bearer KEY.")
    key = session.scalar(select(ApiKey).where(ApiKey.prefix == token[:11]))
    if key is None or not hmac.compare_digest(key.sha256, _digest(token)):
        raise Unauthorized("That API key is not known here.")
    if key.revoked_at is not None:
        raise Unauthorized("That API key has been revoked.")
    if key.expires_at is not None and key.expires_at <= now():
        raise Unauthorized("That API key has expired.")
    if key.last_used_at is None or now() - key.last_used_at > _LAST_USED_EVERY:
        key.last_used_at = now()
    return Principal(f"key:{key.id}", frozenset(key.scopes), tuple(key.kbs))


def add_site(session: Session, origin: str, kb: str) -> WidgetSite:
    """Registers a web origin for the widget; the same one twice is one site.

    Raises:
        InvalidInput: not an origin.
    """
    normal = normal_origin(origin)
    parts = origin.strip().rstrip("/").lower()
    if not normal or normal_origin(parts) != normal or "/" in parts.split("://", 1)[-1]:
        raise InvalidInput(f"«{origin}» is not a web origin. It looks like https://www.example.com")
    site = session.scalar(select(WidgetSite).where(WidgetSite.origin == normal, WidgetSite.kb == kb))
    if site is None:
        site = WidgetSite(origin=normal, kb=kb)
        session.add(site)
        session.flush()
    return site


def list_sites(session: Session) -> list[WidgetSite]:
    """All registered sites."""
    return list(session.scalars(select(WidgetSite).order_by(WidgetSite.origin, WidgetSite.kb)))


def remove_site(session: Session, ident: str) -> None:
    """Takes a site, named by id or origin, off the list. Raises NotFound."""
    found = list(
        session.scalars(
            select(WidgetSite).where((WidgetSite.id == ident) | (WidgetSite.origin == normal_origin(ident)))
        )
    )
    if not found:
        raise NotFound(f"There is no site «{ident}». `chatgglm sites list` shows them all.")
    for site in found:
        session.delete(site)


def site_to_dict(site: WidgetSite) -> dict[str, Any]:
    """A site as the CLI and the API show it."""
    return {"id": site.id, "origin": site.origin, "kb": site.kb, "created_at": iso(site.created_at)}


def open_widget_session(
    session: Session, origin: str, same_origin: bool, local: bool, site_id: str | None, old_token: str | None
) -> dict[str, Any]:
    """A token for the widget on a page of ``origin``.

    Raises:
        Forbidden: the page's origin is not registered.
    """
    normal = normal_origin(origin)
    query = select(WidgetSite).where(WidgetSite.origin == normal)
    if site_id:
        query = query.where(WidgetSite.id == site_id)
    site = session.scalar(query.order_by(WidgetSite.created_at).limit(1)) if normal else None
    if site is None and (site_id or not (same_origin and local)):
        raise Forbidden(
            f"The page {normal or '(no origin)'} is not registered for the widget. "
            "Register it with: chatgglm sites add ORIGIN --kb NAME"
        )
    kb = site.kb if site else "default"
    old = _claims(session, old_token, RENEW_SECONDS) if old_token else None
    visitor = old["v"] if old and old["o"] == normal else uuid.uuid4().hex
    claims = {
        "v": visitor,
        "o": normal,
        "k": kb,
        "s": site.id if site else "",
        "e": int(time.time()) + TOKEN_SECONDS,
    }
    return {"token": _sign(session, claims), "expires_in": TOKEN_SECONDS, "kb": kb, "visitor": visitor}


def iso(moment: datetime | None) -> str | None:
    """A stored moment as ISO 8601 in UTC."""
    return None if moment is None else moment.isoformat() + "Z"


def _visitor(session: Session, token: str, origin: str) -> Principal | None:
    """The visitor that a token speaks for; None if it is forged, expired, another page's, or its site is gone."""
    claims = _claims(session, token, 0)
    if claims is None or (claims["s"] and session.get(WidgetSite, claims["s"]) is None):
        return None
    if origin and normal_origin(origin) != claims["o"]:
        return None
    return Principal(f"visitor:{claims['v']}", frozenset({"ask"}), (claims["k"],))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _signing_key(session: Session) -> bytes:
    row = session.get(Secret, "widget")
    if row is None:
        try:
            with session.begin_nested():
                row = Secret(name="widget", value=secrets.token_hex(32))
                session.add(row)
        except IntegrityError:  # another process was first
            row = session.get_one(Secret, "widget")
    return bytes.fromhex(row.value)


def _sign(session: Session, claims: dict[str, Any]) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    mac = hmac.digest(_signing_key(session), body.encode(), "sha256").hex()
    return f"{TOKEN_PREFIX}{body}.{mac}"


def _claims(session: Session, token: str, grace_s: int) -> dict[str, Any] | None:
    """What a token says, if it is ours and at most ``grace_s`` past its end."""
    body, _, mac = token.removeprefix(TOKEN_PREFIX).partition(".")
    expected = hmac.digest(_signing_key(session), body.encode("utf-8", "replace"), "sha256").hex()
    if not hmac.compare_digest(mac.encode("utf-8", "replace"), expected.encode()):
        return None
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return claims if claims["e"] + grace_s > time.time() else None
