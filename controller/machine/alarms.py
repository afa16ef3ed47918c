"""Standing alarms: raised, seen, gone; the first-out of a cascade.

The rows are in ``alarm_table.py``.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

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

__all__ = ["BY_CODE", "BY_NAME", "RANK", "TABLE", "ActiveAlarm", "Alarm", "AlarmManager"]


@dataclass(slots=True)
class ActiveAlarm:
    """An alarm that is standing: raised, and not both gone and acknowledged."""

    alarm: Alarm
    raised_us: int
    detail: str
    present: bool = True  # its cause still stands
    acknowledged: bool = False
    count: int = 1  # how often raised while it stood

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
        if who:
            data["who"] = who
        return data


Tell = Callable[[str, ActiveAlarm, str], None]  # kind of event, alarm, who


class AlarmManager:
    """Standing alarms, the first-out, and what was seen since the last reset.

    An alarm stands until its cause is gone and it has been acknowledged, in either order.
    The first-out is the alarm that came first since none above NOTE stood: the cause of a
    cascade, kept until ``reset_first_out``.
    """

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self.standing: dict[str, ActiveAlarm] = {}  # by name, in order of raising
        self.first_out: ActiveAlarm | None = None
        self.total = 0

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
        first = self.first_out
        if first is None:
            if standing.alarm.severity is not Severity.NOTE:
                self.first_out = standing
        elif (
            first.alarm.name in CAUSES.get(name, ()) and now_us - first.raised_us <= CAUSE_WITHIN_US
        ):
            self.first_out = standing
        self._tell("alarm", standing, "")
        return standing

    def clear(self, name: str) -> None:
        """The cause is gone; the alarm goes too when it was acknowledged."""
        standing = self.standing.get(name)
        if standing is None or not standing.present:
            return
        standing.present = False
        self._tell("alarm_clear", standing, "")
        if standing.acknowledged:
            del self.standing[name]

    def acknowledge(self, who: str, names: Iterable[str] | None = None) -> int:
        """Acknowledge some or all alarms; returns how many were."""
        chosen = list(self.standing) if names is None else [n for n in names if n in self.standing]
        done = 0
        for name in chosen:
            standing = self.standing[name]
            if standing.acknowledged:
                continue
            standing.acknowledged = True
            done += 1
            self._tell("alarm_ack", standing, who)
            if not standing.present:
                del self.standing[name]
        return done

    def reset_first_out(self) -> None:
        """A new cascade may begin: called on reset, clear and unhold."""
        self.first_out = None

    def present(self, least: Severity = Severity.HOLD) -> tuple[ActiveAlarm, ...]:
        """Alarms whose cause stands, of at least this severity."""
        rank = RANK[least]
        return tuple(
            s for s in self.standing.values() if s.present and RANK[s.alarm.severity] >= rank
        )

    def as_list(self) -> list[dict[str, object]]:
        """Standing alarms as plain data, oldest first."""
        return [s.as_dict() for s in self.standing.values()]
