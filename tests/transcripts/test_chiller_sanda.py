"""S&A CWFL: bytes typed after the register tables of its manuals."""

import math

import pytest

from firmware_bridge.devices.chiller_sanda import SandaCwfl
from firmware_bridge.errors import DeviceError
from tests.transcripts.wire_script import talk

SENSORS = """
> 01 03 01 00 00 06 C4 34
< 01 03 0C 00 D2 00 DC 01 0E 02 6C 00 50 00 14 47 37
"""  # room 21.0, low 22.0, high 27.0, exhaust 62.0 degC, 8.0 and 2.0 L/min
STATE = """
> 01 03 08 00 00 02 C6 6B
< 01 03 04 00 87 00 00 4A 1A
"""  # pumps, compressor, fan on; no alarm relay; water level good


async def once(device, port):
    await device.poll()
    return device.reading


def test_running_chiller():
    reading = talk(SandaCwfl, SENSORS + STATE, once)
    assert reading.coolant_deg_c == 22.0
    assert (reading.running, reading.flow_ok, reading.alarm_bits) == (True, True, 0)
    assert math.isnan(reading.pressure_mpa)
    assert math.isnan(reading.setpoint_deg_c)


def test_alarm_relay_and_water_level():
    script = (
        SENSORS
        + """
    > 01 03 08 00 00 02 C6 6B
    < 01 03 04 04 87 00 01 8A EA
    """
    )
    reading = talk(SandaCwfl, script, once)
    assert reading.alarm_bits == (1 << 10) | (1 << 16)
    assert not reading.flow_ok


def test_little_flow_is_no_flow():
    script = """
    > 01 03 01 00 00 06 C4 34
    < 01 03 0C 00 D2 00 DC 01 0E 02 6C 00 50 00 14 47 37
    > 01 03 08 00 00 02 C6 6B
    < 01 03 04 00 87 00 00 4A 1A
    > 01 03 01 00 00 07 05 F4                              # with the spare word
    < 01 03 0E 00 D2 00 DC 01 0E 02 6C 00 03 00 14 00 05 B4 28
    > 01 03 08 00 00 02 C6 6B
    < 01 03 04 00 87 00 00 4A 1A
    """

    async def twice(device, port):
        await device.poll()
        assert device.reading.flow_ok
        await device.poll()
        return device.reading

    assert not talk(SandaCwfl, script, twice).flow_ok


def test_what_the_panel_sets_is_kept_or_refused_never_written():
    async def body(device, port):
        await device.poll()
        await device.set_setpoint(22.0)
        await device.set_run(True)
        with pytest.raises(DeviceError, match="pump off is set on the panel"):
            await device.set_run(False)
        assert device.setpoint_deg_c == 22.0

    talk(SandaCwfl, SENSORS + STATE, body)
