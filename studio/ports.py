"""Is there a place to listen? Asked before the seconds that building the studio takes."""

from __future__ import annotations

import socket


def check_port(host: str, port: int, option: str = "--port") -> None:
    """Raises OSError when nothing can listen on `port` of `host`, naming the option to change."""
    if not 0 <= port < 2**16:
        raise OSError(f"{option} {port}: a port is a number from 0 to 65535")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        probe = socket.socket(family)
    except (OSError, UnicodeError) as error:
        raise OSError(f"--host {host}: this machine has no such address ({error})") from None
    with probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise OSError(
                f"port {port} can't be used ({error}); choose one with {option}"
            ) from None


def web_address(host: str, port: int) -> str:
    """Host and port as an address on the web has them: IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
