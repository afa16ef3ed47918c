"""Sections of a cell file that stand for a device on a port.

Seven of them every cell has. Those of ``OPTIONAL`` a cell has or has not: without the section
there is no reading of that kind and no rule that watches it, and preflight says so.
"""

from pydantic import BaseModel, ConfigDict, Field, model_validator

from controller import units as u


class Strict(BaseModel):
    """Base of every file model: unknown keys and wrong types are errors."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, populate_by_name=False, allow_inf_nan=False
    )


class Device(Strict):
    """What every device on a port has."""

    driver: str
    # where its registers stand, for drivers that leave that to a file
    map: str | None = None
    port: str
    poll_hz: u.Hz = Field(alias="poll", gt=0, le=1000)
    max_age_s: u.Second = Field(alias="max_age", gt=0)

    def options(self) -> dict[str, str]:
        """What the driver is told besides its port: what of it the file gives."""
        return {} if self.map is None else {"map": self.map}


class Laser(Device):
    """The laser source; its power and gate come from the motion controller's outputs."""

    rated_power_w: u.Watt = Field(alias="rated_power", gt=0)
    threshold_power_w: u.Watt = Field(alias="threshold_power", ge=0)
    resolution_bits: int = Field(ge=4, le=16)
    power_latency_s: u.Second = Field(alias="power_latency", ge=0)
    power_jitter_s: u.Second = Field(alias="power_jitter", ge=0)
    gate_latency_s: u.Second = Field(alias="gate_latency", ge=0)
    gate_jitter_s: u.Second = Field(alias="gate_jitter", ge=0)
    # where light goes off later or sooner than it comes on; as gate_latency when absent
    gate_off_latency_s: u.Second | None = Field(default=None, alias="gate_off_latency", ge=0)
    power_slew_w_s: u.WattPerS | None = Field(default=None, alias="power_slew", gt=0)
    # without light for so long, the source leaves its ready state (diode lasers)
    beam_timeout_s: u.Second | None = Field(default=None, alias="beam_timeout", gt=0)
    # a hold by an alarm leaves the source enabled, gate shut: one that takes long to come back
    keep_ready_in_hold: bool = False
    longest_emission_s: u.Second = Field(alias="longest_emission", gt=0)
    spot_diameter_mm: u.Mm = Field(alias="spot_diameter", gt=0)


class Hopper(Strict):
    """One powder hopper: what is in it."""

    powder: str
    lot: str
    mass_g: u.Gram = Field(alias="mass", ge=0)
    # where this line differs from the feeder's; absent: the feeder's
    transport_delay_s: u.Second | None = Field(default=None, alias="transport_delay", ge=0)
    lag_s: u.Second | None = Field(default=None, alias="lag", ge=0)


class Powder(Device):
    """The powder feeder with its measured transport."""

    map: str = Field()
    transport_delay_s: u.Second = Field(alias="transport_delay", ge=0)
    lag_s: u.Second = Field(alias="lag", ge=0)
    greatest_flow_g_min: u.GramPerMin = Field(alias="greatest_flow", gt=0)
    # below this the disc does not feed evenly: a hopper gives 0 or at least this
    least_flow_g_min: u.GramPerMin = Field(default=0.0, alias="least_flow", ge=0)
    hoppers: list[Hopper] = Field(min_length=1, max_length=2)

    @model_validator(mode="after")
    def _flows_make_sense(self) -> "Powder":
        if self.least_flow_g_min >= self.greatest_flow_g_min:
            raise ValueError(
                f"least_flow {self.least_flow_g_min:g} g/min is not below "
                f"greatest_flow {self.greatest_flow_g_min:g} g/min"
            )
        return self


class Chiller(Device):
    """Coolant for source and head."""

    setpoint_deg_c: u.DegC = Field(alias="setpoint")


class Gas(Device):
    """Carrier and shield gas flow controllers."""

    greatest_flow_l_min: u.LitrePerMin = Field(alias="greatest_flow", gt=0)


class Oxygen(Device):
    """Chamber oxygen analyser."""


class Pyrometer(Device):
    """Two-colour pyrometer on the melt pool."""

    range_deg_c: list[u.DegC] = Field(alias="range", min_length=2, max_length=2)


class Safety(Device):
    """Safety PLC, read only but for the supply relay it may be asked to drop."""

    map: str = Field()  # which bit means what is each machine's own project


class Camera(Device):
    """Melt pool camera. ``map`` is its setup: a name in ``configs/cameras`` or a path."""

    # GenICam: path of the maker's producer file (``.cti``), and which of its cameras
    producer: str | None = None
    serial: str | None = None
    # a pool wider than this ends the beam; absent: no such rule
    widest_mm: u.Mm | None = Field(default=None, alias="widest_pool", gt=0)

    def options(self) -> dict[str, str]:
        """The driver's own, as far as the file gives them."""
        given = {"map": self.map, "producer": self.producer, "serial": self.serial}
        return {key: value for key, value in given.items() if value is not None}


class Height(Device):
    """Point or line sensor on the work beside the nozzle."""

    range_mm: list[u.Mm] = Field(alias="range", min_length=2, max_length=2)
    # the work may be so far from where the plan has it
    greatest_error_mm: u.Mm = Field(alias="greatest_error", gt=0)

    @model_validator(mode="after")
    def _range_holds_something(self) -> "Height":
        _ordered("range", self.range_mm, "mm")
        return self


class Drives(Device):
    """Servo drives of the axes."""

    # of any axis; degrees count as mm where an axis turns
    following_error_mm: u.Mm = Field(alias="following_error", gt=0)


class PowerMeter(Device):
    """Laser power meter."""

    greatest_power_w: u.Watt = Field(alias="greatest_power", gt=0)
    uncertainty: float = Field(default=0.03, gt=0, le=0.5)  # share of the reading


class Heater(Device):
    """Substrate heater."""

    setpoint_deg_c: u.DegC = Field(alias="setpoint", gt=0)
    greatest_deg_c: u.DegC = Field(alias="greatest", gt=0)
    band_k: float = Field(default=20.0, gt=0, le=200)  # about the set point: it is reached

    @model_validator(mode="after")
    def _within(self) -> "Heater":
        if self.setpoint_deg_c > self.greatest_deg_c:
            raise ValueError(
                f"setpoint {self.setpoint_deg_c:g} degC is above greatest {self.greatest_deg_c:g} "
                "degC"
            )
        return self


class Chamber(Device):
    """Closed chamber: purge, pressure, dew point."""

    # above the room's; below it air may come in
    least_pressure_pa: u.Pa = Field(alias="least_pressure", gt=0)
    # coolant must be so much warmer than the dew point
    dew_margin_k: float = Field(default=2.0, gt=0, le=30)
    greatest_moisture_ppm: u.Ppm | None = Field(default=None, alias="greatest_moisture", gt=0)


class Head(Device):
    """Process head: protective window, cooling, collision switch."""

    greatest_window_deg_c: u.DegC = Field(alias="greatest_window", gt=0)
    greatest_scatter_pct: u.Percent = Field(alias="greatest_scatter", gt=0, le=100)


class PowderLine(Device):
    """Back-pressure of each stream to the nozzle, hopper scales."""

    streams: int = Field(ge=1, le=8)
    greatest_pressure_kpa: u.KPa = Field(alias="greatest_pressure", gt=0)
    # a stream may differ so much from the others, as a share of them
    uneven_share: float = Field(default=0.5, gt=0, le=1)


class RoomSupply(Device):
    """The room: oxygen for people, extraction, supplies, emergency power."""

    least_oxygen_pct: u.Percent = Field(default=19.5, alias="least_oxygen", ge=17, le=20.9)
    # compressed air, argon
    least_supply_kpa: list[u.KPa] = Field(alias="least_supply", min_length=2, max_length=2)
    least_charge_pct: u.Percent = Field(default=50.0, alias="least_charge", ge=0, le=100)


def _ordered(key: str, pair: list[float], unit: str) -> None:
    if pair[0] >= pair[1]:
        raise ValueError(f"{key} {pair[0]:g} to {pair[1]:g} {unit} is empty")
