"""Files and folders that appear under their name only once they are whole."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, renamed to it on success and removed on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(6)}{path.suffix}")
    temporary.touch(exist_ok=False)  # with the umask's mode, unlike the tempfile module's
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """A file of its own. Raises OSError when it can't be written; what was there stays whole."""
    with whole_file(path) as fresh:
        fresh.write_text(json.dumps(value, indent=indent) + "\n")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """As `whole_file`, a new folder.

    Raises ValueError when there is one already, or none can be made.
    """
    if path.exists():
        raise ValueError(f"{path}: this folder exists already; choose another name")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise ValueError(f"{path}: can't be written ({error.strerror})") from None
    try:
        yield temporary
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
