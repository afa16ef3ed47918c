"""IPG YLR/YLS fibre laser, ASCII (docs/reference/device-protocols.md, section 2).

Power and gate come from the motion controller's outputs; over this wire the source is only
enabled, watched and reset. Without `EEC` and `EMOD` a real source would emit ungated at its
stored set point; this one then gives no light, so a driver that forgets them is found by a
build without energy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hil_sim.devices.base import LineEmulator

if TYPE_CHECKING:
    from hil_sim.clock import Scheduler
    from hil_sim.plant.world import World

START_UP_US = 3_000_000
SUPERVISION_US = 10_000  # how often the source looks at its own sensors

OVERTEMPERATURE = 1 << 1
EMISSION_ON = 1 << 2
BACK_REFLECTION = 1 << 3
ANALOG_CONTROL = 1 << 4
MODULE_DISCONNECTED = 1 << 6
MODULE_FAILED = 1 << 7
AIMING_BEAM = 1 << 8
INTERLOCK_OPEN = 1 << 10
SUPPLY_OFF = 1 << 11
MODULATION = 1 << 12
ENABLE_INPUT = 1 << 14
STARTING = 1 << 15
UNEXPECTED_EMISSION = 1 << 17
KEY_REMOTE = 1 << 21
MODULE_DISABLED = 1 << 29
COLLIMATOR_DISCONNECTED = 1 << 30

LATCHED = OVERTEMPERATURE | BACK_REFLECTION | UNEXPECTED_EMISSION

# What forbids emission, in the order in which a refusal names it.
_REFUSALS = (
    (INTERLOCK_OPEN, b"ERR: Interlock open"),
    (SUPPLY_OFF, b"ERR: Main power supply off"),
    (OVERTEMPERATURE, b"ERR: Over-temperature"),
    (BACK_REFLECTION, b"ERR: High back-reflection"),
    (UNEXPECTED_EMISSION, b"ERR: Unexpected emission"),
    (MODULE_DISCONNECTED, b"ERR: Module disconnected"),
    (MODULE_FAILED, b"ERR: Module failed"),
    (MODULE_DISABLED, b"ERR: Module disabled"),
    (COLLIMATOR_DISCONNECTED, b"ERR: Collimator disconnected"),
)
_FORBIDDING = sum(bit for bit, _ in _REFUSALS)

_METER_LEAST_SHARE = 0.01  # of rated power: below it the meter says Low
_METER_ZERO_W = 0.5
_UNEXPECTED_TICKS = 3  # light without command over so many looks is no tail of the last pulse


class LaserIpg(LineEmulator):
    """The source: enable logic, start-up time, latched errors, power meter.

    Fault hooks besides those of the wire: `refuse_emission` (EMON is answered by an error) and
    `key_remote` (False: the key switch stands in local). Physical causes come from
    `world.laser_fault_bits` (as in STA) and `world.back_reflection`.
    """

    channel = "laser"

    def __init__(self, sim: Scheduler, world: World) -> None:
        super().__init__(sim, world)
        self.refuse_emission = False
        self.key_remote = True
        self._analog = False
        self._modulation = False
        self._aiming = False
        self._emon = False
        self._started = False
        self._emon_count = 0
        self._latched = 0
        self._unexpected_ticks = 0
        self._queries = {
            b"STA": lambda: b"%d" % self.status(),
            b"ROP": self._measured_output,
            b"RCT": lambda: b"%.1f" % self.world.laser_temp_deg_c,
            b"RFV": lambda: b"1.0.0",
        }
        self._commands = {
            b"EMOFF": self._emission_off,
            b"RERR": self._reset_errors,
            b"EEC": lambda: self._set_control(analog=True),
            b"DEC": lambda: self._set_control(analog=False),
            b"EMOD": lambda: self._set_control(modulation=True),
            b"DMOD": lambda: self._set_control(modulation=False),
            b"ABN": lambda: self._set_aiming(True),
            b"ABF": lambda: self._set_aiming(False),
        }
        sim.every(SUPERVISION_US, self.supervise)

    def on_line(self, line: bytes) -> bytes:
        command = line.strip(b" \n").upper()
        query = self._queries.get(command)
        if query is not None:
            return command + b": " + query() + b"\r"
        if command == b"EMON":
            return (self._emission_on() or command) + b"\r"
        action = self._commands.get(command)
        if action is None:
            return b"ERR: Command not recognized\r"
        action()
        return command + b"\r"

    def status(self) -> int:
        """The STA word at this instant."""
        bits = self._forbidding()
        if self._emon:
            bits |= (EMISSION_ON if self._started else STARTING) | ENABLE_INPUT
        if self._analog:
            bits |= ANALOG_CONTROL
        if self._modulation:
            bits |= MODULATION
        if self._aiming:
            bits |= AIMING_BEAM
        if self.key_remote:
            bits |= KEY_REMOTE
        return bits

    def supervise(self) -> None:
        """The source's own protection: independent of whether anybody polls it."""
        world = self.world
        if world.emission_w > 0.0 and not (world.laser_enabled and world.gate_on):
            self._unexpected_ticks += 1
            if self._unexpected_ticks >= _UNEXPECTED_TICKS:
                self._latched |= UNEXPECTED_EMISSION
        else:
            self._unexpected_ticks = 0
        if self._forbidding() and self._emon:
            self._emission_off()

    def _forbidding(self) -> int:
        """Bits of everything that forbids emission now; latches what has to be reset."""
        world = self.world
        causes = self._causes()
        self._latched |= causes & LATCHED
        if not world.chain_closed:
            causes |= INTERLOCK_OPEN
        if not world.supply_relay_on:
            causes |= SUPPLY_OFF
        return causes | self._latched

    def _causes(self) -> int:
        causes = int(self.world.laser_fault_bits) & _FORBIDDING
        return causes | BACK_REFLECTION if self.world.back_reflection else causes

    def _emission_on(self) -> bytes:
        """Start emission; the refusal, or nothing."""
        standing = self._forbidding()
        for bit, refusal in _REFUSALS:
            if standing & bit:
                return refusal
        if not self.key_remote:
            return b"ERR: Key switch not in remote"
        if self.refuse_emission:
            return b"ERR: Emission refused"
        if not self._emon:
            self._emon = True
            self._emon_count += 1
            count = self._emon_count
            self.sim.at(self.sim.now_us + START_UP_US, lambda: self._start_up_over(count))
        return b""

    def _start_up_over(self, count: int) -> None:
        if self._emon and count == self._emon_count:  # not of an EMON since withdrawn
            self._started = True
            self._tell_world()

    def _emission_off(self) -> None:
        self._emon = self._started = False
        self._tell_world()

    def _reset_errors(self) -> None:
        self._latched = self._causes() & LATCHED
        self._unexpected_ticks = 0

    def _set_control(self, analog: bool | None = None, modulation: bool | None = None) -> None:
        if analog is not None:
            self._analog = analog
        if modulation is not None:
            self._modulation = modulation
        self._tell_world()

    def _set_aiming(self, on: bool) -> None:
        self._aiming = on

    def _tell_world(self) -> None:
        self.world.laser_enabled = self._started and self._analog and self._modulation

    def _measured_output(self) -> bytes:
        world = self.world
        measured_w = world.laser_power_measured_w
        if measured_w >= _METER_LEAST_SHARE * world.rated_power_w:
            return b"%.1f" % measured_w
        if measured_w > _METER_ZERO_W or world.emission_w > 0.0:
            return b"Low"
        return b"Off"
