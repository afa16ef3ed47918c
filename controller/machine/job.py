"""A loaded job as the machine sees it: the plan and the facts that preflight compares."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from controller.config import Cell
from controller.machine.monitor import PlanCursor
from controller.model import BuildPlan, PowderChannel
from controller.planning.rest.head import ends_steps
from controller.recipes import Recipe, parse_recipe
from firmware_bridge.segments import POWER_FULL


def text_hash(text: str) -> str:
    """sha256 of a configuration file's text."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Job:
    """A plan that was read from a job file, checked against nothing yet."""

    path: Path
    plan: BuildPlan
    hash: str
    recipe: Recipe
    cell_hash: str
    duration_s: float
    powder_g: tuple[float, float]  # that the plan takes out of each hopper
    low: tuple[float, ...]  # least and greatest position of each axis, mm or degrees
    high: tuple[float, ...]
    peak_power_w: float
    carrier_l_min: float  # first set values of the timeline
    shield_l_min: float

    def as_dict(self) -> dict[str, object]:
        """What clients see of it."""
        plan = self.plan
        return {
            "path": str(self.path),
            "hash": self.hash,
            "part": plan.part.get("name", ""),
            "recipe": self.recipe.name,
            "material": self.recipe.material,
            "layers": len(plan.layers),
            "tracks": len(plan.tracks),
            "segments": len(plan.segments),
            "duration_s": self.duration_s,
            "powder_g": list(self.powder_g),
            "figures": plan.figures,
        }


def make_job(path: Path, plan: BuildPlan, job_hash: str, cell: Cell) -> Job:
    """Work out a plan's facts. Raises RecipeError when its recipe cannot be read."""
    cursor = PlanCursor(plan)
    axes = cell.motion.machine_axes
    n = len(axes)
    position = ends_steps(plan)[:, :n]
    per_unit = np.array([a.steps_per_unit for a in axes])
    home = np.array([a.home for a in axes])
    low, high = home + position.min(0) / per_unit, home + position.max(0) / per_unit
    gated = plan.segments["flags"] & 1
    powers = plan.segments["end_power"][gated == 1]
    peak = float(powers.max()) / POWER_FULL * cell.laser.rated_power_w if len(powers) else 0.0
    return Job(
        path=path,
        plan=plan,
        hash=job_hash,
        recipe=parse_recipe(plan.recipe_toml, f"{path}: recipe"),
        cell_hash=text_hash(plan.cell_toml),
        duration_s=cursor.duration_us * 1e-6,
        powder_g=cursor.needed_g(),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        peak_power_w=peak,
        carrier_l_min=_first(plan, PowderChannel.CARRIER),
        shield_l_min=_first(plan, PowderChannel.SHIELD),
    )


def _first(plan: BuildPlan, channel: PowderChannel) -> float:
    """First value above 0 that the timeline sets on a channel, 0 if there is none."""
    values = plan.timeline["value"][plan.timeline["channel"] == int(channel)]
    values = values[values > 0.0]
    return float(values[0]) if len(values) else 0.0
