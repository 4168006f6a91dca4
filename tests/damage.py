"""Damage to bytes."""

from pathlib import Path


def flipped(content: bytes, bit: int) -> bytes:
    """The content with one bit flipped."""
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def flip(path: Path, content: bytes, bit: int) -> None:
    """Writes the file's content with one bit flipped.

    The file is not emptied before: what is written then, some file systems send to the disk at
    once, and thousands of bits would wait for it.
    """
    with path.open("r+b") as file:
        file.write(flipped(content, bit))
