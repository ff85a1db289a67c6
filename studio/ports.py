"""Is there a place to listen? Asked before the seconds that building the studio takes."""

from __future__ import annotations

import socket


def check_port(host: str, port: int) -> None:
    """Raises OSError when nothing can listen on `port` of `host`."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise OSError(f"port {port} can't be used ({error}); choose one with --port") from None
