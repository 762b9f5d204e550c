"""Hosts and web origins as text."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Whether an address or name means this machine."""
    host = host.strip("[]").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def split_host(value: str) -> str:
    """The name in a Host header, without the port; empty where it is no host."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:/@\s\[\]]+)(:\d{1,5})?", value)
    return match.group(1).lower().rstrip(".") if match else ""


def normal_origin(value: str) -> str:
    """``scheme://host[:port]`` in lower case, default ports left out; empty where it is no web origin."""
    try:
        parts = urlsplit(value.strip())
        port = parts.port
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        return ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default = 443 if parts.scheme == "https" else 80
    return f"{parts.scheme}://{host}" + (f":{port}" if port and port != default else "")


def same_origin(origin: str, host: str) -> bool:
    """Whether a page's origin is this server as the client sees it (the scheme may end at a proxy)."""
    normal = normal_origin(origin)
    return bool(normal) and normal == normal_origin(f"{normal.split(':', 1)[0]}://{host}")
