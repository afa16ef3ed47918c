"""The emulated grblHAL controller by itself, in literal bytes and in what it does to the world."""

from itertools import pairwise

import numpy as np
import pytest

from hil_sim import cellfile
from hil_sim.devices.grblhal import GrblHal
from hil_sim.devices.grblhal_parser import GcodeError, Parser
from hil_sim.devices.grblhal_planner import Planner
from tests.unit.grbl_bench import CELL


class Desk:
    """A controller and its bytes."""

    def __init__(self, **options):
        self.c = GrblHal(cellfile.load(CELL), **options)
        self.c.watchdog_us = 0
        self.c.watchdog_ok = True
        self.c.door_open = False
        for axis in range(3):
            self.c.place(axis, 1200)
        self.samples = []
        self.rows = []
        self.heard = ""

    def run(self, ms):
        end_us = self.c.now_us + ms * 1000
        while self.c.now_us < end_us:
            self.c.run(end_us)
            self.heard += self.c.tx().decode()
            self.samples.append(self.c.samples())
            self.rows.append(self.c.rows())
        return self

    def say(self, text, ms=10):
        self.heard = ""
        self.c.rx(text.encode("latin-1"))
        self.run(ms)
        return self.heard

    def homed(self):
        self.say("$H\n", 6000)
        assert self.heard.endswith("ok\r\n"), self.heard
        return self

    def trace(self):
        return np.concatenate(self.samples)

    def gate(self):
        rows = np.concatenate(self.rows)
        return [(int(r["t_us"]), int(r["arg"])) for r in rows if r["kind"] == 1]

    def forget(self):
        self.samples.clear()
        self.rows.clear()


def test_power_up_asks_for_homing_and_locks_g_code():
    desk = Desk().run(10)
    assert desk.heard == (
        "\r\nGrblHAL 1.1f ['$' or '$HELP' for help]\r\n[MSG:Homing cycle required]\r\n"
    )
    assert desk.say("G0 X1\n") == "error:9\r\n"
    assert desk.say("\x80").startswith("<Alarm:11|MPos:0.000,0.000,0.000|Bf:100,1023|FS:0,0")


def test_build_info_tells_the_buffers():
    heard = Desk(blocks=35, rx_bytes=256).say("$I\n")
    assert "[OPT:VNMZL+,35,256,3,0]\r\n[AXS:3:XYZ]\r\n" in heard
    assert "[FIRMWARE:grblHAL]\r\n" in heard
    assert heard.endswith("ok\r\n")


def test_homing_finds_the_switches_wherever_the_axes_stand():
    desk = Desk()
    desk.c.place(0, 3000)
    desk.homed()
    assert desk.c.true_steps == [0, 0, 0]
    assert desk.c.believed() == (0, 0, 0)
    assert "|H:1" in desk.say("\x87")
    least = desk.trace()["pos"][:, :3].min(axis=0)
    assert least.tolist() == [-400, -400, -400]  # each switch is 1 mm before home


def test_reports_tell_line_buffers_and_feed():
    desk = Desk().homed()
    desk.say("N10G1X5F600\n", 200)
    assert desk.say("\x80").startswith("<Run|MPos:")
    assert "|Bf:99,1023|Ln:10|FS:600,0" in desk.say("?")
    assert desk.say("$#\n") == "error:8\r\n"  # only when idle


def test_g1_moves_at_its_feed_and_no_axis_exceeds_its_acceleration():
    desk = Desk().homed()
    desk.forget()
    desk.say("G1 X20 Y10 Z3 F3000\n", 1500)
    t = desk.trace()
    pos = t["pos"][:, :3] / 400.0
    assert pos[-1].tolist() == [20.0, 10.0, 3.0]
    speed = np.linalg.norm(np.diff(pos, axis=0), axis=1) * 1000.0
    assert np.median(speed[speed > 0]) == pytest.approx(50.0, abs=2.6)  # whole steps each ms
    pieces = pos[::10]
    accel = np.abs(np.diff(pieces, n=2, axis=0)).max(axis=0) / 0.01**2
    assert (accel <= np.array([2000.0, 2000.0, 500.0]) * 1.1).all()


def test_power_follows_speed_under_m4_and_is_dark_in_g0():
    desk = Desk().homed()
    desk.say("M4 S0\nG0 X10\n", 600)
    desk.forget()
    desk.say("G1 X20 F600 S500\nG0 X30\n", 2000)
    t = desk.trace()
    (on_us, _), (off_us, last) = desk.gate()
    assert last == 0
    assert off_us - on_us == pytest.approx(1_000_000, abs=20_000)
    lit = t[(t["t_us"] > on_us) & (t["t_us"] <= off_us)]
    full = round(0.5 * 65535)
    assert lit["power"].max() == full
    steady = lit[(lit["t_us"] > on_us + 30_000) & (lit["t_us"] < off_us - 30_000)]
    assert (steady["power"] == full).all()
    first = lit[lit["t_us"] <= on_us + 4_000]["power"]
    assert first.max() < full or lit["pos"][0, 0] > 4000  # it begins from rest, below full power
    moving = t[t["t_us"] > off_us + 1000]
    assert not moving["power"].any()
    assert not moving["gate"].any()
    energy = float(t["power"].sum()) / 65535 * 1e-3  # of full scale, s
    assert energy == pytest.approx(0.5 * 10.0 / 10.0, rel=0.01)  # S v/F ds: 10 mm at 10 mm/s


def test_the_line_number_runs_ahead_of_the_steps():
    desk = Desk().homed()
    desk.say("N1G1X5F600\nN2X10\n", 460)
    heard = desk.say("\x80", 6)
    assert "|Ln:2|" in heard
    assert float(heard.split("MPos:")[1].split(",")[0]) < 5.0


def test_straight_lines_join_at_full_speed_and_corners_slow_down():
    planner = Planner((400.0,) * 3, (120.0,) * 3, (2000.0, 2000.0, 500.0), 0.01, 100)
    planner.line((4000, 0, 0), 50.0)
    planner.line((8000, 0, 0), 50.0)
    planner.line((8000, 4000, 0), 50.0)
    _, straight, corner = planner.blocks
    assert straight.entry_sqr == pytest.approx(2500.0)
    # 90 degrees: limit of both axes along the diagonal 2000 sqrt 2, sin(45) / (1 - sin(45))
    assert corner.entry_sqr == pytest.approx(2000 * 2**0.5 * 0.01 * 2.41421356, rel=1e-6)


def test_look_ahead_ends_at_rest():
    planner = Planner((400.0,) * 3, (120.0,) * 3, (2000.0, 2000.0, 500.0), 0.01, 100)
    for n in range(1, 20):
        planner.line((n * 40, 0, 0), 60.0)  # 0.1 mm each
    entry = [b.entry_sqr for b in planner.blocks]
    assert entry[-1] == pytest.approx(2 * 2000.0 * 0.1)
    assert entry[0] == 0.0
    assert max(entry) <= 3600.0 + 1e-9
    for a, b in pairwise(entry):
        assert abs(b - a) <= 2 * 2000.0 * 0.1 + 1e-6


def test_a_hold_plays_what_is_prepared_then_slows_down():
    desk = Desk().homed()
    desk.say("M4 S500\nG1 X50 F1200\n", 500)
    at_us = desk.c.now_us
    desk.say("!", 300)
    assert "<Hold:0|" in desk.say("?")
    stood = desk.trace()
    moving = stood[1:][np.diff(stood["pos"][:, 0]) != 0]["t_us"]
    assert 80_000 <= int(moving[-1]) - at_us <= 125_000
    assert desk.gate()[-1][1] == 0
    desk.say("~", 100)
    assert desk.gate()[-1][1] == 1


def test_dwell_waits_for_the_axes_and_then_its_time():
    desk = Desk().homed()
    at_us = desk.c.now_us
    desk.say("G1 X1 F600\nG4 P0.5\nG1 X2\n", 2000)
    assert desk.heard == "ok\r\n" * 3
    x = desk.trace()
    still = x[(x["pos"][:, 0] == 400) & (x["t_us"] > at_us)]
    assert len(still) == pytest.approx(500, abs=15)


def test_bytes_beyond_the_receive_buffer_are_dropped():
    desk = Desk(rx_bytes=128, blocks=4).homed()
    line = "G1X1.000Y1.000F60\n"  # 18 bytes, one second or more each
    desk.say("G4P5\n")
    desk.say(line * 10)
    assert desk.c.overrun == 18 * 10 - 127


def test_after_an_error_g_code_is_refused_until_an_empty_line():
    desk = Desk().homed()
    assert desk.say("G1X1\n") == "error:22\r\n"
    assert desk.say("G1X1F600\n") == "error:22\r\n"
    assert desk.say("\n") == "ok\r\n"
    assert desk.say("G1X1F600\n") == "ok\r\n"


def test_reset_at_rest_keeps_the_place_and_in_motion_loses_it():
    desk = Desk().homed()
    desk.say("G0X10\n", 600)
    assert "ALARM" not in desk.say("\x18")
    assert "<Idle|MPos:10.000" in desk.say("?")
    assert "|H:1" in desk.say("\x87")
    desk.say("G1X50F600\n", 500)
    assert "ALARM:3" in desk.say("\x18")
    assert "<Alarm:3|" in desk.say("?")
    assert "|H:0" in desk.say("\x87")


def test_soft_limit_stops_before_the_alarm_and_wants_a_reset():
    desk = Desk().homed()
    desk.say("G1X20F1200\nG1X900\n", 500)
    assert "ALARM:2" in desk.heard
    assert desk.say("$X\n") == ""
    assert "GrblHAL" in desk.say("\x18")


def test_limit_switch_is_a_hard_alarm():
    desk = Desk().homed()
    desk.say("M4S500\nG1X50F600\n", 300)
    desk.c.limit_engaged.add("X")
    desk.run(20)
    assert "ALARM:1" in desk.heard
    assert desk.gate()[-1][1] == 0
    assert "|Pn:X" in desk.say("?")


def test_door_shuts_the_laser_and_waits_for_cycle_start():
    desk = Desk().homed()
    desk.say("M4S500\nG1X50F600\n", 500)
    desk.c.set_input(0, False)
    desk.run(300)
    assert "[MSG:Check Door]" in desk.heard
    assert "<Door:1|" in desk.say("?")
    assert desk.gate()[-1][1] == 0
    desk.say("~", 50)
    assert "<Door:1|" in desk.say("?")
    desk.c.set_input(0, True)
    assert "<Door:0|" in desk.say("?")
    desk.say("~", 200)
    assert "<Run|" in desk.say("?")
    assert desk.gate()[-1][1] == 1


def test_arcs_stay_within_their_tolerance():
    parser = Parser()
    parser.parse("G21 G90 G0 X10 Y0")
    (action,) = parser.parse("G3 X0 Y10 I-10 J0 F600")
    points = np.array([(10.0, 0.0), *((x, y) for x, y, _ in action.points_mm)])
    assert points[-1].tolist() == [0.0, 10.0]
    assert np.hypot(*points.T) == pytest.approx(10.0, abs=1e-9)
    middle = 0.5 * (points[1:] + points[:-1])
    sag = 10.0 - np.hypot(*middle.T)
    assert 0.0004 < sag.max() <= 0.0021
    (back,) = parser.parse("G2 X10 Y0 R10")
    assert all(x * x + y * y == pytest.approx(100.0) for x, y, _ in back.points_mm)


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("G1 X1", 22),
        ("G5 X1", 20),
        ("G1 G0 X1", 21),
        ("X1 X2", 25),
        ("G1 X1 F600 P3", 36),
        ("N10000001 G0 X1", 27),
        ("G4", 28),
        ("G2 X1 Y1 F600", 35),
        ("S-1", 4),
        ("G10 L2 P9 X1", 29),
        ("G1 X", 2),
        ("12", 1),
    ],
)
def test_what_a_line_may_not_say(line, number):
    parser = Parser()
    with pytest.raises(GcodeError) as caught:
        parser.parse(line)
    assert caught.value.number == number
    assert parser.modal.feed_mm_min == 0.0


def test_offsets_inches_and_relative_moves():
    parser = Parser()
    parser.parse("G10 L2 P1 X100 Y50 Z-3")
    (move,) = parser.parse("G0 X1 Y2 Z3")
    assert move.target_mm == (101.0, 52.0, 0.0)
    (move,) = parser.parse("G91 X1")
    assert move.target_mm == (102.0, 52.0, 0.0)
    (move,) = parser.parse("G90 G20 X1")
    assert move.target_mm[0] == pytest.approx(125.4)
    (move,) = parser.parse("G53 G0 X2")
    assert move.target_mm[0] == pytest.approx(50.8)
    parser.parse("G21 G10 L20 P1 X0")
    assert parser.offsets_mm[0][0] == pytest.approx(50.8)
