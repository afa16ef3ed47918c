"""How readings are taken on a cell, a routine a kind: rows as the fit of the kind wants them.

Each drives the cell through its server (``desk``) and reads the bench's instruments. A kind
that a person measures asks the bench for what the person wrote down.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from controller.commissioning import programs
from controller.commissioning.desk import Desk
from controller.commissioning.fits import DOOR_STEPS

WEIGH_S = 40.0
STEP_S = 30.0
POWER_ON_S = 1.5
Rows = list[tuple[Any, ...]]


def _hopper(item: str) -> int:
    return int(item.removeprefix("hopper")) - 1


def feeder(desk: Desk, item: str) -> Rows:
    """Five speeds, each weighed for 40 s at the nozzle once the flow is steady."""
    hopper, powder = _hopper(item), desk.cell.powder
    settle_s = 2.0 * powder.transport_delay_s + 5.0 * powder.lag_s + 10.0
    rows: Rows = []
    with desk.quiet_after():
        desk.call("gas", "set_carrier", programs.CARRIER_L_MIN)
        desk.call("powder", "set_diverter", True)
        for n, share in enumerate((0.15, 0.3, 0.45, 0.6, 0.8)):
            desk.tell(n / 5, f"weighing at {share:.0%} of the greatest flow")
            flow = share * powder.greatest_flow_g_min
            desk.call("powder", "set_flow", hopper, flow)
            desk.wait(settle_s)
            start = desk.count("balance")
            desk.wait(WEIGH_S)
            log = np.array(desk.samples("balance", start))
            reading = desk.read("powder")
            k = reading["flow_measured_g_min"][hopper] / reading["speed_measured_rpm"][hopper]
            rpm = reading["flow_set_g_min"][hopper] / k
            # straight through all samples, the mean of ten at each end is enough
            mass_g = log[-10:, 1].mean() - log[:10, 1].mean()
            seconds = (log[-10:, 0].mean() - log[:10, 0].mean()) * 1e-6
            rows.append((float(rpm), float(seconds), float(mass_g)))
    return rows


def delay(desk: Desk, item: str) -> Rows:
    """One step from nothing to 60 % of the greatest flow, weighed ten times a second."""
    hopper, powder = _hopper(item), desk.cell.powder
    with desk.quiet_after():
        desk.call("gas", "set_carrier", programs.CARRIER_L_MIN)
        desk.call("powder", "set_diverter", True)
        desk.tell(0.1, "waiting until no powder flows")
        desk.wait(3.0 * powder.transport_delay_s + 5.0 * powder.lag_s + 15.0)
        start = desk.count("balance")
        desk.wait(2.0)
        desk.tell(0.3, "step of the flow")
        ahead_us = desk.bench_ahead_us()
        told_us = desk.call("powder", "set_flow", hopper, 0.6 * powder.greatest_flow_g_min)
        desk.wait(STEP_S)
        at_us = told_us + ahead_us
        log = desk.samples("balance", start)
    return [((t - at_us) * 1e-6, mass) for t, mass in log]


def power(desk: Desk, item: str) -> Rows:
    """Light on the power meter at seven powers up to full; the settled samples of each."""
    laser = desk.cell.laser
    least = max(0.12 * laser.rated_power_w, 1.5 * laser.threshold_power_w)
    powers = [float(p) for p in np.linspace(least, 0.98 * laser.rated_power_w, 7)]
    start = desk.count("power")
    desk.run(programs.light(desk.cell, powers, POWER_ON_S, 0.5), "calibration:power")
    log = desk.samples("power", start)
    runs: list[list[float]] = [[]]
    for _, watts in log:
        if watts > 0.3 * least:
            runs[-1].append(watts)
        elif runs[-1]:
            runs.append([])
    runs = [r for r in runs if len(r) >= 6]
    return [(p, w) for p, run in zip(powers, runs, strict=True) for w in run[2:-2]]


def gate(desk: Desk, item: str) -> Rows:
    """Thirty short pulses at half power, seen by the edge recorder at the output and as light."""
    half_w = 0.5 * desk.cell.laser.rated_power_w
    start = desk.count("edges")
    desk.run(programs.light(desk.cell, [half_w] * 30, 0.06, 0.09), "calibration:gate")
    found = [row.split(",") for row in desk.log("edges", start)]
    return [(signal, float(a), float(b)) for signal, a, b in found]


def axis(desk: Desk, item: str) -> Rows:
    """Four places of each axis from both sides, against the interferometer."""
    rows: Rows = []
    for number, name in enumerate("xyz"):
        info = desk.cell.motion.machine_axes[number]
        here = info.home + desk.position_steps()[number] / info.steps_per_unit
        span = info.most - info.least
        places = [info.least + span * s for s in (0.1, 0.35, 0.6, 0.85)]
        program, rests = programs.back_and_forth(desk.cell, number, places, here, 2.0, 1.0)
        start = desk.count("place")
        desk.tell(number / 3, f"axis {name.upper()} against the interferometer")
        desk.run(program, f"calibration:axis-{name}")
        log = np.array(desk.samples("place", start))
        plateaus = _plateaus(log[:, 1 + number])
        # before the job and after it the axis rests as well
        wanted = plateaus[-len(rests) - 1 : -1]
        for (place, direction, _), (a, b) in zip(rests, wanted, strict=True):
            rows.append((name, place, direction, float(log[a + 2 : b - 1, 1 + number].mean())))
    return rows


def _plateaus(values: np.ndarray) -> list[tuple[int, int]]:
    """Index ranges [a, b) in which a place does not change by more than 5 um, six or more long."""
    found, a = [], 0
    for k in range(1, len(values) + 1):
        if k == len(values) or abs(values[k] - values[k - 1]) > 0.005:
            if k - a >= 6:
                found.append((a, k))
            a = k
    return found


def gas(desk: Desk, item: str) -> Rows:
    """Five set values of each gas against the flow standard."""
    rows: Rows = []
    with desk.quiet_after():
        for which in ("carrier", "shield"):
            for share in (0.1, 0.25, 0.4, 0.6, 0.8):
                flow = share * desk.cell.gas.greatest_flow_l_min
                desk.call("gas", f"set_{which}", flow)
                desk.wait(4.0)
                rows.append((which, flow, float(desk.bench(f"FLOW {which}"))))
            desk.call("gas", f"set_{which}", 0.0)
    return rows


def door(desk: Desk, item: str) -> Rows:
    """Open the door, close it, reset: what the safety PLC's mirror shows at each step."""
    rows: Rows = []

    def look(step: str) -> None:
        desk.wait(0.5)
        seen = desk.read("safety")
        flags = (seen["door_closed"], seen["interlock_ok"], seen["reset_needed"])
        rows.append((step, *(int(v) for v in flags)))

    closed, opened, again, reset = DOOR_STEPS
    try:
        look(closed)
        desk.bench("DOOR 0")
        look(opened)
    finally:
        desk.bench("DOOR 1")
    look(again)
    desk.call("safety", "request_reset")
    look(reset)
    return rows


def _by_hand(name: str) -> Callable[[Desk, str], Rows]:
    def measured(desk: Desk, item: str) -> Rows:
        return list(desk.measured(name))

    return measured


BY_HAND = (
    "centring", "tool_centre", "rotary", "standoff", "focus", "camera", "pyrometer", "oxygen",
)  # fmt: skip
ROUTINES: dict[str, Callable[[Desk, str], Rows]] = {
    f.__name__: f for f in (feeder, delay, power, gate, axis, gas, door)
} | {name: _by_hand(name) for name in BY_HAND}
