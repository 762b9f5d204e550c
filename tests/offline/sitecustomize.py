"""Refuses every connection that would leave this machine, and notes it in a file.

`tests/conftest.py` imports this for the test process and puts its folder on PYTHONPATH, so that
Python starts it in child processes too (servers, commands). Code that swallows the error is still
caught: a fixture reads the file after each test.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from typing import Any

LOG = "CHATGGLM_TEST_NETWORK_LOG"
_INTERNET = (socket.AF_INET, socket.AF_INET6)


class NetworkBlocked(OSError):
    """A test tried to reach another machine."""


def _address(host: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    text = host.decode() if isinstance(host, bytes) else str(host)
    try:
        return ipaddress.ip_address(text.split("%")[0])
    except ValueError:
        return None


def leaves(event: str, args: tuple[Any, ...]) -> bool:
    """Whether an audit event of the socket module means traffic beyond loopback."""
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        sock, target = args[0], args[1]
        if sock.family not in _INTERNET or target is None:
            return False
        address = _address(target[0])
        return target[0] != "localhost" if address is None else not address.is_loopback
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = args[0]  # an address needs no name server
        return host not in (None, "", b"", "localhost", b"localhost") and _address(host) is None
    return False


def _guard(event: str, args: tuple[Any, ...]) -> None:
    if event.startswith("socket.") and leaves(event, args):
        what = f"{event} {args[1] if event.startswith(('socket.connect', 'socket.send')) else args[0]}"
        if path := os.environ.get(LOG):
            with open(path, "a", encoding="utf-8") as log:
                log.write(what + "\n")
        raise NetworkBlocked(f"tests stay on this machine: {what}")


sys.addaudithook(_guard)
