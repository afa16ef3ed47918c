"""Bronkhorst: bytes typed after the parameter table of 9.17.035 (PDU address = register - 1)."""

import pytest

from firmware_bridge.devices.gas_bronkhorst import Bronkhorst
from firmware_bridge.errors import DeviceError
from tests.transcripts.wire_script import talk

ROUND = """
> 00 01 00 00 00 06 01 03 00 20 00 01           # measure: 8000 of 32000
< 00 01 00 00 00 05 01 03 02 1F 40
> 00 02 00 00 00 06 01 03 A1 00 00 02           # fMeasure 7.5
< 00 02 00 00 00 07 01 03 04 40 F0 00 00
> 00 03 00 00 00 06 01 03 A1 18 00 02           # fSetpoint 7.5
< 00 03 00 00 00 07 01 03 04 40 F0 00 00
> 00 04 00 00 00 06 02 03 00 20 00 01
< 00 04 00 00 00 05 02 03 02 53 55
> 00 05 00 00 00 06 02 03 A1 00 00 02           # 20.1
< 00 05 00 00 00 07 02 03 04 41 A0 CC CD
> 00 06 00 00 00 06 02 03 A1 18 00 02           # 20.0
< 00 06 00 00 00 07 02 03 04 41 A0 00 00
"""


def test_floats_and_shares_of_both():
    async def body(device, port):
        await device.poll()
        assert device.carrier_pct == 25.0
        assert device.shield_pct == pytest.approx(66.67, abs=0.01)
        return device.reading

    reading = talk(Bronkhorst, ROUND, body)
    assert (reading.carrier_l_min, reading.carrier_set_l_min) == (7.5, 7.5)
    assert reading.shield_l_min == pytest.approx(20.1)
    assert reading.shield_set_l_min == 20.0


def test_the_second_round_reads_the_setpoint_as_spare_word():
    script = (
        ROUND
        + """
    > 00 07 00 00 00 06 01 03 00 20 00 02
    < 00 07 00 00 00 07 01 03 04 1F 40 1F 40
    > 00 08 00 00 00 06 01 03 A1 00 00 02
    < 00 08 00 00 00 07 01 03 04 40 C0 00 00
    > 00 09 00 00 00 06 02 03 00 20 00 02
    < 00 09 00 00 00 07 02 03 04 53 55 53 55
    > 00 0A 00 00 00 06 02 03 A1 00 00 02
    < 00 0A 00 00 00 07 02 03 04 41 A0 00 00
    """
    )

    async def body(device, port):
        await device.poll()
        await device.poll()
        return device.reading

    assert talk(Bronkhorst, script, body).carrier_l_min == 6.0


def test_setpoint_is_written_as_a_float_and_read_back():
    script = """
    > 00 01 00 00 00 0B 01 10 A1 18 00 02 04 40 F0 00 00
    < 00 01 00 00 00 06 01 10 A1 18 00 02
    > 00 02 00 00 00 06 01 03 A1 18 00 02
    < 00 02 00 00 00 07 01 03 04 40 F0 00 00
    """
    talk(Bronkhorst, script, lambda d, p: d.set_carrier(7.5))


def test_a_setpoint_that_reads_back_otherwise_is_an_error():
    script = """
    > 00 01 00 00 00 0B 02 10 A1 18 00 02 04 41 A0 00 00
    < 00 01 00 00 00 06 02 10 A1 18 00 02
    > 00 02 00 00 00 06 02 03 A1 18 00 02
    < 00 02 00 00 00 07 02 03 04 40 F0 00 00
    """
    with pytest.raises(DeviceError, match="reads back"):
        talk(Bronkhorst, script, lambda d, p: d.set_shield(20.0))


def test_not_a_number_is_refused():
    script = "\n".join(ROUND.strip().splitlines()[:6]).replace("04 40 F0 00 00", "04 7F C0 00 00")
    script += "\n" + "\n".join(ROUND.strip().splitlines()[6:])
    with pytest.raises(DeviceError, match="carrier_l_min nan is outside"):
        talk(Bronkhorst, script, lambda d, p: d.poll())
