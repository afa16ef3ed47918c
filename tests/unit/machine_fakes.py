"""A cell without wires for tests of the supervisor: scripted devices and a motion controller.

Time is simulated: ``run_virtual`` runs a coroutine function on a VirtualLoop whose
simulator does nothing but let time pass.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from controller.clock import Clock, NullTime, VirtualLoop
from controller.config import load_cell
from controller.machine.cell import ROLES, CellDevices
from controller.machine.executor import Executor
from controller.machine.job import Job, make_job
from controller.model import LAYER_ROW, TIMELINE_ROW, TRACK_ROW, BuildPlan, PowderChannel
from controller.recipes import load_recipe
from firmware_bridge import roles
from firmware_bridge.errors import DeviceError
from firmware_bridge.link_types import SEGMENT_LINK, LinkEvent, MotionStatus
from firmware_bridge.segments import SEGMENT

START_STEPS = 4000  # where homing leaves the fake's first axis: room for a run-up
IDLE, HOMING, RUN, HOLDING, HELD, FAULT = 0, 1, 2, 3, 4, 5


class _PassingTime:
    """A simulator in which nothing happens."""

    def wait(self, target_us: int, writes: list[Any]) -> tuple[int, list[Any]]:
        if target_us > 1 << 60:
            raise RuntimeError("the test waits for something that never comes")
        return target_us, []

    def opened(self, channel: int) -> None: ...
    def closed(self, channel: int) -> None: ...
    def finish(self) -> None: ...


def run_virtual(main: Any) -> Any:
    """Run ``main()`` on simulated time."""
    loop = VirtualLoop(NullTime(_PassingTime()))
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main())


def status(**change: Any) -> MotionStatus:
    """A healthy status at rest, with changes."""
    rest: dict[str, Any] = {
        "device_us": 0, "state": IDLE, "armed": False, "gate_on": False, "interlock_ok": True,
        "homed": True, "fault": 0, "segment": -1, "segment_tick_us": 0, "scale": 1.0,
        "power_fraction": 0.0, "position_steps": (START_STEPS, 0, 0, 0, 0, 0), "queued": 0,
        "beat_age_us": 5000, "tracks_started": 0, "received_us": 0, "hold_pending": False,
    }  # fmt: skip
    return MotionStatus(**{**rest, **change})


class FakeLink:
    """Plays segments in time; ``log`` tells what was asked, in order, with the instant."""

    abilities = SEGMENT_LINK
    lacks: dict[str, str] = {}

    def __init__(self, log: list[tuple[int, str]]) -> None:
        self.log = log
        self.status: MotionStatus | None = None
        self.on_event: Callable[[LinkEvent], None] | None = None
        self.on_lost: Callable[[str], None] | None = None
        self.finished = False
        self.is_open = True
        self.n_tokens = 0
        self.silent = False
        self.refuse_arm = ""
        self.refusal = ""
        self.home_fails = ""
        self.deaf_to_unhold = False  # going on, by UNHOLD or with a rest, moves nothing
        self.track_ends_us = 400_000  # a HOLD waits for the next multiple of this plan time
        self._state = IDLE
        self.armed = False
        self.homed = True
        self.fault = 0
        self._plan_us = self._zero_us = 0
        self._ticks: list[int] = []
        self._gate: list[bool] = []
        self._hold_at_us: int | None = None
        self._task: asyncio.Task[None] | None = None

    def _now(self) -> int:
        return round(asyncio.get_running_loop().time() * 1e6)

    def _note(self, what: str) -> None:
        self.log.append((self._now(), what))

    async def connect(self) -> str:
        self.is_open = True
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        return "fake 1.0.0"

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(0.01)
            if self._state == RUN:
                self._plan_us += 10_000
                if self._hold_at_us is not None and self._plan_us >= self._hold_at_us:
                    self._state, self._hold_at_us = HELD, None
                if self._plan_us >= sum(self._ticks):
                    self._state, self.finished = IDLE, True
            if not self.silent:
                self.status = self._make_status()

    def _make_status(self) -> MotionStatus:
        segment, left = -1, self._plan_us
        if self._ticks and (self._state in (RUN, HELD) or self._plan_us):
            for segment, ticks in enumerate(self._ticks):  # noqa: B007
                if left < ticks:
                    break
                left -= ticks
        gate = self._state == RUN and segment >= 0 and self._gate[segment]
        now = self._now()
        return status(
            device_us=now, state=self._state, armed=self.armed, gate_on=gate, homed=self.homed,
            fault=self.fault, segment=segment, segment_tick_us=left,
            power_fraction=0.6 if gate else 0.0,
            position_steps=(START_STEPS + (self._plan_us - self._zero_us) // 100, 0, 0, 0, 0, 0),
            received_us=now,
        )  # fmt: skip

    def token(self) -> None:
        self.n_tokens += 1

    def load(self, segments: np.ndarray) -> None:
        self._note("load")
        self._ticks = [int(v) for v in segments["ticks_lo"].astype(int)
                       + (segments["ticks_hi"].astype(int) << 16)]  # fmt: skip
        self._gate = [bool(v & 1) for v in segments["flags"]]
        self.loaded = segments

    async def home(self) -> None:
        self._note("home")
        await asyncio.sleep(1.0)
        if self.home_fails:
            raise DeviceError(self.home_fails)
        self.homed = True
        self._zero_us = self._plan_us

    async def arm(self) -> None:
        self._note("arm")
        if self.refuse_arm:
            raise DeviceError(self.refuse_arm)
        self.armed = True

    async def disarm(self) -> None:
        self._note("disarm")
        self.armed = False
        if self._state == RUN:
            self._state = HELD

    def start(self, first: int = 0) -> None:
        self._note("start" if first == 0 else f"start at {first}")
        self._plan_us = self._zero_us = sum(self._ticks[:first])
        self.finished = False
        self._state = IDLE if first and self.deaf_to_unhold else RUN

    def hold(self, *, now: bool) -> None:
        self._note("hold now" if now else "hold at track end")
        if self._state != RUN:
            return
        if now:
            self._hold_at_us = self._plan_us
        else:
            n = self.track_ends_us
            self._hold_at_us = (self._plan_us // n + 1) * n

    def unhold(self) -> None:
        self._note("unhold")
        if not self.deaf_to_unhold:
            self._state = RUN

    def abort(self) -> None:
        self._note("abort")
        self.armed, self.fault, self._state = False, 6, FAULT

    async def reset(self) -> None:
        self._note("reset")
        if not self.fault:
            return  # as the firmware: nothing to clear
        self.fault, self._state, self._plan_us = 0, IDLE, 0

    def override(self, scale: float) -> None:
        self._note(f"override {scale}")

    def trim(self, factor: float) -> None:
        self._note(f"trim {factor:g}")

    def close(self) -> None:
        self.is_open = False
        if self._task is not None:
            self._task.cancel()


GOOD: dict[str, Any] = {
    "laser": roles.LaserReading(
        at_us=0, ready=True, emission_on=False, enabled=False, starting=False, fault_bits=0,
        faults=(), power_measured_w=0.0, temp_deg_c=25.0, interlock_ok=True,
        unexpected_emission=False, back_reflection=False, external_control=False, gate_mode=False,
    ),
    "powder": roles.FeederReading(
        at_us=0, flow_measured_g_min=(0.0, 0.0), speed_measured_rpm=(0.0, 0.0),
        flow_set_g_min=(0.0, 0.0), mass_left_g=(5000.0, 5000.0), stalled=False,
        stalled_hoppers=(False, False), diverter_to_nozzle=False, ready=True,
    ),
    "gas": roles.GasReading(
        at_us=0, carrier_l_min=0.0, shield_l_min=0.0, carrier_set_l_min=0.0, shield_set_l_min=0.0
    ),
    "chiller": roles.ChillerReading(
        at_us=0, coolant_deg_c=22.0, pressure_mpa=0.3, flow_ok=True, running=True, alarm_bits=0,
        setpoint_deg_c=22.0,
    ),
    "oxygen": roles.OxygenReading(at_us=0, oxygen_ppm=209_000.0, valid=True),
    "pyrometer": roles.PyrometerReading(at_us=0, temp_deg_c=1500.0, ok=True, saturated=False),
    "safety": roles.SafetyReading(
        at_us=0, estop_ok=True, door_closed=True, interlock_ok=True, reset_needed=False,
        watchdog_ok=True, supply_relay_on=True,
    ),
}  # fmt: skip


class FakeDriver:
    """A device that takes every command; ``fails`` names those that it does not take."""

    def __init__(self, role: str, log: list[tuple[int, str]]) -> None:
        self.role = role
        self.log = log
        self.truth = GOOD[role]
        self.reading: Any = None
        self.dead = False
        self.fails: dict[str, str] = {}
        self.hangs: dict[str, None] = {}
        self.enable_s = 0.05  # from EMON to enabled
        self.emits_w: Callable[[], float] = lambda: self.truth.power_measured_w
        self.last_deg_c = 0.0
        self.frozen = False
        self._set = {0: 0.0, 1: 0.0}

    async def connect(self) -> None: ...

    def close(self) -> None: ...

    async def poll(self) -> None:
        if self.dead:
            raise DeviceError(f"{self.role}: no answer")
        now_us = round(asyncio.get_running_loop().time() * 1e6)
        await asyncio.sleep(0.005)
        reading = replace(self.truth, at_us=now_us)
        if self.role == "pyrometer" and reading.temp_deg_c == self.last_deg_c and not self.frozen:
            reading = replace(reading, temp_deg_c=reading.temp_deg_c + 0.1)  # no pool is so still
        if self.role == "pyrometer":
            self.last_deg_c = reading.temp_deg_c
        if self.role == "laser":
            reading = replace(reading, power_measured_w=self.emits_w())
        self.reading = reading

    async def _do(self, what: str, **change: Any) -> None:
        self.log.append((round(asyncio.get_running_loop().time() * 1e6), f"{self.role} {what}"))
        if what in self.hangs:
            await asyncio.sleep(1000.0)
        await asyncio.sleep(0.005)
        if what in self.fails:
            raise DeviceError(f"{self.role}: {self.fails[what]}")
        self.truth = replace(self.truth, **change)

    async def emission_enable(self) -> None:
        await self._do("enable")
        await asyncio.sleep(self.enable_s)
        self.truth = replace(self.truth, enabled=True)

    async def emission_disable(self) -> None:
        await self._do("disable", enabled=False)

    async def reset_errors(self) -> None:
        await self._do("reset")

    async def set_flow(self, hopper: int, g_min: float) -> None:
        self._set[hopper] = g_min
        flows = tuple(self._set.values())
        await self._do(f"flow {hopper} {g_min:g}", flow_measured_g_min=flows)

    async def set_diverter(self, to_nozzle: bool) -> None:
        await self._do(f"diverter {to_nozzle}", diverter_to_nozzle=to_nozzle)

    async def set_carrier(self, l_min: float) -> None:
        await self._do(f"carrier {l_min:g}", carrier_l_min=l_min, carrier_set_l_min=l_min)

    async def set_shield(self, l_min: float) -> None:
        await self._do(f"shield {l_min:g}", shield_l_min=l_min, shield_set_l_min=l_min)

    async def set_setpoint(self, deg_c: float) -> None:
        await self._do(f"setpoint {deg_c:g}")

    async def set_run(self, run: bool) -> None:
        await self._do(f"run {run}", running=run)

    async def drop_supply(self) -> None:
        await self._do("drop supply", supply_relay_on=False)

    async def request_reset(self) -> None:
        await self._do("request reset", reset_needed=False, interlock_ok=True)


class FakeRecord:
    """Keeps rows and events in memory."""

    def __init__(self, folder: Path, header: dict[str, Any], job: Path, expected_s: float) -> None:
        self.folder, self.header, self.job, self.expected_s = folder, header, job, expected_s
        self.rows: list[tuple[int, bytes]] = []
        self.events: list[tuple[int, str, dict[str, Any]]] = []
        self.closed: tuple[int, str] | None = None
        self.fails: Exception | None = None
        self.sealed_until_us = 0

    def telemetry(self, t_us: int, packed: bytes) -> None:
        if self.fails is not None:
            raise self.fails
        self.rows.append((t_us, packed))

    def event(self, t_us: int, kind: str, data: Any) -> None:
        self.events.append((t_us, kind, dict(data)))

    def tick(self, t_us: int) -> None: ...

    def close(self, t_us: int, state: str, data: Any) -> dict[str, Any]:
        self.closed = (t_us, state)
        return {"state": state, "rows": len(self.rows), "content_hash": "0" * 64}


CELL, CELL_TEXT = load_cell("sim")


def make_plan(n_tracks: int = 5, track_s: float = 0.4, cell_text: str = CELL_TEXT) -> BuildPlan:
    """Straight tracks along X, 0.3 s emission and 0.1 s travel each, one layer each two."""
    emission, travel = round(track_s * 0.75e6), round(track_s * 0.25e6)
    segments = np.zeros(2 * n_tracks, SEGMENT)
    tracks, layers = np.zeros(n_tracks, TRACK_ROW), np.zeros((n_tracks + 1) // 2, LAYER_ROW)
    for k in range(n_tracks):
        for j, (ticks, flags) in enumerate(((emission, 0x05), (travel, 0))):
            row = segments[2 * k + j]
            row["steps"][0] = 100
            row["start_ratio"] = row["end_speed"] = 32768
            row["ticks_lo"], row["ticks_hi"] = ticks & 0xFFFF, ticks >> 16
            row["flags"], row["end_power"] = flags, 39321
        tracks[k]["layer"], tracks[k]["power_set_w"] = k // 2, 600.0
        tracks[k]["speed_mm_s"] = 0.25e6 / emission
        tracks[k]["length_mm"], tracks[k]["powder_g_min"] = 0.25, 6.0
        tracks[k]["start_s"] = k * track_s
        tracks[k]["end_s"] = k * track_s + emission * 1e-6
        tracks[k]["first_segment"], tracks[k]["end_segment"] = 2 * k, 2 * k + 1
    layers["layer"] = np.arange(len(layers))
    timeline = np.array(
        [
            (0.0, PowderChannel.CARRIER, 6.0),
            (0.0, PowderChannel.SHIELD, 18.0),
            (0.0, PowderChannel.HOPPER_1, 6.0),
            (0.1, PowderChannel.DIVERTER, 1.0),
            (n_tracks * track_s - 0.1, PowderChannel.HOPPER_1, 0.0),
        ],
        dtype=TIMELINE_ROW,
    )
    return BuildPlan(
        segments=segments,
        start_steps=np.array([START_STEPS, 0, 0, 0, 0, 0], np.int64),
        tracks=tracks,
        layers=layers,
        timeline=timeline,
        path_mm=np.zeros((0, 3)),
        figures={"duration_s": n_tracks * track_s},
        cell_toml=cell_text,
        recipe_toml=load_recipe("316l_general")[1],
        material_toml="",
        part={"name": "test bar"},
    )


def make_test_job(**options: Any) -> Job:
    return make_job(Path("bar.lmdjob"), make_plan(**options), "f" * 64, CELL)


class Bench:
    """An executor on a fake cell, with a log of everything that was commanded."""

    def __init__(self) -> None:
        self.log: list[tuple[int, str]] = []
        self.link = FakeLink(self.log)
        self.drivers = {role: FakeDriver(role, self.log) for role in ROLES}
        self.drivers["laser"].emits_w = self._emission_w
        poll_hz = {role: getattr(CELL, role).poll_hz for role in ROLES}
        self.device_texts: list[tuple[str, str]] = []
        devices = CellDevices(
            self.drivers, poll_hz, lambda role, text: self.device_texts.append((role, text))
        )
        self.records: list[FakeRecord] = []
        loop: Any = asyncio.get_running_loop()
        self.ex = Executor(
            CELL, CELL_TEXT, self.link, devices, Clock(loop), open_record=self._open_record
        )
        self.states: list[str] = []
        self.events: list[tuple[int, str, dict[str, Any]]] = []
        self.ex.journal.listeners.append(self._event)

    def _emission_w(self) -> float:
        """What the source measures: what the gate lets through, and what leaks."""
        m = self.link.status
        commanded = 1000.0 * m.power_fraction if m is not None and m.gate_on else 0.0
        return commanded + self.drivers["laser"].truth.power_measured_w

    def _event(self, t_us: int, kind: str, data: Any) -> None:
        self.events.append((t_us, kind, dict(data)))
        if kind == "state":
            self.states.append(data["new"])

    def _open_record(self, folder: Path, header: Any, job: Path, expected_s: float) -> FakeRecord:
        self.records.append(FakeRecord(folder, header, job, expected_s))
        return self.records[-1]

    def alarms(self) -> list[str]:
        return [d["name"] for _, kind, d in self.events if kind == "alarm"]

    def said(self, what: str) -> list[int]:
        """Instants at which something was commanded."""
        return [t for t, text in self.log if text == what]

    def truth(self, role: str, **change: Any) -> None:
        """Change what a device will report from now on."""
        driver = self.drivers[role]
        driver.truth = replace(driver.truth, **change)

    async def ready(self, **job: Any) -> None:
        """Boot to IDLE with a job loaded."""
        self.ex.begin()
        await self.ex.connect()
        await asyncio.sleep(0.3)
        self.ex.reset("test")
        await self.until_state("IDLE")
        self.ex.load(make_test_job(**job))

    async def until_state(self, *names: str, limit_s: float = 60.0) -> None:
        loop = asyncio.get_running_loop()
        end_s = loop.time() + limit_s
        while self.ex.state.name not in names:
            if loop.time() > end_s:
                raise AssertionError(f"{self.ex.state.name} for {limit_s} s, not {names}")
            await asyncio.sleep(0.01)

    async def executing(self, after_s: float = 0.2, folder: Path | None = None, **job: Any) -> None:
        """Boot, start, and be some time into EXECUTE."""
        await self.ready(**job)
        self.ex.start("test", folder, self.ex.mode)
        await self.until_state("EXECUTE")
        await asyncio.sleep(after_s)

    async def end(self) -> None:
        await self.ex.end()
