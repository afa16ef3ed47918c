"""Reads frames from a ring in shared memory (docs/reference/frame-ring.md states its layout).

The writer never waits for a reader. A slot carries its frame number before and after the
pixels: a reader that finds the two unlike, or the first one changed when it is done, has read a
torn frame and throws the result away.
"""

import contextlib
import mmap
import os
import re
import stat
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from firmware_bridge.errors import ProtocolError

FOLDER = "/dev/shm"
NAME = re.compile(r"lmd-ring-[0-9a-z-]{1,48}").fullmatch
MAGIC = b"LMDRING1"
HEADER = 256
SLOT_HEAD = 64
_HEAD = struct.Struct("<8sIIIIII")
_NUMBER = struct.Struct("<Q")
_SLOT = struct.Struct("<QQQdd")
NEWEST_AT = 32
FORMATS: dict[int, np.dtype[Any]] = {
    0x01080001: np.dtype("u1"),
    0x01100007: np.dtype("<u2"),
}  # GenICam PFNC
MOST_BYTES = 1 << 30


class FrameHead(NamedTuple):
    """What a slot says of its frame. ``at_ns``: end of exposure by the camera's clock."""

    number: int
    at_ns: int
    exposure_us: float
    gain_db: float


class FrameRing:
    """One ring, read only. Raises ProtocolError for a file that is none."""

    def __init__(self, name: str) -> None:
        if NAME(name) is None:
            raise ProtocolError(f"{name[:64]!r} is no name of a frame ring")
        try:
            fd = os.open(f"{FOLDER}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as exc:
            raise ProtocolError(f"frame ring {name} cannot be opened: {exc.strerror}") from None
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode) or not HEADER <= info.st_size <= MOST_BYTES:
                raise ProtocolError(f"frame ring {name} has {info.st_size} bytes")
            self._map = mmap.mmap(fd, info.st_size, prot=mmap.PROT_READ)
        finally:
            os.close(fd)
        magic, head, self.slots, self._stride, self.width, self.height, code = _HEAD.unpack_from(
            self._map
        )
        dtype = FORMATS.get(code)
        if magic != MAGIC or head != HEADER or dtype is None:
            self._map.close()
            raise ProtocolError(f"frame ring {name}: not version 1, or pixel format {code:#x}")
        need = SLOT_HEAD + self.width * self.height * dtype.itemsize
        whole = HEADER + self.slots * self._stride
        if not (self.slots >= 2 and self._stride >= need and whole <= info.st_size):
            self._map.close()
            raise ProtocolError(f"frame ring {name}: {self.slots} slots do not fit its file")
        self.name = name
        self.dtype = dtype
        self.n_torn = 0
        self.n_lost = 0  # overwritten before they were read
        self._frames = [
            np.frombuffer(
                self._map, dtype, self.width * self.height, HEADER + k * self._stride + SLOT_HEAD
            ).reshape(self.height, self.width)
            for k in range(self.slots)
        ]

    @property
    def newest(self) -> int:
        """Number of the newest whole frame; 0 before the first."""
        return int(_NUMBER.unpack_from(self._map, NEWEST_AT)[0])

    def read(self, number: int, work: Callable[[Any], Any]) -> tuple[FrameHead, Any] | None:
        """``work(pixels)`` of a frame, done in place; None when it was torn or is gone."""
        slot = number % self.slots
        at = HEADER + slot * self._stride
        begin, end, at_ns, exposure_us, gain_db = _SLOT.unpack_from(self._map, at)
        if begin != number or end != number:
            self.n_torn += 1
            return None
        result = work(self._frames[slot])
        if _NUMBER.unpack_from(self._map, at)[0] != number:
            self.n_torn += 1
            return None
        return FrameHead(number, at_ns, exposure_us, gain_db), result

    def since(self, last: int, work: Callable[[Any], Any]) -> list[tuple[FrameHead, Any]]:
        """All whole frames after ``last``, oldest first."""
        newest = self.newest
        # the slot after the newest is the one being written
        first = max(last + 1, newest - self.slots + 2)
        self.n_lost += first - last - 1 if last else 0
        found = (self.read(number, work) for number in range(first, newest + 1))
        return [f for f in found if f is not None]

    def close(self) -> None:
        """Give the memory back."""
        self._frames = []
        with contextlib.suppress(BufferError):  # a caller still holds a frame: freed with it
            self._map.close()
