"""The guard of tests/offline holds: nothing but loopback, in this process and in its children."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

ELSEWHERE = "192.0.2.1"  # TEST-NET-1, routed nowhere


def test_connections_to_other_machines_are_refused(blocked_attempts: Path) -> None:
    with pytest.raises(OSError, match="stay on this machine"):
        socket.create_connection((ELSEWHERE, 80), timeout=1)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        pytest.raises(OSError, match="stay on this machine"),
    ):
        udp.sendto(b"x", (ELSEWHERE, 53))
    assert blocked_attempts.read_text().count(ELSEWHERE) == 2


def test_names_are_not_looked_up(blocked_attempts: Path) -> None:
    with pytest.raises(OSError, match="stay on this machine"):
        socket.getaddrinfo("example.org", 443)
    assert "example.org" in blocked_attempts.read_text()


def test_child_processes_are_guarded_too(blocked_attempts: Path) -> None:
    code = f"import socket; socket.create_connection(('{ELSEWHERE}', 80), timeout=1)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert child.returncode != 0
    assert "stay on this machine" in child.stderr
    assert ELSEWHERE in blocked_attempts.read_text()


def test_loopback_works() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), timeout=5) as client,
    ):
        client.sendall(b"x")
        accepted, _ = server.accept()
        with accepted:
            assert accepted.recv(1) == b"x"
    assert socket.getaddrinfo("localhost", 80)
