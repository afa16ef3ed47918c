"""Registers as declarations: what stands where, in which code, within which bounds.

``Reading`` and ``Setting`` are class attributes of a ``ModbusDevice``; on an instance they
give the value of the last good poll. ``Block`` says which registers are fetched together.
Every value is bounded: one outside is a DeviceError and the whole poll is thrown away.
"""

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from firmware_bridge.device import KEEP, _Keep
from firmware_bridge.errors import DeviceError

Bounds = tuple[float, float]

# kind: words, struct format, low word first
_KINDS: dict[str, tuple[int, str, bool]] = {
    "u16": (1, ">H", False),
    "i16": (1, ">h", False),
    "u32": (2, ">I", False),
    "i32": (2, ">i", False),
    "f32": (2, ">f", False),
    "u32_low": (2, ">I", True),
    "i32_low": (2, ">i", True),
    "f32_low": (2, ">f", True),
}
KINDS = tuple(_KINDS)


@dataclass(frozen=True, slots=True)
class Block:
    """Registers fetched by one request.

    The request's length alternates (see modbus_guard): ``words`` from ``address``, then
    ``before`` more in front and ``after`` more behind. Those spare registers must exist;
    where there are none (both 0), the length stays.
    ``every``: fetched in each n-th round.
    """

    address: int
    words: int
    unit: int = 1
    function: int = 3
    before: int = 0
    after: int = 1
    every: int = 1

    def __post_init__(self) -> None:
        if self.function not in (3, 4):
            raise ValueError(f"function {self.function} is not 3 or 4")
        first, last = self.address - self.before, self.address + self.words + self.after
        if self.words < 1 or first < 0 or last > 65536 or last - first > 125:
            raise ValueError(f"block at {self.address} of {self.words} words cannot be read")


class Reading:
    """A value in registers.

    Parameters
    ----------
    address : int                     first register, as on the wire
    kind : one of KINDS               ``_low``: low word first
    scale, offset : float             value = raw * scale + offset
    bit : int or None                 the value is this bit, as a bool
    invert : bool                     a bit that means the opposite: 1 is False
    must : bool or None               a bit that must read so, else the poll is refused
    bounds : (low, high) or None      anything else is refused; None for raw bits only
    unit : int                        Modbus unit (device) id
    function : 3 or 4                 holding or input registers
    """

    def __init__(
        self,
        address: int,
        kind: str = "u16",
        *,
        scale: float = 1.0,
        offset: float = 0.0,
        bit: int | None = None,
        invert: bool = False,
        must: bool | None = None,
        bounds: Bounds | None = None,
        unit: int = 1,
        function: int = 3,
    ) -> None:
        if kind not in _KINDS:
            raise ValueError(f"kind {kind!r} is not one of {', '.join(KINDS)}")
        self.words, self._format, self._low_first = _KINDS[kind]
        if not 0 <= address <= 65536 - self.words:
            raise ValueError(f"address {address} is not a register")
        if bit is not None and (kind != "u16" or not 0 <= bit <= 15):
            raise ValueError(f"bit {bit} is not a bit of a u16 register")
        if bit is None and (must is not None or invert):
            raise ValueError("only a bit can be held to a value or inverted")
        if not math.isfinite(scale) or scale == 0.0:
            raise ValueError(f"scale {scale} is not a number other than 0")
        self.address, self.kind, self.bit = address, kind, bit
        self.scale, self.offset, self.bounds = scale, offset, bounds
        self.unit, self.function, self.must, self.invert = unit, function, must, invert
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, device: Any, owner: type | None = None) -> Any:
        if device is None:
            return self
        return device.value(self.name)

    def decoder(self, at: int) -> Callable[[list[int]], Any]:
        """A function from a block's registers to the value; ``at`` is our place in it."""
        if self.bit is not None:
            mask = 1 << self.bit
            if self.must is not None:
                return self._held(at, mask)
            if self.invert:
                return lambda regs: regs[at] & mask == 0
            return lambda regs: regs[at] & mask != 0
        number = self._number(at)
        if self.bounds is None:
            return number
        low, high = self.bounds
        name = self.name

        def bounded(regs: list[int]) -> Any:
            value = number(regs)
            if not low <= value <= high:  # refuses NaN as well
                raise DeviceError(f"{name} {value:g} is outside {low:g} to {high:g}")
            return value

        return bounded

    def _held(self, at: int, mask: int) -> Callable[[list[int]], Any]:
        must, name, invert = self.must, self.name, self.invert

        def held(regs: list[int]) -> bool:
            value = (regs[at] & mask != 0) is not invert
            if value is not must:
                raise DeviceError(f"{name} is {value}, the device cannot be trusted so")
            return value

        return held

    def _number(self, at: int) -> Callable[[list[int]], Any]:
        raw = self._raw(at)
        if self.scale == 1.0 and self.offset == 0.0:
            return raw
        scale, offset = self.scale, self.offset
        inverse = round(1.0 / scale)
        if abs(inverse * scale - 1.0) < 1e-12:  # 267 / 10 is 26.7, 267 * 0.1 is not
            return lambda regs: raw(regs) / inverse + offset
        return lambda regs: raw(regs) * scale + offset

    def _raw(self, at: int) -> Callable[[list[int]], Any]:
        if self.kind == "u16":
            return lambda regs: regs[at]
        if self.kind == "i16":
            return lambda regs: (regs[at] ^ 0x8000) - 0x8000
        high, low = (at + 1, at) if self._low_first else (at, at + 1)
        if self.kind.startswith("u32"):
            return lambda regs: regs[high] << 16 | regs[low]
        pack, unpack = struct.Struct(">HH").pack, struct.Struct(self._format).unpack
        return lambda regs: unpack(pack(regs[high], regs[low]))[0]


class Setting(Reading):
    """A value that can be written, and is read back after each writing.

    ``limits``: what may be asked; ``safe``: the value of ``make_safe()``, or KEEP where
    safety leaves it as it is (shield gas, coolant set point). Both must be stated.
    """

    def __init__(
        self,
        address: int,
        kind: str = "u16",
        *,
        limits: Bounds,
        safe: float | _Keep,
        scale: float = 1.0,
        offset: float = 0.0,
        bounds: Bounds | None = None,
        unit: int = 1,
    ) -> None:
        super().__init__(
            address,
            kind,
            scale=scale,
            offset=offset,
            bounds=bounds if bounds is not None else limits,
            unit=unit,
        )
        if not limits[0] < limits[1]:
            raise ValueError(f"limits {limits} are not (low, high)")
        if not isinstance(safe, _Keep) and not limits[0] <= safe <= limits[1]:
            raise ValueError(f"safe value {safe} is outside its limits {limits}")
        self.limits, self.safe = limits, safe

    def encode(self, value: float) -> list[int]:
        """The words for a value. Raises DeviceError when it is outside the limits."""
        low, high = self.limits
        if not low <= value <= high:
            raise DeviceError(f"{self.name} {value:g} is outside {low:g} to {high:g}")
        raw: float = (value - self.offset) / self.scale
        if self.kind[0] != "f":
            raw = round(raw)
        try:
            data = struct.pack(self._format, raw)
        except struct.error:
            raise DeviceError(f"{self.name} {value:g} does not fit {self.kind}") from None
        words = [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]
        return words[::-1] if self._low_first else words


def declarations(cls: type) -> dict[str, Reading]:
    """The readings and settings of a class, bases first, in the order written."""
    found: dict[str, Reading] = {}
    for base in reversed(cls.__mro__):
        for name, item in vars(base).items():
            if isinstance(item, Reading):
                found[name] = item
    return found


def place(
    blocks: tuple[Block, ...], readings: dict[str, Reading]
) -> list[list[tuple[str, Callable[[list[int]], Any]]]]:
    """For each block the (name, decoder) of the readings that lie in it.

    A setting may lie in none: it is then written and read back only. Raises ValueError
    naming a reading that lies in none.
    """
    placed: list[list[tuple[str, Callable[[list[int]], Any]]]] = [[] for _ in blocks]
    for name, reading in readings.items():
        reading.name = name
        for block, here in zip(blocks, placed, strict=True):
            at = reading.address - block.address
            if (
                block.unit == reading.unit
                and block.function == reading.function
                and 0 <= at <= block.words - reading.words
            ):
                here.append((name, reading.decoder(at)))
                break
        else:
            if isinstance(reading, Setting):
                continue
            raise ValueError(f"{name} at {reading.address} lies in no block")
    return placed


__all__ = ["KEEP", "KINDS", "Block", "Reading", "Setting", "declarations", "place"]
