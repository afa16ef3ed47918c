"""A world small enough to read and the host's end of a wire, to test one emulator alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hil_sim.clock import Scheduler
from hil_sim.devices.base import Emulator


def fake_world(**changes: Any) -> SimpleNamespace:
    """Names and units as in hil_sim/plant/world.py; everything well, nothing running."""
    world = SimpleNamespace(
        estop_ok=True,
        door_closed=True,
        supply_relay_on=True,
        reset_latched=False,
        laser_enabled=False,
        emission_w=0.0,
        laser_power_measured_w=0.0,
        laser_temp_deg_c=25.0,
        coolant_deg_c=22.0,
        chiller_flow_l_min=8.0,
        chiller_running=True,
        hopper_set_g_min=[0.0, 0.0],
        hopper_flow_g_min=[0.0, 0.0],
        hopper_mass_g=[5000.0, 5000.0],
        diverter_to_nozzle=False,
        carrier_l_min=0.0,
        carrier_set_l_min=0.0,
        shield_l_min=0.0,
        shield_set_l_min=0.0,
        oxygen_ppm=40.0,
        pool_temp_deg_c=25.0,
    )
    for name, value in changes.items():
        setattr(world, name, value)
    return world


class Line:
    """The host's end of one emulator's wire: what was sent, and when it arrived."""

    def __init__(self, emulator: Emulator, sim: Scheduler) -> None:
        self.emulator = emulator
        self.sim = sim
        self.heard: list[tuple[int, bytes]] = []
        emulator.send = lambda data: self.heard.append((sim.now_us, data))
        emulator.opened()

    def ask(self, data: bytes, wait_us: int = 10_000) -> bytes:
        """Write `data`, let `wait_us` pass, return all that came back in that time."""
        first = len(self.heard)
        self.emulator.receive(data)
        self.sim.run(self.sim.now_us + wait_us)
        return b"".join(data for _, data in self.heard[first:])
