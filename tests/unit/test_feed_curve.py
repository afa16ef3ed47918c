"""Calibration curves of powder hoppers, and the feeder that uses one over both framings."""

from importlib import resources

import pytest

from firmware_bridge import registry
from firmware_bridge.errors import MapError
from firmware_bridge.feed_curve import FeedCurve
from firmware_bridge.transport import TcpPort
from hil_sim.devices.feeder_map import FeederMap
from tests.unit.maker_bench import meet, on_serial

BENT = "hopper1_rpm = [1.0, 3.0, 8.0]\nhopper1_g_min = [1.8, 6.0, 15.5]\n"
MAP = (resources.files("configs") / "maps/feeder_fictitious.toml").read_text("utf-8")


def test_lines_between_weighed_points():
    curve = FeedCurve((1.0, 3.0, 8.0), (1.8, 6.0, 15.5))
    assert curve.flow_g_min(0.0) == 0.0
    assert curve.flow_g_min(0.5) == pytest.approx(0.9)
    assert curve.flow_g_min(2.0) == pytest.approx(3.9)
    assert curve.flow_g_min(3.0) == pytest.approx(6.0)
    assert curve.flow_g_min(9.0) == pytest.approx(17.4)  # the last line goes on


def test_speed_is_the_inverse_of_flow():
    curve = FeedCurve((1.0, 3.0, 8.0), (1.8, 6.0, 15.5))
    for n in range(200):
        assert curve.flow_g_min(curve.speed_rpm(n * 0.1)) == pytest.approx(n * 0.1, abs=1e-12)


@pytest.mark.parametrize(
    ("calibration", "says"),
    [
        ("hopper1_rpm = [1.0]\n", "has 1 speeds and 0 flows"),
        ("hopper1_rpm = [1.0, 2.0]\nhopper1_g_min = [2.0]\n", "has 2 speeds and 1 flows"),
        ("hopper1_rpm = [2.0, 1.0]\nhopper1_g_min = [1.0, 2.0]\n", "1 after 2"),
        ("hopper1_rpm = [1.0, 2.0]\nhopper1_g_min = [2.0, 2.0]\n", "2 after 2"),
        ("hopper1_rpm = [0.0, 2.0]\nhopper1_g_min = [1.0, 2.0]\n", "0 after 0"),
        ("hopper3_rpm = [1.0]\nhopper3_g_min = [1.0]\n", "hopper3_rpm: unknown key"),
    ],
)
def test_points_that_make_no_curve_are_refused(tmp_path, calibration, says):
    path = tmp_path / "m.toml"
    path.write_text(MAP + calibration, encoding="utf-8")
    with pytest.raises(MapError, match=says):
        registry.make("feeder_map", TcpPort("x", "127.0.0.1", 1), map=path)


@pytest.mark.parametrize("kind", [FeederMap, on_serial(FeederMap)], ids=["tcp", "rtu"])
def test_bent_hopper_is_set_and_read_by_its_points(tmp_path, kind):
    path = tmp_path / "m.toml"
    path.write_text(MAP + BENT, encoding="utf-8")
    options = {} if kind is FeederMap else {"framing": "rtu"}

    async def scenario(powder, emulator, world):
        await powder.set_flow(0, 3.9)  # 2.00 rpm; the simulated disc gives 2 g/min per rpm
        await powder.set_flow(1, 3.6)  # straight: 2.00 rpm at 1.8
        assert world.hopper_set_g_min == [pytest.approx(4.0), pytest.approx(3.6)]
        world.hopper_flow_g_min[:] = [4.0, 3.6]
        await powder.poll()
        assert powder.reading.speed_measured_rpm == (2.0, 2.0)
        assert powder.reading.flow_measured_g_min == (pytest.approx(3.9), pytest.approx(3.6))
        assert powder.reading.flow_set_g_min == (pytest.approx(3.9), pytest.approx(3.6))

    meet("feeder_map", kind, scenario, map=path, **options)
