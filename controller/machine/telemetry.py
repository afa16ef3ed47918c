"""The newest reading of every role, and the telemetry row.

A device's part of the row is made once per reading, not once per tick: most devices are
polled at a tenth of the row's rate.
"""

import math
from typing import Any

from controller.machine.cell import CellDevices
from controller.machine.extras import Extras
from controller.machine.monitor import Monitor
from controller.machine.snapshot import MachineSnapshot
from controller.record.schema import PACKER

NAN = math.nan
_NO_LASER = (NAN, NAN, NAN)
_NO_POWDER = (NAN, NAN, NAN, NAN)
_NO_PAIR = (NAN, NAN)


class Readings:
    """Readings by role; None before the first good poll."""

    def __init__(self, devices: CellDevices, monitor: Monitor) -> None:
        self._monitor = monitor
        loops = devices.by_role
        self._laser, self._powder, self._gas = (
            loops[r].driver if r in loops else None for r in ("laser", "powder", "gas")
        )
        self._chiller, self._oxygen, self._pyrometer, self._safety = (
            loops[r].driver if r in loops else None
            for r in ("chiller", "oxygen", "pyrometer", "safety")
        )
        self.extras = Extras({role: loop.driver for role, loop in loops.items()})
        self.laser: Any = None
        self.powder: Any = None
        self.gas: Any = None
        self.chiller: Any = None
        self.oxygen: Any = None
        self.pyrometer: Any = None
        self.safety: Any = None
        self.laser_row = _NO_LASER
        self.powder_row = _NO_POWDER
        self.gas_row = _NO_PAIR
        self.chiller_row = _NO_PAIR
        self.oxygen_ppm = NAN
        self.pool_temp_deg_c = NAN

    def update(self) -> bool:
        """Look at every driver; True when the powder feeder has been read anew."""
        new = _reading(self._pyrometer)
        if new is not self.pyrometer:
            self.pyrometer = new
            self.pool_temp_deg_c = new.temp_deg_c
            self._monitor.pyrometer(new)
        new = _reading(self._laser)
        if new is not self.laser:
            self.laser = new
            self.laser_row = (new.power_measured_w, float(new.emission_on), new.temp_deg_c)
            self._monitor.laser(new)
        self.safety = _reading(self._safety)
        new = _reading(self._gas)
        if new is not self.gas:
            self.gas = new
            self.gas_row = (new.carrier_l_min, new.shield_l_min)
        new = _reading(self._chiller)
        if new is not self.chiller:
            self.chiller = new
            self.chiller_row = (new.coolant_deg_c, new.pressure_mpa)
        new = _reading(self._oxygen)
        if new is not self.oxygen:
            self.oxygen = new
            self.oxygen_ppm = new.oxygen_ppm if new.valid else NAN
        self.extras.update()
        new = _reading(self._powder)
        if new is self.powder:
            return False
        self.powder = new
        flow, left = new.flow_measured_g_min, new.mass_left_g
        two = len(flow) > 1
        self.powder_row = (flow[0], left[0], flow[1] if two else NAN, left[1] if two else NAN)
        return True


def _reading(driver: Any) -> Any:
    return None if driver is None else driver.reading


def pack_row(t_us: int, ex: Any, now_us: int) -> bytes:
    """One TELEMETRY row of an executor, in the order of ``controller.record.schema.FIELDS``."""
    r, mon, out, cursor, m = ex.readings, ex.monitor, ex.outputs, ex.cursor, ex.motion
    x, y, z = mon.position_mm
    power_w, emission, laser_temp = r.laser_row
    flow_1, left_1, flow_2, left_2 = r.powder_row
    carrier, shield = r.gas_row
    coolant, pressure = r.chiller_row
    set_1, set_2 = out.hopper_set_g_min
    if cursor is None:
        plan_s, layer, track, power_set_w = 0.0, -1, -1, 0.0
    else:
        plan_s, layer, track = cursor.plan_us * 1e-6, cursor.layer, cursor.track
        power_set_w = cursor.power_set_w
    if m is None:
        gate = armed = interlock = segment = scale = beat = link_ms = NAN
        queued = link_state = fault = NAN
    else:
        gate, armed, interlock, segment = m.gate_on, m.armed, m.interlock_ok, m.segment
        scale, link_ms = m.scale, (now_us - m.received_us) * 1e-3
        beat = m.beat_age_us * 1e-3 if m.beat_age_us >= 0 else NAN  # not every machine tells
        queued = m.queued if m.queued >= 0 else NAN
        link_state, fault = m.state, m.fault
    return PACKER.pack(
        t_us, x, y, z, mon.speed_mm_s, power_set_w, mon.commanded_w, power_w,
        gate, emission, armed, interlock, segment, plan_s, layer, track, scale, ex.overrides.power,
        set_1, flow_1, left_1, set_2, flow_2, left_2, out.diverter_to_nozzle,
        out.carrier_set_l_min, carrier, out.shield_set_l_min, shield,
        r.oxygen_ppm, coolant, pressure, laser_temp, r.pool_temp_deg_c,
        beat, link_ms, queued, ex.machine.state, link_state, fault,
        *r.extras.row,
    )  # fmt: skip


def make_snapshot(ex: Any, now_us: int) -> MachineSnapshot:
    """The frozen look at an executor that guards and clients get."""
    r, out, cursor, mon = ex.readings, ex.outputs, ex.cursor, ex.monitor
    segment, layer, track, plan_s, power_set_w = -1, -1, -1, 0.0, 0.0
    if cursor is not None:
        segment, layer, track = cursor.segment, cursor.layer, cursor.track
        plan_s, power_set_w = cursor.plan_us * 1e-6, cursor.power_set_w
    return MachineSnapshot(
        now_us=now_us,
        state=ex.machine.state,
        mode=ex.mode,
        link_up=ex.link_ready,
        online=ex.online,
        motion=ex.motion,
        laser=r.laser,
        powder=r.powder,
        gas=r.gas,
        chiller=r.chiller,
        oxygen=r.oxygen,
        pyrometer=r.pyrometer,
        safety=r.safety,
        **r.extras.by_role,
        refusal=ex.link.refusal,
        hold_commanded=ex.hold_commanded,
        laser_enabled=ex.laser_enabled,
        power_set_w=power_set_w,
        powder_set_g_min=out.hopper_set_g_min,
        powder_set_us=out.powder_set_us,
        powder_least_g_min=out.powder_least_g_min(now_us - ex.limits.powder_settle_us),
        diverter_to_nozzle=out.diverter_to_nozzle,
        carrier_set_l_min=out.carrier_set_l_min,
        shield_set_l_min=out.shield_set_l_min,
        gas_set_us=out.gas_set_us,
        segment=segment,
        layer=layer,
        track=track,
        plan_time_s=plan_s,
        powder_needed_g=ex.needed_g,
        gate_open_us=mon.gate_open_us,
        power_short=mon.power_short,
        unseen_emission_s=mon.unseen_emission_s,
    )
