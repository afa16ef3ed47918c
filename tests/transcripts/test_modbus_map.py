"""A role by a map file alone, Modbus RTU and TCP: bytes typed after the map below."""

import pytest

from firmware_bridge import registry, roles
from firmware_bridge.errors import DeviceError, MapError
from firmware_bridge.transport import TcpPort
from tests.transcripts.wire_script import talk

NOWHERE = TcpPort("nowhere", "127.0.0.1", 1)
ROOM = """
title = "Box of a room"
fictitious = true
source = "this test"
role = "room"
[[blocks]]
address = 0
words = 5
[readings]
oxygen_pct = { address = 0, scale = 0.01, bounds = [0, 100] }
extraction_ok = { address = 1, bit = 0 }
ups_on_battery = { address = 1, bit = 1, invert = true }   # 1: mains
supply_pressure_kpa_1 = { address = 2, bounds = [0, 2000] }
supply_pressure_kpa_2 = { address = 3, bounds = [0, 2000] }
ups_charge_pct = { address = 4, bounds = [0, 100] }
"""
HEATER = """
title = "Heater"
fictitious = true
source = "this test"
role = "substrate_heater"
[[blocks]]
address = 0
words = 4
[settings]
setpoint_deg_c = { address = 0, scale = 0.1, limits = [0, 600], safe = "keep" }
run = { address = 1, limits = [0, 1], safe = 0 }
[readings]
temp_deg_c = { address = 2, kind = "i16", scale = 0.1, bounds = [-20, 700] }
heating = { address = 3, bit = 0 }
[constants]
fault = false
"""
PLC = """
title = "PLC"
fictitious = true
source = "this test"
role = "safety_plc"
[[blocks]]
address = 0
words = 1
[settings]
ask_bits = { address = 9, limits = [0, 3], safe = "keep" }
[readings]
estop_ok = { address = 0, bit = 0 }
door_closed = { address = 0, bit = 1 }
interlock_ok = { address = 0, bit = 2 }
reset_needed = { address = 0, bit = 3 }
watchdog_ok = { address = 0, bit = 4 }
supply_relay_on = { address = 0, bit = 5 }
[commands]
drop_supply = [{ set = "ask_bits", value = 1 }]
request_reset = [{ set = "ask_bits", value = 0 }, { set = "ask_bits", value = 2 }]
"""


@pytest.fixture
def driver(tmp_path):
    """A driver of a map given as text."""

    def make(text, **options):
        path = tmp_path / "map.toml"
        path.write_text(text, encoding="utf-8")
        return lambda port: registry.make("modbus_map", port, "box", map=path, **options)

    return make


async def twice(device, port):
    await device.poll()
    first = device.reading
    await device.poll()
    return first


def test_room_over_tcp(driver):
    script = """
    > 00 01 00 00 00 06 01 03 00 00 00 05
    < 00 01 00 00 00 0D 01 03 0A 08 2A 00 03 02 58 03 20 00 5A
    > 00 02 00 00 00 06 01 03 00 00 00 06
    < 00 02 00 00 00 0F 01 03 0C 08 2A 00 03 02 58 03 20 00 5A 00 00
    """
    reading = talk(driver(ROOM), script, twice)
    assert isinstance(reading, roles.RoomReading)
    assert reading.oxygen_pct == 20.9
    assert reading.extraction_ok is True
    assert reading.ups_on_battery is False
    assert reading.supply_pressure_kpa == (600, 800)
    assert reading.ups_charge_pct == 90.0


def test_room_over_rtu(driver):
    script = """
    > 01 03 00 00 00 05 85 C9
    < 01 03 0A 08 2A 00 01 02 58 03 20 00 5A F3 67     # bit 1 is 0: on battery
    > 01 03 00 00 00 06 C5 C8
    < 01 03 0C 08 2A 00 01 02 58 03 20 00 5A 00 00 0C DC
    """
    assert talk(driver(ROOM, framing="rtu"), script, twice).ups_on_battery is True


def test_settings_serve_the_role_s_commands(driver):
    script = """
    > 00 01 00 00 00 06 01 06 00 00 0F A0          # 400.0 degC
    < 00 01 00 00 00 06 01 06 00 00 0F A0
    > 00 02 00 00 00 06 01 03 00 00 00 01
    < 00 02 00 00 00 05 01 03 02 0F A0
    > 00 03 00 00 00 06 01 06 00 01 00 01
    < 00 03 00 00 00 06 01 06 00 01 00 01
    > 00 04 00 00 00 06 01 03 00 01 00 01
    < 00 04 00 00 00 05 01 03 02 00 01
    > 00 05 00 00 00 06 01 03 00 00 00 04
    < 00 05 00 00 00 0B 01 03 08 0F A0 00 01 0F 96 00 01
    > 00 06 00 00 00 06 01 06 00 01 00 00          # safe: heating off, set value kept
    < 00 06 00 00 00 06 01 06 00 01 00 00
    > 00 07 00 00 00 06 01 03 00 01 00 01
    < 00 07 00 00 00 05 01 03 02 00 00
    """

    async def body(device, port):
        await device.set_setpoint(400.0)
        await device.set_run(True)
        await device.poll()
        await device.make_safe()
        return device.reading

    reading = talk(driver(HEATER), script, body)
    assert isinstance(reading, roles.HeaterReading)
    assert (reading.temp_deg_c, reading.setpoint_deg_c) == (399.0, 400.0)
    assert (reading.heating, reading.fault) == (True, False)


def test_open_commands_are_the_map_s_steps(driver):
    script = """
    > 00 01 00 00 00 06 01 06 00 09 00 01
    < 00 01 00 00 00 06 01 06 00 09 00 01
    > 00 02 00 00 00 06 01 03 00 09 00 01
    < 00 02 00 00 00 05 01 03 02 00 01
    > 00 03 00 00 00 06 01 06 00 09 00 00
    < 00 03 00 00 00 06 01 06 00 09 00 00
    > 00 04 00 00 00 06 01 03 00 09 00 01
    < 00 04 00 00 00 05 01 03 02 00 00
    > 00 05 00 00 00 06 01 06 00 09 00 02
    < 00 05 00 00 00 06 01 06 00 09 00 02
    > 00 06 00 00 00 06 01 03 00 09 00 01
    < 00 06 00 00 00 05 01 03 02 00 02
    """

    async def body(device, port):
        await device.drop_supply()
        assert device.n_urgent == 1  # went before everything else
        await device.request_reset()

    talk(driver(PLC), script, body)


@pytest.mark.parametrize(
    ("text", "old", "new", "message"),
    [
        (ROOM, 'role = "room"', 'role = "chapel"', "role 'chapel' is not known; there are: .*room"),
        (ROOM, 'role = "room"', 'role = "powder_feeder"', "driver of its own: feeder_map"),
        (ROOM, "extraction_ok", "extraction", "readings.extraction_ok is missing"),
        (
            ROOM,
            "extraction_ok = { address = 1, bit = 0 }",
            "extraction_ok = { address = 1, bounds = [0, 1] }",
            "extraction_ok needs a bit",
        ),
        (
            ROOM,
            "supply_pressure_kpa_1",
            "supply_pressure_kpa_3",
            "supply_pressure_kpa_1 is missing",
        ),
        (ROOM, "[readings]", "[constants]\nextraction = true\n[readings]", "no field of the role"),
        (ROOM, "[readings]", "[commands]\nfly = []\n[readings]", "commands.fly must be 1 to 20"),
        (HEATER, "fault = false", "fault = 0", "constants.fault 0.0 is no bool"),
        (HEATER, "fault = false", "fault = false\nheating = true", "an entry of that name"),
        (HEATER, "run = {", "go = {", "settings.run is missing"),
        (PLC, "drop_supply =", "drop =", "commands.drop_supply is missing"),
        (PLC, "value = 1", "value = 4", r"value 4 is outside 0 to 3"),
        (PLC, 'set = "ask_bits", value = 1', 'set = "ask", value = 1', "'ask' is no setting"),
        (ROOM, "invert = true", "invert = 1", "invert must be true or false"),
    ],
)
def test_wrong_map_is_refused_before_any_io(driver, text, old, new, message):
    assert old in text
    with pytest.raises(MapError, match=message):
        driver(text.replace(old, new))(NOWHERE)


def test_without_a_map_there_is_no_role():
    with pytest.raises(MapError, match="map is missing"):
        registry.make("modbus_map", NOWHERE, "chamber")


def test_a_bit_held_by_the_map_refuses_the_poll(driver):
    text = ROOM.replace(
        "extraction_ok = { address = 1, bit = 0 }",
        "extraction_ok = { address = 1, bit = 0, must = true }",
    )
    script = """
    > 00 01 00 00 00 06 01 03 00 00 00 05
    < 00 01 00 00 00 0D 01 03 0A 08 2A 00 02 02 58 03 20 00 5A
    """
    with pytest.raises(DeviceError, match="extraction_ok is False"):
        talk(driver(text), script, twice)
