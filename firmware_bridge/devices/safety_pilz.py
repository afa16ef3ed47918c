"""Pilz PNOZmulti safety PLC, Modbus TCP: a mirror of the hardware chain.

Source: Pilz 1001154-EN-13 and 1002971-EN (communication interfaces, chapter Modbus/TCP);
what the bits mean is in the machine's own map file;
docs/reference/device-protocols.md section 8.
"""

from firmware_bridge.modbus_device import MapDevice
from firmware_bridge.roles import SafetyPlc

DROP_SUPPLY, RESET_EDGE = 1, 2  # bits of the request word


class PilzPnozMulti(MapDevice, role=SafetyPlc):
    """Reads the virtual outputs; may ask to drop the laser supply. Never the safety path."""

    default_map = "safety_pilz_sim"
    needs_bits = (
        *("estop_ok", "door_closed", "interlock_ok", "reset_needed", "supply_relay_on"),
        *("plc_error", "watchdog_tripped"),
    )
    needs_settings = ("request_bits",)

    @property
    def watchdog_ok(self) -> bool:
        """The PLC reports neither an error nor a tripped watchdog."""
        return not (self.value("plc_error") or self.value("watchdog_tripped"))

    async def drop_supply(self) -> None:
        """Ask to drop the laser's supply relay, before anything else on the wire."""
        await self.put("request_bits", DROP_SUPPLY, urgent=True)

    async def request_reset(self) -> None:
        """One edge of the reset request; withdraws a request to drop the supply."""
        since = self.n_urgent
        for request in (0, RESET_EDGE, 0):
            await self.put("request_bits", request, since=since)
