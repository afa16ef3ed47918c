"""The physical truth of the virtual cell, as one plain object.

The plant writes the quantities that physics decides, emulators write what a device has been
told (set values, enables), faults break things by the ``*_fault`` and chain attributes. Every
reader takes the plain attribute; nobody keeps a copy.

The hardware safety chain is here and acts at once, without any software in between: opening
the e-stop or the door opens the chain in the same instant, and only a reset with everything
closed brings it back.
"""

from __future__ import annotations

from collections.abc import Callable

from hil_sim.cellfile import CellFile

AMBIENT_DEG_C = 21.0
OPEN_AIR_PPM = 209_500.0


class World:
    """Truth of one cell. Lists have one entry a hopper, always two.

    Setting ``laser_enabled`` calls ``on_laser_enabled(on)`` when it changes. Setting
    ``estop_ok``, ``door_closed``, ``supply_relay_on`` or ``reset_latched`` evaluates the chain;
    when it opens or closes, ``on_chain(closed)`` is called before the setter returns.
    """

    __slots__ = (
        "_door_closed",
        "_estop_ok",
        "_laser_enabled",
        "_reset_latched",
        "_supply_relay_on",
        "back_reflection",
        "bead_width_mm",
        "carrier_l_min",
        "carrier_set_l_min",
        "carrier_supply_ok",
        "chain_closed",
        "chamber_pressure_pa",
        "chiller_alarm_bits",
        "chiller_flow_fault",
        "chiller_flow_l_min",
        "chiller_pressure_mpa",
        "chiller_running",
        "chiller_setpoint_deg_c",
        "clogged",
        "collision",
        "coolant_deg_c",
        "deposited_g",
        "dew_point_deg_c",
        "diverter_to_nozzle",
        "drive_fault_bits",
        "emission_s",
        "emission_w",
        "energy_j",
        "extraction_ok",
        "fed_g",
        "following_error_mm",
        "gate_on",
        "head_cooling_ok",
        "heater_deg_c",
        "heater_fault",
        "heater_on",
        "heater_set_deg_c",
        "height_mm",
        "hopper_flow_g_min",
        "hopper_mass_g",
        "hopper_set_g_min",
        "hopper_stalled",
        "laser_fault_bits",
        "laser_power_measured_w",
        "laser_temp_deg_c",
        "nozzle_flow_g_min",
        "on_chain",
        "on_laser_enabled",
        "optics_transmission",
        "oxygen_leak_ppm",
        "oxygen_ppm",
        "pool_temp_deg_c",
        "power_command_w",
        "purge_on",
        "rated_power_w",
        "room_oxygen_pct",
        "scatter_pct",
        "shield_l_min",
        "shield_set_l_min",
        "shield_supply_ok",
        "source_share",
        "stray_w",
        "stream_pressure_kpa",
        "supply_air_kpa",
        "supply_argon_kpa",
        "threshold_power_w",
        "ups_charge_pct",
        "ups_on_battery",
        "wasted_g",
        "window_deg_c",
        "x_mm",
        "y_mm",
        "z_mm",
    )

    # There only where the cell file has the section (hil_sim/plant/surroundings.py)
    window_deg_c: float
    scatter_pct: float
    head_cooling_ok: bool
    collision: bool
    stream_pressure_kpa: list[float]
    clogged: list[bool]
    purge_on: bool
    chamber_pressure_pa: float
    dew_point_deg_c: float
    heater_set_deg_c: float
    heater_deg_c: float
    heater_on: bool
    heater_fault: bool
    following_error_mm: list[float]
    drive_fault_bits: int
    room_oxygen_pct: float
    extraction_ok: bool
    supply_air_kpa: float
    supply_argon_kpa: float
    ups_on_battery: bool
    ups_charge_pct: float

    def __init__(self, cell: CellFile) -> None:
        # Told by the host through a device
        self._laser_enabled = False
        self.hopper_set_g_min: list[float] = [0.0, 0.0]
        self.diverter_to_nozzle: bool = False  # else the powder goes to the waste bottle
        self.carrier_set_l_min: float = 0.0
        self.shield_set_l_min: float = 0.0
        self.chiller_running: bool = True  # it has run before the build, as in a real shift
        self.chiller_setpoint_deg_c: float = cell.coolant_setpoint_deg_c

        # Laser
        self.rated_power_w: float = cell.rated_power_w
        self.threshold_power_w: float = cell.threshold_power_w
        self.power_command_w: float = 0.0  # analog output of the motion controller, now
        self.gate_on: bool = False  # at the source: the gate output, a latency later
        self.emission_w: float = 0.0  # at the workpiece, now; 0 in the gate's short tail
        self.emission_s: float = 0.0  # since power-up
        self.energy_j: float = 0.0  # at the workpiece, since power-up
        self.laser_power_measured_w: float = 0.0  # the source's own photodiode
        self.laser_temp_deg_c: float = cell.coolant_setpoint_deg_c
        self.laser_fault_bits: int = 0  # set by faults; meaning as in the maker's STA word
        self.back_reflection: bool = False
        self.optics_transmission: float = 1.0  # of the light that reaches the work
        self.source_share: float = 1.0  # of the commanded power that the source gives
        self.stray_w: float = 0.0  # broken source: light with the gate shut while it has supply

        # Powder. Flow at the hopper's outlet, and what arrives a transport delay later.
        self.hopper_flow_g_min: list[float] = [0.0, 0.0]
        self.hopper_mass_g: list[float] = [h.mass_g for h in cell.hoppers]
        self.hopper_mass_g += [0.0] * (2 - len(cell.hoppers))
        self.hopper_stalled: list[bool] = [False, False]
        self.nozzle_flow_g_min: float = 0.0
        self.fed_g: float = 0.0  # through the nozzle, since power-up
        self.wasted_g: float = 0.0  # through the diverter
        self.deposited_g: float = 0.0

        # Cooling, gases, air
        self.coolant_deg_c: float = cell.coolant_setpoint_deg_c
        self.chiller_flow_l_min: float = 0.0
        self.chiller_pressure_mpa: float = 0.0
        self.chiller_alarm_bits: int = 0
        self.chiller_flow_fault: bool = False  # pump fails: the flow dies away
        self.carrier_l_min: float = 0.0
        self.shield_l_min: float = 0.0
        self.carrier_supply_ok: bool = True
        self.shield_supply_ok: bool = True
        self.oxygen_ppm: float = OPEN_AIR_PPM
        self.oxygen_leak_ppm: float = 0.0  # raises where the chamber's oxygen settles

        # Work
        self.x_mm: float = 0.0
        self.y_mm: float = 0.0
        self.z_mm: float = 0.0
        self.height_mm: float = cell.substrate_top_mm  # of the work under the nozzle, machine z
        self.bead_width_mm: float = 0.0
        self.pool_temp_deg_c: float = AMBIENT_DEG_C

        # Who is told at the instant itself: the beam ends there, not at the next step
        self.on_laser_enabled: Callable[[bool], None] | None = None
        self.on_chain: Callable[[bool], None] | None = None

        # Safety chain (hardware)
        self._estop_ok = True
        self._door_closed = True
        self._supply_relay_on = True
        self._reset_latched = False
        self.chain_closed: bool = True

    @property
    def laser_enabled(self) -> bool:
        """Emission enabled at the source (IPG: EMON)."""
        return self._laser_enabled

    @laser_enabled.setter
    def laser_enabled(self, on: bool) -> None:
        if on != self._laser_enabled:
            self._laser_enabled = bool(on)
            if self.on_laser_enabled is not None:
                self.on_laser_enabled(self._laser_enabled)

    @property
    def estop_ok(self) -> bool:
        """False while an e-stop button is pressed."""
        return self._estop_ok

    @estop_ok.setter
    def estop_ok(self, ok: bool) -> None:
        self._estop_ok = bool(ok)
        self._check_chain()

    @property
    def door_closed(self) -> bool:
        """False while the door of the cell is open."""
        return self._door_closed

    @door_closed.setter
    def door_closed(self, closed: bool) -> None:
        self._door_closed = bool(closed)
        self._check_chain()

    @property
    def supply_relay_on(self) -> bool:
        """Relay of the laser's supply: falls with the chain, and when asked to drop."""
        return self._supply_relay_on

    @supply_relay_on.setter
    def supply_relay_on(self, on: bool) -> None:
        if on:
            self.reset_safety()
            return
        self._supply_relay_on = False
        self._check_chain()

    @property
    def reset_latched(self) -> bool:
        """True from the chain's opening until a reset: closing the door starts nothing."""
        return self._reset_latched

    @reset_latched.setter
    def reset_latched(self, latched: bool) -> None:
        if latched:
            self._reset_latched = True
            self._check_chain()
        else:
            self.reset_safety()

    def reset_safety(self) -> bool:
        """A reset edge at the safety PLC. Does nothing while e-stop or door are open.

        Returns True when the chain is closed afterwards.
        """
        if self._estop_ok and self._door_closed:
            self._reset_latched = False
            self._supply_relay_on = True
            self._check_chain()
        return self.chain_closed

    def _check_chain(self) -> None:
        closed = (
            self._estop_ok
            and self._door_closed
            and self._supply_relay_on
            and not self._reset_latched
        )
        if not closed:
            self._supply_relay_on = False
            self._reset_latched = True
        if closed != self.chain_closed:
            self.chain_closed = closed
            if self.on_chain is not None:
                self.on_chain(closed)
