"""Writes frames into a ring in shared memory (docs/reference/frame-ring.md states its layout).

The reader's twin is written apart and shares nothing with this but that page.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import struct
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

FOLDER = "/dev/shm"
HEADER_BYTES = 256
SLOT_HEADER_BYTES = 64
PIXEL_FORMATS = {"Mono8": (0x01080001, np.uint8), "Mono16": (0x01100007, np.uint16)}
_counter = itertools.count(1)


class RingWriter:
    """One ring of ``slots`` frames. Raises OSError when shared memory is full."""

    def __init__(self, width: int, height: int, pixel_format: str, slots: int = 64) -> None:
        code, dtype = PIXEL_FORMATS[pixel_format]
        size = width * height * np.dtype(dtype).itemsize
        self.stride = SLOT_HEADER_BYTES + -(-size // 64) * 64
        self.slots = slots
        self.name = f"lmd-ring-{os.getpid()}-{next(_counter)}"
        self.path = f"{FOLDER}/{self.name}"
        total = HEADER_BYTES + slots * self.stride
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(fd, 0, total)
            self._map = mmap.mmap(fd, total)
        except OSError:
            os.unlink(self.path)
            raise
        finally:
            os.close(fd)
        # a cell that is dropped without a word, or a process that ends, leaves no name behind
        self._unlink = weakref.finalize(self, _unlink, self.path)
        struct.pack_into(
            "<8sIIIIII", self._map, 0, b"LMDRING1", HEADER_BYTES, slots, self.stride, width, height,
            code,
        )  # fmt: skip
        self._pixels = [
            np.ndarray(
                (height, width),
                dtype,
                self._map,
                HEADER_BYTES + n * self.stride + SLOT_HEADER_BYTES,
            )
            for n in range(slots)
        ]

    def write(
        self,
        number: int,
        at_ns: int,
        exposure_us: float,
        gain_db: float,
        draw: Callable[[Any], None],
        *,
        torn: bool = False,
    ) -> None:
        """Fill the slot of frame ``number`` (from 1 on). ``torn``: fault, it is left half done."""
        slot = number % self.slots
        at = HEADER_BYTES + slot * self.stride
        struct.pack_into("<Q", self._map, at, number)
        struct.pack_into("<Qdd", self._map, at + 16, at_ns, exposure_us, gain_db)
        draw(self._pixels[slot])
        if not torn:
            struct.pack_into("<Q", self._map, at + 8, number)
        struct.pack_into("<Q", self._map, 32, number)

    def unlink(self) -> None:
        """Take the name away; whoever has the ring open keeps it."""
        self._unlink()

    def close(self) -> None:
        """Take the name away and give the memory back."""
        self.unlink()
        self._pixels = []
        with contextlib.suppress(BufferError):
            self._map.close()


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
