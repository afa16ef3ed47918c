"""What a rest of a plan begins with, and places in a plan that were executed."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from controller.model import BuildPlan
from firmware_bridge.segments import FLAG_PARAM

MEETS = "meets"  # key of a rest's meta: segments at whose start a run-up meets the plan before


@dataclass(frozen=True)
class Place:
    """How far a plan was executed: time into a segment. (-1, 0): not begun."""

    segment: int
    tick_us: int


@dataclass(frozen=True)
class Head:
    """What comes before the plan's own segments; with the plan it makes the rest."""

    segments: np.ndarray  # (m,) SEGMENT
    join: int  # the plan's segment in which the gate opens again
    follow: int  # the plan's segment that comes after ``segments``
    track: int  # the plan's track that is gone on with
    opens: int  # index into ``segments`` of the first one with the gate open
    start_steps: np.ndarray  # (6,)
    overlap_mm: float  # of bead laid twice; 0 when the track begins anew
    remelt: tuple[int, int] | None = None  # rows of the pass without powder
    into_us: int = 0  # time into ``join`` at which the gate opens
    meets: tuple[int, ...] = ()  # rows at which a run-up has met the plan, still in the dark

    def as_dict(self) -> dict[str, Any]:
        """Plain data for a record; the segments apart."""
        return {
            "join": self.join,
            "follow": self.follow,
            "track": self.track,
            "opens": self.opens,
            "start_steps": [int(v) for v in self.start_steps],
            "overlap_mm": self.overlap_mm,
            "remelt": None if self.remelt is None else list(self.remelt),
            "into_us": self.into_us,
            "meets": list(self.meets),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any], segments: np.ndarray) -> "Head":
        """The reverse of ``as_dict``."""
        return cls(
            segments=segments,
            join=int(data["join"]),
            follow=int(data["follow"]),
            track=int(data["track"]),
            opens=int(data["opens"]),
            start_steps=np.array(data["start_steps"], dtype=np.int64),
            overlap_mm=float(data["overlap_mm"]),
            remelt=None if data["remelt"] is None else tuple(data["remelt"]),
            into_us=int(data.get("into_us", 0)),  # records before it: at a segment's start
            meets=tuple(int(m) for m in data.get("meets", ())),
        )


def ends_steps(plan: BuildPlan) -> np.ndarray:
    """Axis positions before each segment and after the last, (n + 1, 6) int64 steps."""
    steps = plan.segments["steps"].astype(np.int64)
    steps[(plan.segments["flags"] & FLAG_PARAM) != 0] = 0  # no motion
    out = np.empty((len(steps) + 1, steps.shape[1]), dtype=np.int64)
    out[0] = plan.start_steps
    np.cumsum(steps, axis=0, out=out[1:])
    out[1:] += plan.start_steps
    return out
