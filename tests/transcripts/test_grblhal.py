"""grblHAL: literal bytes of its documents and of its own simulator (docs/reference/grblhal.md)."""

import asyncio

import numpy as np
import pytest

from firmware_bridge.errors import DeviceError, ProtocolError
from firmware_bridge.grbl_link import GrblLink
from firmware_bridge.grbl_settings import GrblSettings
from firmware_bridge.link_types import (
    AxisSettings,
    EventCode,
    FaultCode,
    LinkSettings,
    LinkState,
    ProgramLine,
)
from firmware_bridge.segments import SEGMENT
from tests.transcripts.wire_script import talk

AXES = LinkSettings(
    axes=(
        AxisSettings(400.0, 120.0, 2000.0, 0.0, 300.0),
        AxisSettings(400.0, 120.0, 2000.0, 0.0, 300.0),
        AxisSettings(400.0, 40.0, 500.0, 0.0, 250.0),
    ),
    total_accel_mm_s2=2000.0,
    plan_share=0.8,
    longest_emission_s=600.0,
)
# 0x87 asks for a whole report, 0x80 for a short one; \87 and \80 stand for them below
BUILD = r"""
> \87
< <Idle|MPos:0.000,0.000,0.000|Bf:100,1023|FS:0,0|WCO:0.000,0.000,0.000|WCS:G54|Ov:100,100,100|A:|Sc:|MPG:0|H:1|T:0|P:0|TLR:0|FW:grblHAL>\r\n
> $I\n
< [VER:1.1f.20260817:]\r\n[OPT:VNMZL+,100,1024,3,0]\r\n[AXS:3:XYZ]\r\n
< [NEWOPT:ENUMS,RT+,HOME,SED]\r\n[FIRMWARE:grblHAL]\r\n[SIGNALS:D]\r\n[DRIVER:Simulator]\r\nok\r\n
"""  # noqa: E501
SETTINGS = r"""
> $$\n
< $0=5.0\r\n$9=3\r\n$10=5631\r\n$11=0.010\r\n$13=0\r\n$20=1\r\n$21=1\r\n$22=13\r\n$23=7\r\n
< $27=1.000\r\n$30=1000.000\r\n$31=0.000\r\n$32=1\r\n$63=3\r\n
< $100=400.00000\r\n$101=400.00000\r\n$102=400.00000\r\n$110=7200.000\r\n$111=7200.000\r\n
< $112=2400.000\r\n$120=2000.000\r\n$121=2000.000\r\n$122=500.000\r\n
< $130=301.000\r\n$131=301.000\r\n$132=251.000\r\nok\r\n
"""
READY = r"""
> \87
< <Idle|MPos:10.000,20.000,5.500|Bf:100,1023|FS:0,0|WCO:0.000,0.000,0.000|Ov:100,100,100|A:|H:1|FW:grblHAL>\r\n
> \80
< <Idle|MPos:10.000,20.000,5.500|Bf:100,1023|FS:0,0>\r\n
"""  # noqa: E501
CONNECTED = BUILD + SETTINGS + READY
ARM = r"""
> M5\n
< ok\r\n
> G21G90G94G17G54\n
< ok\r\n
> G10L2P1X150.0000Y150.0000Z10.0000\n
< ok\r\n
> $\23\n
< [G54:150.000,150.000,10.000]\r\n[G55:0.000,0.000,0.000]\r\nok\r\n
"""
OWN = GrblSettings(gate_watchdog=True, origin_mm=(150.0, 150.0, 10.0), poll_s=0.5)


def hexed(script: str) -> str:
    """The script's text as hex pairs: real-time bytes and the hash sign are no plain text."""
    out: list[str] = []
    for line in filter(None, script.splitlines()):
        head, _, rest = line.partition(" ")
        for code in ("80", "81", "82", "85", "87", "90", "92", "94", "18", "23"):
            rest = rest.replace("\\" + code, chr(int(code, 16)))
        data = rest.replace("\\r", "\r").replace("\\n", "\n").encode("latin-1")
        if head == "<" and out[-1].startswith("<"):
            out[-1] += f" {data.hex(' ')}"  # one answer over several lines
        else:
            out.append(f"{head} {data.hex(' ')}")
    return "\n".join(out)


def converse(script, body, own=OWN):
    return talk(lambda port: GrblLink(port, AXES, own), hexed(script), body)


async def nothing(link, port):
    await asyncio.sleep(0.01)
    return link


def test_connect_reads_buffers_settings_and_place():
    link = converse(CONNECTED, nothing)
    assert link.identity.queue_size == 100
    assert link.identity.firmware == "grblHAL 1.1f.20260817"
    assert link.build.rx_bytes == 1024
    assert link.build.legacy_bytes is True
    assert link.status.position_steps == (4000, 8000, 2200, 0, 0, 0)
    assert link.status.homed is True
    assert link.status.state == LinkState.IDLE
    assert link.status.interlock_ok is True


@pytest.mark.parametrize(
    ("was", "wrong", "said"),
    [
        ("$32=1", "$32=0", "$32=0: 1 is wanted (laser mode"),
        ("$30=1000.000", "$30=24000.000", "$30=24000: 1000 is wanted"),
        ("$9=3", "$9=1", "$9=1: the bits of 3 are wanted"),
        ("$100=400.00000", "$100=250.00000", "$100=250 steps/mm of X: the cell has 400"),
        ("$112=2400.000", "$112=7200.000", "$112=7200 mm/min is above the cell's 2400 mm/min"),
        ("$120=2000.000", "$120=5000.000", "$120=5000 mm/s2 is above the cell's 2000 mm/s2"),
        ("$132=251.000", "$132=200.000", "$132=200 mm travel of Z: 250 mm are needed"),
        ("$131=301.000", "$131=400.000", "$131=400 mm travel of Y: soft limits beyond the axis"),
        ("$23=7", "$23=6", "axis X homes to its greatest end"),
        ("$20=1", "$20=0", "$20=0: 1 is wanted (soft limits)"),
    ],
)
def test_a_setting_that_does_not_fit_is_named_with_value_and_limit(was, wrong, said):
    with pytest.raises(ProtocolError) as caught:
        converse(BUILD + SETTINGS.replace(was, wrong), nothing)
    assert said in str(caught.value)
    assert str(caught.value).count("wanted") <= 2  # that one and nothing else


def test_plain_grbl_is_refused_by_name():
    script = BUILD.replace(r"[FIRMWARE:grblHAL]\r\n", "")
    with pytest.raises(ProtocolError, match="firmware is 'Grbl', not grblHAL"):
        converse(script, nothing)


def test_arming_sets_and_checks_the_programs_zero():
    async def body(link, port):
        await link.arm()
        await asyncio.sleep(0.5)
        return link.status.armed

    poll = "> \\80\n< <Idle|MPos:10.000,20.000,5.500|Bf:100,1023|FS:0,0>\\r\\n\n"
    assert converse(CONNECTED + ARM + poll, body) is True
    with pytest.raises(DeviceError, match="is not the zero"):
        converse(CONNECTED + ARM.replace("[G54:150.000", "[G54:149.000"), body)


def lines(*texts):
    return [ProgramLine(text, n, 0, "S5" in text) for n, text in enumerate(texts)]


def segments(n):
    out = np.zeros(n, SEGMENT)
    out["ticks_lo"] = 50_000
    return out


def test_lines_are_numbered_counted_and_followed():
    script = (
        CONNECTED
        + ARM
        + r"""
> N1M4S0\nN2G0X10Y10Z2\nN3G1X20F600S500\n
< ok\r\nok\r\nok\r\n
> \80
< <Run|MPos:165.000,160.000,12.000|Bf:99,1023|Ln:3|FS:600,500|Ov:100,100,100|A:C>\r\n
> \80
< <Idle|MPos:170.000,160.000,12.000|Bf:100,1023|Ln:3|FS:0,0>\r\n
"""
    )
    seen = []

    async def body(link, port):
        link.load_program(lines("M4 S0 (laser)", "G0 X10 Y10 Z2", "G1 X20 F600 S500"), segments(3))
        await link.arm()
        link.start()
        for _ in range(2):
            await asyncio.sleep(0.5)
            seen.append((link.status, link.finished))
        return link

    converse(script, body)
    (running, done), (rests, ended) = seen
    assert (done, ended) == (False, True)
    assert running.state == LinkState.RUN
    assert running.gate_on is True
    assert (running.segment, running.segment_tick_us) == (2, 25_000)  # half way from X10 to X20
    assert running.tracks_started == 1
    assert rests.state == LinkState.IDLE
    assert rests.segment == 2
    assert rests.gate_on is False


def test_an_error_names_line_text_and_meaning_and_holds():
    script = (
        CONNECTED
        + ARM
        + r"""
> N1G5X1\nN2G0X10\n
< error:20\r\nerror:20\r\n
> \82
"""
    )

    async def body(link, port):
        events = []
        link.on_event = events.append
        await link.arm()
        link.load_program(lines("G5 X1", "G0 X10"), segments(2))
        link.start()
        await asyncio.sleep(0.1)
        return link, events

    link, events = converse(script, body)
    assert "SEGMENTS refused: program line 1 'N1G5X1': error:20" in link.refusal
    assert (EventCode.REFUSED, 20) in [(e.code, e.arg) for e in events]
    assert link.finished is False


def test_an_alarm_latches_a_fault_and_loses_the_place():
    async def body(link, port):
        link.hold(now=True)
        await asyncio.sleep(0.6)
        return link

    script = (
        CONNECTED
        + r"""
> \82
< ALARM:1\r\n[MSG:Reset to continue]\r\n
> \80
< <Alarm:1|MPos:10.000,20.000,5.500|Bf:100,1023|FS:0,0|Pn:X>\r\n
"""
    )
    link = converse(script, body)
    assert link.status.state == LinkState.FAULT
    assert link.status.fault == FaultCode.LIMIT
    assert link.status.homed is False


def test_a_banner_that_nobody_asked_for_ends_the_link_with_the_place_unknown():
    lost = []

    async def body(link, port):
        link.on_lost = lost.append
        link.unhold()
        await asyncio.sleep(0.1)
        return link

    script = CONNECTED + "\n> \\81\n< \\r\\nGrblHAL 1.1f ['$' or '$HELP' for help]\\r\\n\n"
    link = converse(script, body)
    assert "restarted, position unknown" in link.failure
    assert lost == [link.failure]


def test_the_door_input_opens_the_interlock():
    async def body(link, port):
        await asyncio.sleep(0.6)
        return link

    script = (
        CONNECTED
        + r"""
> \80
< [MSG:Check Door]\r\n<Door:1|MPos:10.000,20.000,5.500|Bf:98,1023|Ln:8|FS:0,0|Pn:D>\r\n
"""
    )
    link = converse(script, body)
    assert link.status.interlock_ok is False
    assert link.status.state == LinkState.HELD


def test_override_and_jog_bytes():
    async def body(link, port):
        link.override(0.87)  # 100, then 10 down, then 3 times 1 down
        link.override(1.0)
        link.override(0.05)  # below what the controller can: a hold
        link.jog([-20.0, 10.0])
        link.jog([0.0])
        return link

    converse(
        CONNECTED
        + r"""
> \90\92\94\94\94
> \90
> \82
> $J=G91G21X-2.000Y1.000F1341.6\n
< ok\r\n
> \85
""",
        body,
    )


def test_probe_tells_place_and_contact():
    async def body(link, port):
        return await link.probe(2, 0.5, 1.0)

    script = (
        CONNECTED
        + r"""
> \80
< <Idle|MPos:10.000,20.000,5.500|Bf:100,1023|FS:0,0>\r\n
> G91G38.3Z-5.000F60.0\n
< [PRB:10.000,20.000,3.215:1]\r\nok\r\n
> G90\n
< ok\r\n
"""
    )
    assert converse(script, body) == 3.215


def test_nothing_that_brings_light_goes_out_without_a_watchdog():
    async def body(link, port):
        with pytest.raises(DeviceError, match="gate_watchdog"):
            link.load_program(lines("M4 S0", "G1 X1 F600 S500"), segments(2))
        link.load_program(lines("G0 X1"), segments(1))  # dark ones may

    converse(CONNECTED, body, GrblSettings(poll_s=0.5))


def test_a_silent_supervisor_ends_every_byte_after_one_hold():
    async def body(link, port):
        link.token()
        await asyncio.sleep(2.0)

    converse(CONNECTED + "\n> \\82\n", body)
