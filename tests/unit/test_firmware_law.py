"""Power laws under time scaling, against the law itself in floating point."""

import struct

import numpy as np
import pytest

from tests.unit.firmware_bench import END, GATE, PARAM, Host, line
from tests.unit.protocol_reader import segment
from tests.unit.test_firmware_hold import FINE, STEPS_MM

FLOOR, FULL_SET = 4000, 44000
IDLE = "IDLE"


def law_frame(number: int, points: list[tuple[float, float]]) -> bytes:
    """points (r, g), unused ones 0."""
    rows = [(round(r * 32768), round(g * 2**24)) for r, g in points]
    rows += [(0, 0)] * (17 - len(rows))
    return struct.pack("<BB", number, len(points)) + b"".join(struct.pack("<HI", *p) for p in rows)


def power_of(k: float) -> list[tuple[float, float]]:
    return [(0.5, 0.5**k), (1.0, 1.0)]


def param(law: int = 0, cap: int = 0, floor: int = FLOOR, least: int = 0) -> bytes:
    return struct.pack("<HI6xHHHHBB", law, cap, 32768, floor, least, 0, 0, PARAM)


def ramped(g, n: int = 400, cap: float = 0.0) -> list[bytes]:
    """Speed up from 0 to nominal, on, down again and half up; power after the law g(r).

    50 mm/s nominal, 1 ms segments; each piece linear in speed, power at its end exact.
    """
    r = np.concatenate(
        [np.linspace(0, 1, n // 4), np.ones(n // 2), np.linspace(1, 0.25, n // 4)]
    )  # at the segments' ends
    out, before, x, done = [], 0.0, 0.0, 0
    for i, end in enumerate(r):
        mean = (before + end) / 2
        x += mean * 50.0 * 0.001
        steps = round(x * STEPS_MM) - done
        done += steps
        p = FLOOR + (FULL_SET - FLOOR) * g(end)
        p = min(p, cap * end) if cap else p
        ratio = before / mean if mean else 1.0
        flags = (GATE if steps else 0) | (END if i == len(r) - 1 else 0)
        out.append(
            segment([steps], 1000, min(ratio, 1.99996), round(p), round(end * 32768), flags=flags)
        )
        before = end
    return out


def played(points, plan: list[bytes], law: int, scale: float, cap: int = 0) -> Host:
    host = Host(FINE).ready()
    if points:
        host.urgently("DISARM")
        assert host.command("LAW", law_frame(law, points)) == ""
        assert host.arm() == ""
    assert host.command("OVERRIDE", struct.pack("<H", round(scale * 32768))) == ""
    assert host.send([param(law, cap), *plan]) == ""
    host.run_for(2_000_000)
    assert host.status["state"] == IDLE
    return host


def truth(host: Host, scale: float, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Power of each sample within the plan, and r at that instant."""
    r = np.concatenate(
        [[0], np.linspace(0, 1, n // 4), np.ones(n // 2), np.linspace(1, 0.25, n // 4)]
    )
    start = host.at(4, 2)[0]
    s = host.samples
    inside = (s["t_us"] > start) & (s["t_us"] < start + int((n - 2) * 1000 / scale))
    x = (s["t_us"][inside].astype(float) - start) * scale / 1000.0
    return s["power"][inside].astype(float), np.interp(x, np.arange(n + 1), r)


@pytest.mark.parametrize("k", [0.3, 0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("scale", [0.4, 0.9, 1.0, 1.1])
def test_power_law_is_exact_at_every_speed(k, scale):
    host = played(power_of(k), ramped(lambda r: r**k), 1, scale)
    power, r = truth(host, scale)
    want = FLOOR + (FULL_SET - FLOOR) * (scale * r) ** k
    # between segment ends the plan itself is a straight piece: judge where it holds the law
    good = np.abs(r**k - np.interp(r, np.linspace(0, 1, 100), np.linspace(0, 1, 100) ** k)) < 1e-4
    good &= r > 0.05
    assert good.sum() > 200
    assert np.abs(power - want)[good].max() <= 0.0005 * FULL_SET


def test_a_linear_scaling_of_a_root_law_would_be_far_off():
    host = played([], ramped(lambda r: r**0.5), 0, 0.4)
    power, r = truth(host, 0.4)
    want = FLOOR + (FULL_SET - FLOOR) * (0.4 * r) ** 0.5
    assert np.abs(power - want)[r == 1].max() > 0.1 * FULL_SET


def test_a_table_of_many_points_holds_at_its_points_and_beyond():
    def g(r):  # no power of r
        return 0.1 + 0.9 * r * r

    points = [(2.0 ** (-(16 - i) / 4), g(2.0 ** (-(16 - i) / 4))) for i in range(17)]
    for scale in (0.5, 0.25):
        host = played(points, ramped(g), 2, scale)
        power, r = truth(host, scale)
        want = FLOOR + (FULL_SET - FLOOR) * g(scale * r)
        assert np.abs(power - want)[r == 1].max() <= 0.0005 * FULL_SET
        assert np.abs(power - want)[r > 0.3].max() <= 0.004 * FULL_SET


def test_hold_follows_the_law_down_to_the_floor_and_then_nothing():
    host = Host(FINE).ready()
    host.urgently("DISARM")
    assert host.command("LAW", law_frame(3, power_of(0.5))) == ""
    assert host.arm() == ""
    steps = 50 * STEPS_MM // 200
    plan = line(200, [steps], 5000, FULL_SET) + line(1, [steps], 5000, FULL_SET, GATE | END)
    assert host.send([param(3), *plan]) == ""
    host.run_for(200_000)
    host.urgently("HOLD_NOW")
    t = host.now_us
    host.run_for(60_000)
    s = host.samples[host.samples["t_us"] >= t]
    p = s["pos"][:, 0].astype(float) / STEPS_MM / 50.0 * 1000
    scale = (p[2:] - p[:-2]) / 2  # at the ms between
    power = s["power"][1:-1].astype(float)
    want = FLOOR + (FULL_SET - FLOOR) * np.sqrt(scale)
    falling = (scale > 0.05) & (scale < 0.999)
    assert falling.sum() > 20
    assert np.abs(power - want)[falling].max() < 0.003 * FULL_SET
    assert s["power"][-1] == 0


def test_energy_cap_holds_at_every_speed():
    cap = 30_000  # below the law at nominal speed: the plan is capped there
    for scale in (0.3, 0.7):
        host = played([], ramped(lambda r: r, cap=cap), 0, scale, cap)
        power, r = truth(host, scale)
        want = np.minimum(FLOOR + (FULL_SET - FLOOR) * scale * r, cap * scale * r)
        # where the cap is below the floor the output is what the plan says: the cap
        good = r > 0.2
        assert np.abs(power - want)[good].max() <= 0.001 * FULL_SET


def test_laws_are_refused_when_they_are_none_or_segments_wait():
    host = Host().ready()
    good = law_frame(1, power_of(2))
    for bad in (
        law_frame(0, power_of(2)),
        law_frame(4, power_of(2)),
        law_frame(1, [(0.5, 0.5)]),
        law_frame(1, [(0.5, 0.5), (0.5, 0.6)]),
        law_frame(1, [(0.5, 0.5), (0.6, 0.4)]),
        law_frame(1, [(0.0, 0.5), (0.6, 0.6)]),
        law_frame(1, [(0.5, 0.0), (0.6, 0.6)]),
        bytes([1, 18]) + good[2:],
    ):
        assert host.command("LAW", bad) == "RANGE"
    assert host.send([param(1)]) == "BAD_SEGMENT"  # none is set
    assert host.command("LAW", good) == ""
    assert host.send([param(1)]) == ""
    assert host.command("LAW", good) == "STATE"
    assert host.send([param(2)]) == "BAD_SEGMENT"
    assert host.send([param(1, cap=1_048_575)]) == ""
    assert host.send([param(1, cap=1_048_576)]) == "BAD_SEGMENT"
    spoiled = bytearray(param(1))
    spoiled[11] = 1
    assert host.send([bytes(spoiled)]) == "BAD_SEGMENT"


def test_law_in_force_is_in_the_status():
    host = Host().ready()
    assert host.command("LAW", law_frame(2, power_of(2))) == ""
    host.send([param(2), *line(40, (40, 0, 0)), *line(1, (4, 0, 0), flags=END)])
    host.run_for(50_000)
    assert host.status["law"] == 2
