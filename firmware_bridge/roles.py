"""What a device is to the cell: roles, their readings, and what may be asked of them.

A driver declares its role (``class SmcHrs(ModbusDevice, role=Chiller)``) and fills the
role's reading: a frozen record of values with ``at_us``, the loop time at which the poll
that fetched them began. A reading is replaced whole or not at all. Drivers translate and
never judge: limits of the process live in recipes, stops in interlocks.

Every driver has ``connect()``, ``poll()`` (one round of reading; raises DeviceError),
``reading`` (None before the first good poll), ``make_safe()`` and ``close()``.
"""

from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class LaserReading:
    """The laser source. ``enabled``: emission is in force, start-up over, the gate decides."""

    at_us: int
    ready: bool
    emission_on: bool
    enabled: bool
    starting: bool
    fault_bits: int
    faults: tuple[str, ...]
    power_measured_w: float
    temp_deg_c: float
    interlock_ok: bool
    unexpected_emission: bool
    back_reflection: bool
    external_control: bool
    gate_mode: bool


@dataclass(frozen=True, slots=True)
class FeederReading:
    """The powder feeder; tuples have one entry a hopper, hopper 1 first."""

    at_us: int
    flow_measured_g_min: tuple[float, ...]
    speed_measured_rpm: tuple[float, ...]
    flow_set_g_min: tuple[float, ...]
    mass_left_g: tuple[float, ...]
    stalled: bool
    stalled_hoppers: tuple[bool, ...]
    diverter_to_nozzle: bool
    ready: bool


@dataclass(frozen=True, slots=True)
class GasReading:
    """Carrier and shield gas. The set values are those read back from the devices."""

    at_us: int
    carrier_l_min: float
    shield_l_min: float
    carrier_set_l_min: float
    shield_set_l_min: float


@dataclass(frozen=True, slots=True)
class ChillerReading:
    """Coolant. ``alarm_bits`` 0: no alarm."""

    at_us: int
    coolant_deg_c: float
    pressure_mpa: float
    flow_ok: bool
    running: bool
    alarm_bits: int
    setpoint_deg_c: float


@dataclass(frozen=True, slots=True)
class OxygenReading:
    """Chamber oxygen. ``valid`` False: the analyser itself doubts the value."""

    at_us: int
    oxygen_ppm: float
    valid: bool


@dataclass(frozen=True, slots=True)
class PyrometerReading:
    """Melt pool temperature: NaN below range, over range and without a signal."""

    at_us: int
    temp_deg_c: float
    ok: bool
    saturated: bool


@dataclass(frozen=True, slots=True)
class SafetyReading:
    """What the safety PLC says of the hardware chain. It is a mirror, not the safety."""

    at_us: int
    estop_ok: bool
    door_closed: bool
    interlock_ok: bool
    reset_needed: bool
    watchdog_ok: bool
    supply_relay_on: bool


@dataclass(frozen=True, slots=True)
class CameraReading:
    """The melt pool as the newest frame shows it; NaN where nothing of it is seen.

    ``frame`` counts the camera's own frames; one that stands still is an old picture.
    ``ok`` False: the camera itself doubts the frame (no light path, no trigger, dropped).
    """

    at_us: int
    frame: int
    width_mm: float
    area_mm2: float
    temp_deg_c: float
    saturated: bool
    ok: bool


@dataclass(frozen=True, slots=True)
class HeightReading:
    """Height of the work under the sensor, from its own zero; ``valid`` False: no surface seen."""

    at_us: int
    height_mm: float
    valid: bool


@dataclass(frozen=True, slots=True)
class DrivesReading:
    """The axes' servo drives; tuples have one entry an axis, in the cell's order of axes.

    ``following_error_mm``: commanded less actual position, in degrees where the axis turns.
    ``fault``: a drive has failed; ``fault_bits`` say which, in its maker's words.
    """

    at_us: int
    ready: bool
    following_error_mm: tuple[float, ...]
    fault_bits: int
    fault: bool


@dataclass(frozen=True, slots=True)
class PowerMeterReading:
    """Light at a power meter. ``valid`` False: it does not measure; ``overrange``: too much."""

    at_us: int
    power_w: float
    valid: bool
    overrange: bool


@dataclass(frozen=True, slots=True)
class HeaterReading:
    """The substrate heater. ``heating``: it is switched on and holds ``setpoint_deg_c``."""

    at_us: int
    temp_deg_c: float
    setpoint_deg_c: float
    heating: bool
    fault: bool


@dataclass(frozen=True, slots=True)
class ChamberReading:
    """The process chamber's atmosphere but for its oxygen, which has its own analyser.

    ``pressure_pa`` is above the room's. ``moisture_ppm`` by volume.
    """

    at_us: int
    pressure_pa: float
    dew_point_deg_c: float
    moisture_ppm: float
    purging: bool
    door_locked: bool


@dataclass(frozen=True, slots=True)
class HeadReading:
    """The process head. ``scatter_pct``: light scattered by the protective window, of a dirty
    one's 100 %. ``collision``: its collision switch has opened."""

    at_us: int
    window_deg_c: float
    scatter_pct: float
    cooling_ok: bool
    collision: bool


@dataclass(frozen=True, slots=True)
class PowderLineReading:
    """Powder between feeder and nozzle. ``pressure_kpa``: back-pressure above the room's, one
    entry a stream of the nozzle; ``mass_left_g``: hoppers on scales, one entry a hopper."""

    at_us: int
    pressure_kpa: tuple[float, ...]
    mass_left_g: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class RoomReading:
    """The room that people stand in, and what it supplies.

    ``oxygen_pct`` by volume (20.9 in good air). ``supply_pressure_kpa``: compressed air and
    argon, above the room's.
    """

    at_us: int
    oxygen_pct: float
    extraction_ok: bool
    supply_pressure_kpa: tuple[float, ...]
    ups_on_battery: bool
    ups_charge_pct: float


class Role(ABC):
    """Base of the roles. A driver of a role is an instance of it (``isinstance`` works)."""

    key: ClassVar[str]  # the role's name in map files
    reading_type: ClassVar[Any]
    # Filled by firmware_bridge.device.Device; stated here for those who hold a role.
    name: str
    reading: Any
    connected: bool
    connect: Callable[[], Any]
    poll: Callable[[], Any]
    make_safe: Callable[[], Any]
    close: Callable[[], None]
    put: Callable[[str, float], Any]


class LaserSource(Role):
    """Power and gate come from the motion controller's outputs; the link only enables."""

    key = "laser_source"
    reading_type = LaserReading
    reading: LaserReading | None

    async def emission_enable(self) -> None:
        """Ask for emission under external power and gate control.

        Returns when the source has accepted; ``reading.enabled`` follows after its
        start-up. Raises DeviceError with the source's words when it refuses.
        """
        raise NotImplementedError

    async def emission_disable(self) -> None:
        """End emission at once; goes before anything else on the wire."""
        raise NotImplementedError

    async def reset_errors(self) -> None:
        """Reset latched errors of the source; never enables."""
        raise NotImplementedError


class PowderFeeder(Role):
    """Hoppers and the diverter between nozzle and waste."""

    key = "powder_feeder"
    reading_type = FeederReading
    reading: FeederReading | None
    n_hoppers: int

    async def set_flow(self, hopper: int, g_min: float) -> None:
        """Flow of one hopper (0 is the first), g/min; 0 stops it."""
        raise NotImplementedError

    async def set_diverter(self, to_nozzle: bool) -> None:
        """Send the powder to the nozzle, or to waste."""
        await self.put("diverter_to_nozzle", 1 if to_nozzle else 0)


class GasFlow(Role):
    """Carrier and shield gas."""

    key = "gas_flow"
    reading_type = GasReading
    reading: GasReading | None

    async def set_carrier(self, l_min: float) -> None:
        """Carrier gas set value, L/min at standard conditions."""
        await self.put("carrier_set_l_min", l_min)

    async def set_shield(self, l_min: float) -> None:
        """Shield gas set value, L/min at standard conditions."""
        await self.put("shield_set_l_min", l_min)


class Chiller(Role):
    """Coolant for source and head."""

    key = "chiller"
    reading_type = ChillerReading
    reading: ChillerReading | None

    async def set_setpoint(self, deg_c: float) -> None:
        """Coolant set temperature, degC."""
        await self.put("setpoint_deg_c", deg_c)

    async def set_run(self, run: bool) -> None:
        """Pump and cooling on or off."""
        await self.put("run", 1 if run else 0)


class OxygenAnalyser(Role):
    """Chamber oxygen."""

    key = "oxygen_analyser"
    reading_type = OxygenReading
    reading: OxygenReading | None


class Pyrometer(Role):
    """Melt pool temperature."""

    key = "pyrometer"
    reading_type = PyrometerReading
    reading: PyrometerReading | None


class SafetyPlc(Role):
    """Read only, but for two requests that the PLC's own program grants or not."""

    key = "safety_plc"
    reading_type = SafetyReading
    reading: SafetyReading | None

    async def drop_supply(self) -> None:
        """Ask the PLC to drop the laser's supply relay; goes before anything else."""
        raise NotImplementedError

    async def request_reset(self) -> None:
        """Give the reset edge. It never starts anything."""
        raise NotImplementedError


class MeltPoolCamera(Role):
    """A camera on the melt pool, coaxial with the beam or beside it."""

    key = "melt_pool_camera"
    reading_type = CameraReading
    reading: CameraReading | None


class HeightSensor(Role):
    """Height of the work: a point or line sensor beside the nozzle."""

    key = "height_sensor"
    reading_type = HeightReading
    reading: HeightReading | None


class AxisDrives(Role):
    """Servo drives of the axes. Read only: the motion controller moves them."""

    key = "axis_drives"
    reading_type = DrivesReading
    reading: DrivesReading | None


class PowerMeter(Role):
    """Laser power at the work or at the head, for calibration and for supervision."""

    key = "power_meter"
    reading_type = PowerMeterReading
    reading: PowerMeterReading | None


class SubstrateHeater(Role):
    """Heats the plate before and during the build."""

    key = "substrate_heater"
    reading_type = HeaterReading
    reading: HeaterReading | None

    async def set_setpoint(self, deg_c: float) -> None:
        """Plate set temperature, degC."""
        await self.put("setpoint_deg_c", deg_c)

    async def set_run(self, run: bool) -> None:
        """Heating on or off; safe is off."""
        await self.put("run", 1 if run else 0)


class Chamber(Role):
    """Closed chamber: purge, pressure, dew point, door lock."""

    key = "chamber"
    reading_type = ChamberReading
    reading: ChamberReading | None

    async def set_purge(self, on: bool) -> None:
        """Open or close the purge valve."""
        await self.put("purge", 1 if on else 0)


class ProcessHead(Role):
    """Processing optics: protective window, cooling, collision switch."""

    key = "process_head"
    reading_type = HeadReading
    reading: HeadReading | None


class PowderLine(Role):
    """Pressure sensors behind the powder splitter, hopper scales."""

    key = "powder_line"
    reading_type = PowderLineReading
    reading: PowderLineReading | None


class Room(Role):
    """Air for people, extraction, supplies, emergency power."""

    key = "room"
    reading_type = RoomReading
    reading: RoomReading | None


ROLES: tuple[type[Role], ...] = (
    LaserSource,
    PowderFeeder,
    GasFlow,
    Chiller,
    OxygenAnalyser,
    Pyrometer,
    SafetyPlc,
    MeltPoolCamera,
    HeightSensor,
    AxisDrives,
    PowerMeter,
    SubstrateHeater,
    Chamber,
    ProcessHead,
    PowderLine,
    Room,
)
