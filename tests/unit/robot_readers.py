"""Small readers of exported RAPID and KRL, written for tests alone."""

import re

from tests.unit.gcode_reader import Move, Ran

NUMBER = r"-?\d+\.\d+"
OFFS = re.compile(rf"Offs\(pZero,({NUMBER}),({NUMBER}),({NUMBER})\)")
FRAME = re.compile(rf"\{{X ({NUMBER}),Y ({NUMBER}),Z ({NUMBER})\}}")


class Robot:
    """Position, gate, power."""

    def __init__(self):
        self.ran = Ran()
        self.at, self.gate, self.power_w = None, False, 0.0

    def set(self, number, name, value):
        if name == "gate":
            self.gate = bool(value)
        elif name == "power":
            self.power_w = value
        else:
            self.ran.outputs.append((number, name, value))

    def go(self, number, places, speed_mm_s):
        *via, end = places
        if self.at is not None:
            self.ran.moves.append(
                Move(number, self.at, end, None, 0, speed_mm_s, self.gate, self.power_w,
                     via[0] if via else None)
            )  # fmt: skip
        else:
            assert not self.gate
        self.at = end


def _triples(found):
    return [tuple(float(v) for v in one) for one in found]


SIGNALS = {
    "doGate": "gate", "doDivert": "diverter", "aoPower": "power", "aoHopper1": "hopper1",
    "aoHopper2": "hopper2", "aoCarrier": "carrier", "aoShield": "shield",
}  # fmt: skip


def read_rapid(lines):
    """A module with one procedure."""
    robot = Robot()
    speeds, triggers, inside, declared = {}, {}, False, set()
    assert re.fullmatch(r"MODULE [A-Z][A-Z0-9_]{0,31}", lines[0])
    assert lines[-1] == "ENDMODULE"
    for number, line in enumerate(lines[1:-1], 1):
        if line.startswith("!"):
            robot.ran.remarks.append((number, line[1:].strip()))
        elif line == "PROC LmdBuild()":
            inside = True
        elif line == "ENDPROC":
            robot.ran.ended = True
        elif not inside:
            data = re.fullmatch(r"CONST speeddata (\w+):=\[(\d+\.\d+),500,5000,1000\];", line)
            if data:
                speeds[data[1]] = float(data[2])
            declared |= set(re.findall(r"^VAR triggdata (\w+);$", line))
            assert line.startswith(("CONST ", "VAR triggdata ")), line
        else:
            assert line.endswith(";"), line
            _rapid_line(robot, number, line[:-1], speeds, triggers, declared)
    robot.ran.gate = robot.gate
    return robot.ran


def _rapid_line(robot, number, line, speeds, triggers, declared):
    at_once = re.fullmatch(r"Set[AD]O (\w+),(\d+(?:\.\d+)?)", line)
    trigger = re.fullmatch(r"TriggIO (\w+),0\\Start\\[AD]Op:=(\w+),(\d+(?:\.\d+)?)", line)
    wait = re.fullmatch(r"WaitTime (\d+\.\d+)", line)
    call = re.fullmatch(r"LmdLayer (\d+)", line)
    if at_once:
        robot.set(number, SIGNALS[at_once[1]], float(at_once[2]))
    elif trigger:
        assert trigger[1] in declared
        triggers[trigger[1]] = (SIGNALS[trigger[2]], float(trigger[3]))
    elif wait:
        robot.ran.dwells.append((number, float(wait[1])))
    elif call:
        assert not robot.gate
        robot.ran.calls.append((number, int(call[1])))
    elif line not in ("ConfL\\Off", "WaitRob\\InPos"):
        move = re.fullmatch(r"(Move|Trigg)([LC]) ((?:Offs\([^)]*\),)+)(.*)", line)
        assert move, line
        places = _triples(OFFS.findall(move[3]))
        assert len(places) == {"L": 1, "C": 2}[move[2]]
        speed, *rest, zone, tool = move[4].split(",")
        assert (zone, tool) == ("zLmd", "tLmd\\WObj:=wLmd")
        assert len(rest) == (move[1] == "Trigg")
        names = re.sub(r"\\T\d:=", ",", rest[0]).split(",") if rest else []
        assert len(names) <= 8
        for name in names:
            robot.set(number, *triggers[name])
        robot.go(number, places, speeds[speed])


def read_krl(lines, rated_w=1000.0):
    """A source file with one program."""
    robot = Robot()
    speed, waiting = None, []
    names = ("power", "hopper1", "hopper2", "carrier", "shield")
    assert re.fullmatch(r"DEF [A-Z][A-Z0-9_]{0,23}\(\)", lines[0])
    assert lines[-1] == "END"
    robot.ran.ended = True

    def change(text):
        out = re.fullmatch(r"\$(AN)?OUT\[(\d)\]=(TRUE|FALSE|\d\.\d+)", text)
        assert out, text
        n = int(out[2]) - 1
        if out[1]:
            share = float(out[3])
            assert 0.0 <= share <= 1.0
            return names[n], share * rated_w if n == 0 else share
        return ("gate", "diverter")[n], float(out[3] == "TRUE")

    for number, line in enumerate(lines[1:-1], 1):
        if line.startswith(";"):
            robot.ran.remarks.append((number, line[1:].strip()))
        elif re.match(r"\$(BASE|TOOL|ORI_TYPE|CIRC_TYPE|APO\.CDIS)=", line):
            robot.ran.modal.add(line)
        elif line.startswith("$VEL.CP="):
            speed = float(line[8:]) * 1000.0
        elif line.startswith("$"):
            robot.set(number, *change(line))
        elif line.startswith("TRIGGER WHEN DISTANCE=0 DELAY=0 DO "):
            waiting.append(change(line[35:]))
            assert len(waiting) <= 8
        elif line.startswith("WAIT SEC "):
            assert not waiting
            if float(line[9:]) > 0.0:
                robot.ran.dwells.append((number, float(line[9:])))
        elif re.fullmatch(r"LMD_LAYER\(\d+\)", line):
            assert not robot.gate
            robot.ran.calls.append((number, int(line[10:-1])))
        else:
            move = re.fullmatch(r"(LIN|CIRC) (.*) C_DIS", line)
            assert move, line
            places = _triples(FRAME.findall(move[2]))
            assert len(places) == {"LIN": 1, "CIRC": 2}[move[1]]
            for one in waiting:
                robot.set(number, *one)
            waiting = []
            robot.go(number, places, speed)
    assert not waiting
    robot.ran.gate = robot.gate
    return robot.ran
