"""Standing alarms and their life after ISA-18.2: raised, seen, gone, shelved, out of service.

The rows are in ``alarm_table.py``. An alarm's state is one of ``AlarmState``. Shelving and
taking out of service end its *telling*: it is no longer listed, it makes no noise and does not
count for the flood. They never end its *reaction*: a shelved alarm still holds, stops and
aborts, and still keeps a build from going on. Each of these acts is told to the record.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from controller.errors import StateError
from controller.machine.alarm_table import (
    BY_CODE,
    BY_NAME,
    CAUSE_WITHIN_US,
    CAUSES,
    RANK,
    TABLE,
    Alarm,
)
from controller.model import Severity

__all__ = [
    "BY_CODE", "BY_NAME", "FLOOD", "FLOOD_US", "RANK", "TABLE", "ActiveAlarm", "Alarm",
    "AlarmManager", "AlarmState",
]  # fmt: skip

FLOOD_US = 600_000_000  # ISA-18.2 (and EEMUA 191): alarms in 10 minutes to one operator
FLOOD = 10  # more than these are a flood
HISTORY = 1000  # entries kept in memory; the record keeps all
LONGEST_SHELF_S = 8 * 3600.0  # a shift
# where the cause, present, makes others plain: they are logged, not told
SUPPRESSED_BY: dict[str, tuple[str, ...]] = {
    "CHAIN_OPEN": ("ESTOP", "DOOR_OPEN"),
    "SELF_HOLD": ("LINK_LOST", "FIRMWARE_FAULT"),
    "LASER_NOT_READY": ("ESTOP", "DOOR_OPEN", "CHAIN_OPEN", "LASER_FAULT"),
    "CHILLER_FLOW": ("CHILLER_ALARM",),
    "COOLANT_WARM": ("COOLANT_HOT",),
    "OXYGEN_HIGH": ("OXYGEN_TOO_HIGH",),
    "POWDER_STARVED": ("POWDER_STALLED", "POWDER_SILENT"),
}


class AlarmState(StrEnum):
    """States of an alarm, ISA-18.2 figure of the alarm state transitions."""

    NORMAL = "NORMAL"
    UNACKNOWLEDGED = "UNACKNOWLEDGED"
    ACKNOWLEDGED = "ACKNOWLEDGED"
    RETURNED = "RETURNED_UNACKNOWLEDGED"
    SHELVED = "SHELVED"
    SUPPRESSED = "SUPPRESSED_BY_DESIGN"
    OUT_OF_SERVICE = "OUT_OF_SERVICE"


@dataclass(slots=True)
class ActiveAlarm:
    """An alarm that is standing: raised, and not both gone and acknowledged."""

    alarm: Alarm
    raised_us: int
    detail: str
    present: bool = True  # its cause still stands
    acknowledged: bool = False
    count: int = 1  # how often raised while it stood
    suppressed_by: str = ""  # alarm that made it plain when it was raised

    def as_dict(self) -> dict[str, object]:
        """Plain data for clients."""
        a = self.alarm
        return {
            "code": a.code,
            "name": a.name,
            "severity": str(a.severity),
            "text": a.text,
            "action": a.action,
            "detail": self.detail,
            "raised_us": self.raised_us,
            "present": self.present,
            "acknowledged": self.acknowledged,
            "count": self.count,
        }

    def as_event(self, *, whole: bool, who: str) -> dict[str, object]:
        """What an event tells of it: ``whole`` when it is raised."""
        a = self.alarm
        data: dict[str, object] = {"code": a.code, "name": a.name}
        if whole:
            data.update(severity=str(a.severity), text=a.text, action=a.action, detail=self.detail)
        if self.suppressed_by and whole:
            data["suppressed_by"] = self.suppressed_by
        if who:
            data["who"] = who
        return data


@dataclass(frozen=True, slots=True)
class Silence:
    """Somebody ended the telling of an alarm: for a time (shelved), or until put back."""

    who: str
    why: str
    until_us: int  # -1: until put back in service
    since_us: int


Tell = Callable[[str, ActiveAlarm, str], None]  # kind of event, alarm, who
TellSilence = Callable[[str, dict[str, object]], None]  # kind of event, data


def _untold(kind: str, data: dict[str, object]) -> None:
    """Nobody listens."""


class AlarmManager:
    """Standing alarms, the first-out, and what was seen since the last reset.

    An alarm stands until its cause is gone and it has been acknowledged, in either order.
    The first-out is the alarm that came first since none above NOTE stood: the cause of a
    cascade, kept until ``reset_first_out``.
    """

    def __init__(self, tell: Tell, tell_silence: TellSilence = _untold) -> None:
        self._tell = tell
        self._tell_silence = tell_silence
        self.standing: dict[str, ActiveAlarm] = {}  # by name, in order of raising
        self.first_out: ActiveAlarm | None = None
        self.total = 0
        self.silenced: dict[str, Silence] = {}  # shelved or out of service, by name
        self.history: deque[tuple[int, str, str, str]] = deque(maxlen=HISTORY)
        self._told_us: deque[int] = deque()  # when alarms were told, of late
        self._flooding = False
        self.most_told = 0  # in any 10 minutes

    # --- raised and gone -----------------------------------------------------------------

    def raise_(self, name: str, now_us: int, detail: str = "") -> ActiveAlarm | None:
        """Raise an alarm; None when it is present already (nothing new to act on)."""
        standing = self.standing.get(name)
        if standing is not None and standing.present:
            return None
        self.total += 1
        if standing is None:
            standing = ActiveAlarm(BY_NAME[name], now_us, detail)
            self.standing[name] = standing
        else:
            standing.present = True
            standing.acknowledged = False
            standing.detail = detail
            standing.count += 1
        standing.suppressed_by = self._plain_by(name)
        first = self.first_out
        if first is None:
            if standing.alarm.severity is not Severity.NOTE:
                self.first_out = standing
        elif (
            first.alarm.name in CAUSES.get(name, ()) and now_us - first.raised_us <= CAUSE_WITHIN_US
        ):
            self.first_out = standing
        self._note(now_us, "alarm", name, detail)
        self._tell("alarm", standing, "")
        if name not in self.silenced and not standing.suppressed_by:
            self._count(now_us)
        return standing

    def _plain_by(self, name: str) -> str:
        for cause in SUPPRESSED_BY.get(name, ()):
            other = self.standing.get(cause)
            if other is not None and other.present:
                return cause
        return ""

    def clear(self, name: str, now_us: int = -1) -> None:
        """The cause is gone; the alarm goes too when it was acknowledged."""
        standing = self.standing.get(name)
        if standing is None or not standing.present:
            return
        standing.present = False
        for other in self.standing.values():  # what it made plain and still stands is told again
            if other.suppressed_by == name:
                other.suppressed_by = self._plain_by(other.alarm.name) if other.present else ""
        self._note(now_us, "alarm_clear", name, "")
        self._tell("alarm_clear", standing, "")
        if standing.acknowledged:
            del self.standing[name]

    def acknowledge(self, who: str, names: Iterable[str] | None = None, now_us: int = -1) -> int:
        """Acknowledge some or all alarms; returns how many were."""
        chosen = list(self.standing) if names is None else [n for n in names if n in self.standing]
        done = 0
        for name in chosen:
            standing = self.standing[name]
            if standing.acknowledged:
                continue
            standing.acknowledged = True
            done += 1
            self._note(now_us, "alarm_ack", name, who)
            self._tell("alarm_ack", standing, who)
            if not standing.present:
                del self.standing[name]
        return done

    def reset_first_out(self) -> None:
        """A new cascade may begin: called on reset, clear and unhold."""
        self.first_out = None

    # --- telling ended, reaction kept ----------------------------------------------------

    def shelve(self, name: str, who: str, why: str, seconds: float, now_us: int) -> None:
        """End the telling of an alarm for a time. Raises StateError.

        Its reaction stays: nothing that a person shelves lets the machine go on.
        """
        _known(name)
        if not 0.0 < seconds <= LONGEST_SHELF_S:
            raise StateError(
                f"{name}: shelved for {seconds:g} s, must be above 0 and at most "
                f"{LONGEST_SHELF_S:g} s"
            )
        if name in self.silenced and self.silenced[name].until_us < 0:
            raise StateError(f"{name}: out of service, put it back first")
        self._silence("alarm_shelved", name, who, why, now_us + round(seconds * 1e6), now_us)

    def out_of_service(self, name: str, who: str, why: str, now_us: int) -> None:
        """End the telling of an alarm until it is put back. Raises StateError."""
        _known(name)
        self._silence("alarm_out_of_service", name, who, why, -1, now_us)

    def put_back(self, name: str, who: str, now_us: int) -> None:
        """Tell of an alarm again. Raises StateError when it is neither shelved nor out."""
        if name not in self.silenced:
            raise StateError(f"{name}: is neither shelved nor out of service")
        self._end(name, who, now_us)

    def _silence(
        self, kind: str, name: str, who: str, why: str, until_us: int, now_us: int
    ) -> None:
        if len(why.strip()) < 3:
            raise StateError(f"{name}: a reason in words is needed")
        self.silenced[name] = Silence(who, why, until_us, now_us)
        self._note(now_us, kind, name, f"{who}: {why}")
        seconds = -1.0 if until_us < 0 else (until_us - now_us) * 1e-6
        self._tell_silence(
            kind,
            {"name": name, "who": who, "why": why, "seconds": seconds, "reaction": "stays"},
        )

    def _end(self, name: str, who: str, now_us: int) -> None:
        del self.silenced[name]
        self._note(now_us, "alarm_unshelved", name, who)
        self._tell_silence("alarm_unshelved", {"name": name, "who": who})

    def tick(self, now_us: int) -> None:
        """Shelves end by themselves; the flood is measured anew."""
        if self.silenced:
            due = [n for n, s in self.silenced.items() if 0 <= s.until_us <= now_us]
            for name in due:
                self._end(name, "time", now_us)
        self._forget(now_us)

    # --- flood ---------------------------------------------------------------------------

    def _count(self, now_us: int) -> None:
        self._told_us.append(now_us)
        self._forget(now_us)

    def _forget(self, now_us: int) -> None:
        told = self._told_us
        while told and told[0] <= now_us - FLOOD_US:
            told.popleft()
        n = len(told)
        self.most_told = max(self.most_told, n)
        if (n > FLOOD) != self._flooding:
            self._flooding = n > FLOOD
            self._tell_silence("alarm_flood", {"flood": self._flooding, "alarms": n})

    @property
    def told(self) -> int:
        """Alarms told in the last 10 minutes: shelved and suppressed ones not counted."""
        return len(self._told_us)

    @property
    def flood(self) -> bool:
        """More alarms in 10 minutes than one person can answer."""
        return self._flooding

    # --- what clients see ----------------------------------------------------------------

    def state_of(self, name: str) -> AlarmState:
        """The state of one alarm."""
        silence = self.silenced.get(name)
        if silence is not None:
            return AlarmState.OUT_OF_SERVICE if silence.until_us < 0 else AlarmState.SHELVED
        standing = self.standing.get(name)
        if standing is None:
            return AlarmState.NORMAL
        if standing.suppressed_by:
            return AlarmState.SUPPRESSED
        if not standing.present:
            return AlarmState.RETURNED
        return AlarmState.ACKNOWLEDGED if standing.acknowledged else AlarmState.UNACKNOWLEDGED

    def present(self, least: Severity = Severity.HOLD) -> tuple[ActiveAlarm, ...]:
        """Alarms whose cause stands, of at least this severity; shelved ones too."""
        rank = RANK[least]
        return tuple(
            s for s in self.standing.values() if s.present and RANK[s.alarm.severity] >= rank
        )

    def as_list(self) -> list[dict[str, object]]:
        """Standing alarms as plain data with their state, oldest first."""
        return [
            {**s.as_dict(), "state": str(self.state_of(n)), "suppressed_by": s.suppressed_by}
            for n, s in self.standing.items()
        ]

    def as_measures(self, now_us: int) -> dict[str, object]:
        """What is not told, and how many alarms there are: for the console."""
        return {
            "silenced": [
                {
                    "name": name,
                    "state": str(self.state_of(name)),
                    "who": s.who,
                    "why": s.why,
                    "left_s": -1.0 if s.until_us < 0 else max(0, s.until_us - now_us) // 1_000_000,
                    "present": name in self.standing and self.standing[name].present,
                }
                for name, s in self.silenced.items()
            ],
            "told_10_min": self.told,
            "most_told_10_min": self.most_told,
            "flood": self.flood,
        }

    def _note(self, t_us: int, kind: str, name: str, text: str) -> None:
        self.history.append((t_us, kind, name, text))


def _known(name: str) -> None:
    if name not in BY_NAME:
        raise StateError(f"alarm {name[:64]!r} is not known")
