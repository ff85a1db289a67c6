"""The command line of `app.py`, and the options that say which policy plans."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from models.config import PRECISIONS
from studio.places import CHECKPOINT

if TYPE_CHECKING:
    from models.policy import Policy
    from studio.remote import RemotePolicy

LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]")


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Which checkpoint plans in this process, and how."""
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="checkpoint folder")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 …")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="float32",
        help="of the weights; bfloat16 halves memory on a GPU, energies stay float32",
    )  # fmt: skip


def add_policy(parser: argparse.ArgumentParser) -> None:
    """A checkpoint, or a policy server instead."""
    add_checkpoint(parser)
    parser.add_argument(
        "--policy", metavar="URL", help="ws://host:8000: the policy server that plans instead"
    )


def open_policy(args: argparse.Namespace) -> Policy | RemotePolicy:
    """The policy that the options of `add_policy` name.

    Raises ValueError for a checkpoint that can't be used, OSError for a server out of reach.
    """
    if args.policy:
        from studio.remote import RemotePolicy

        return RemotePolicy(args.policy)
    from models.policy import Policy

    return Policy.from_pretrained(args.checkpoint, args.device, args.precision)


def workers(text: str) -> int | None:
    """The number of processes that `--workers` says; None for auto."""
    if text == "auto":
        return None
    try:
        return positive(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor auto") from None


def cores() -> int:
    """How many of this machine's this process may use."""
    import joblib

    return joblib.cpu_count()  # looks at the affinity and the container's share, too


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"a whole number from 1 on is needed, not {text!r}")
    return int(text)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The options, from `argv` or the process's own."""
    parser = argparse.ArgumentParser(prog="python app.py", description="EB-VLA Studio")
    add_policy(parser)
    parser.add_argument("--host", default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"))
    port = int(os.environ.get("GRADIO_SERVER_PORT", "7860"))
    parser.add_argument("--port", type=int, default=port)
    parser.add_argument(
        "--serve", type=int, metavar="PORT", help="serve the policy there, too (studio.serve)"
    )
    root = os.environ.get("GRADIO_ROOT_PATH")
    parser.add_argument("--root-path", default=root, help="where a proxy serves it, e.g. /studio")
    parser.add_argument(
        "--trust-host", action="append", default=[], metavar="NAME",
        help="another name that browsers may call a studio on localhost by, as behind a proxy",
    )  # fmt: skip
    space = "1" if os.environ.get("SPACE_ID") else "0"
    parser.add_argument(
        "--public", action=argparse.BooleanOptionalAction,
        default=os.environ.get("EB_VLA_PUBLIC", space).lower() not in ("", "0", "false", "no"),
        help="open to everyone: jobs, calibrations and recordings are refused (default in a Space, "
        "unless EB_VLA_PUBLIC=0)",
    )  # fmt: skip
    parser.add_argument("--workspace", type=Path, default=Path("runs"), help="folder of all runs")
    parser.add_argument("--sessions", type=positive, default=4, help="simulators at the same time")
    parser.add_argument("--idle", type=float, default=30, help="minutes until an unused page rests")
    parser.add_argument("--linger", type=float, default=60, help="seconds a closed page is kept")
    parser.add_argument("--paused", action="store_true", help="new pages wait for Run")
    parser.add_argument("--suite", default="libero_object", help="suite shown first")
    parser.add_argument("--task", type=int, default=0, help="task shown first")
    parser.add_argument("--init", type=int, default=40, help="initial state shown first")
    return parser.parse_args(argv)


def trusted_hosts(args: argparse.Namespace) -> list[str]:
    """The names that a browser may call the studio by.

    One that listens on localhost alone answers to no other: a site could give itself this machine's
    address (DNS rebinding), and its page would pass for the studio's own.
    """
    return [*LOOPBACK, *args.trust_host] if args.host in LOOPBACK else ["*"]
