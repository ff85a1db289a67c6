"""What is read again, and when."""

from __future__ import annotations

import pytest

from studio.remembered import Remembered, stamp


def test_a_file_is_read_again_once_it_is_written_again(tmp_path):
    file, reads = tmp_path / "a", []
    known: Remembered[str] = Remembered()

    def read() -> str:
        reads.append(file.read_text())
        return reads[-1]

    def look() -> str:
        return known.get(file, stamp(file), read)

    file.write_text("one")
    assert [look(), look()] == ["one", "one"] and reads == ["one"]
    file.write_text("three")
    assert [look(), look()] == ["three", "three"] and reads == ["one", "three"]
    file.unlink()
    with pytest.raises(FileNotFoundError):
        look()


def test_many_keys_in_order_are_read_once_each():
    known: Remembered[int] = Remembered()
    reads = []
    for _ in range(2):
        for key in range(10_000):
            assert known.get(key, 0, lambda key=key: reads.append(key) or key) == key
    assert len(reads) == 10_000


def test_what_fails_is_tried_again():
    known: Remembered[int] = Remembered()
    with pytest.raises(ZeroDivisionError):
        known.get("a", 0, lambda: 1 // 0)
    assert known.get("a", 0, lambda: 1) == 1
