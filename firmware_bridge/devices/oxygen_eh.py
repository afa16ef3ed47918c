"""Endress+Hauser OXY5500 oxygen analyser, Modbus TCP.

Source: Endress+Hauser BA02195C, chapter 5 (words low first, addresses as printed); the
block behind 4909 is unverified: docs/reference/device-protocols.md section 7.
"""

from typing import Any

from firmware_bridge.errors import DeviceError
from firmware_bridge.modbus_device import ModbusDevice
from firmware_bridge.registers import Block, Reading
from firmware_bridge.roles import OxygenAnalyser
from firmware_bridge.transport import Port


class Oxy5500(ModbusDevice, role=OxygenAnalyser):
    """Chamber oxygen in ppm; another unit is refused at connect."""

    blocks = (Block(4909, 8, after=2),)

    oxygen_ppm = Reading(4909, "f32_low", bounds=(-100.0, 300_000.0))
    gas_deg_c = Reading(4911, "f32_low", bounds=(-50.0, 150.0))
    error_bits = Reading(4915, "u32_low")

    def __init__(self, port: Port, name: str | None = None, *, ppm_unit: int = 32, **kw: Any):
        super().__init__(port, name, **kw)
        self.ppm_unit = ppm_unit

    async def check(self) -> None:
        """The oxygen unit must be ppm."""
        low, high = await self._guard().read_once(1, 3, 2089, 2)
        if low | high << 16 != self.ppm_unit:
            unit = low | high << 16
            raise DeviceError(f"{self.name}: oxygen unit is {unit}, not {self.ppm_unit} (ppm)")

    @property
    def valid(self) -> bool:
        """The analyser reports no error."""
        return self.error_bits == 0
