"""Recipes: what the laser, the powder and the layers do for one alloy and use."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from controller import units as u
from controller.config import Cell, Strict, find_file, load_model, parse_model
from controller.errors import RecipeError
from controller.model import TrackKind


class Bead(Strict):
    """The bead that the default track lays, measured or predicted."""

    width_mm: u.Mm = Field(alias="width", gt=0)
    height_mm: u.Mm = Field(alias="height", gt=0)
    overlap: float = Field(ge=0, lt=1)  # share of the width that neighbours share

    @property
    def area_mm2(self) -> float:
        """Section of a parabolic bead, 2/3 w h."""
        return 2.0 / 3.0 * self.width_mm * self.height_mm

    @property
    def pitch_mm(self) -> float:
        """Distance between neighbouring beads."""
        return self.width_mm * (1.0 - self.overlap)


class Track(Strict):
    """Settings of one kind of track; None means as in [track.default]."""

    power_w: u.Watt | None = Field(default=None, alias="power", gt=0)
    power_floor_w: u.Watt | None = Field(default=None, alias="power_floor", ge=0)
    # g(r) of P = floor + (power - floor) g(v / speed): r, or r to the power of power_exponent
    power_law: Literal["linear", "power"] | None = None
    power_exponent: float | None = Field(default=None, ge=0.1, le=4.0)
    energy_cap_j_mm: u.JPerMm | None = Field(default=None, alias="energy_cap", gt=0)
    # gate edges along the path from the bead's ends, forward positive
    gate_on_offset_mm: u.Mm | None = Field(default=None, alias="gate_on_offset")
    gate_off_offset_mm: u.Mm | None = Field(default=None, alias="gate_off_offset")
    speed_mm_s: u.MmPerS | None = Field(default=None, alias="speed", gt=0)
    powder_g_min: u.GramPerMin | None = Field(default=None, alias="powder", ge=0)
    # constant: the same all along a bead; speed: as v / speed, as far as the feeder follows
    powder_law: Literal["constant", "speed"] | None = None
    carrier_l_min: u.LitrePerMin | None = Field(default=None, alias="carrier_gas", ge=0)
    shield_l_min: u.LitrePerMin | None = Field(default=None, alias="shield_gas", ge=0)
    ramp_in_mm: u.Mm | None = Field(default=None, alias="ramp_in", ge=0)
    ramp_out_mm: u.Mm | None = Field(default=None, alias="ramp_out", ge=0)


class TrackSettings(Strict):
    """A track's settings with nothing left open; not read from files."""

    model_config = ConfigDict(allow_inf_nan=True)  # no energy cap is an infinite one

    power_w: float
    power_floor_w: float
    power_law: str
    power_exponent: float
    energy_cap_j_mm: float  # infinite where there is none
    gate_on_offset_mm: float
    gate_off_offset_mm: float
    speed_mm_s: float
    powder_g_min: float
    powder_law: str
    carrier_l_min: float
    shield_l_min: float
    ramp_in_mm: float
    ramp_out_mm: float


# keys of [track.default] that may be left out, and what then holds
OPTIONAL_SETTINGS: dict[str, float | str] = {
    "powder_law": "constant",
    "power_exponent": 1.0,
    "energy_cap_j_mm": math.inf,
    "gate_on_offset_mm": 0.0,
    "gate_off_offset_mm": 0.0,
}


class Blend(Strict):
    """Mass shares of the powders at one place."""

    at_mm: u.Mm = Field(alias="at", ge=0)
    share: dict[str, float]

    @model_validator(mode="after")
    def _shares_make_one(self) -> "Blend":
        if any(not 0.0 <= x <= 1.0 for x in self.share.values()):
            raise ValueError(f"shares {self.share} at {self.at_mm:g} mm: each must be 0 to 1")
        if abs(sum(self.share.values()) - 1.0) > 1e-6:
            raise ValueError(
                f"shares at {self.at_mm:g} mm add up to {sum(self.share.values()):g}, not 1"
            )
        return self


class Composition(Strict):
    """Powders mixed in the jet (in-situ alloys): shares straight between the points."""

    along: Literal["z", "path"]  # z: height above the substrate; path: length of emission
    points: list[Blend] = Field(min_length=1, max_length=1000)

    @property
    def powders(self) -> tuple[str, ...]:
        """Names of the powders that some point takes, in the order in which they are met."""
        return tuple(dict.fromkeys(n for p in self.points for n, x in p.share.items() if x > 0.0))

    @model_validator(mode="after")
    def _points_rise(self) -> "Composition":
        for a, b in pairwise(self.points):
            if b.at_mm <= a.at_mm:
                raise ValueError(f"at {b.at_mm:g} mm does not lie above {a.at_mm:g} mm before it")
        return self


class Layers(Strict):
    """How layers are stacked and filled."""

    height_mm: u.Mm = Field(alias="height", gt=0)
    hatch_angle_step_deg: u.Deg = Field(alias="hatch_angle_step")
    contours: int = Field(ge=0, le=20)
    interpass_deg_c: u.DegC = Field(alias="interpass_temperature")


class NearNetShape(Strict):
    """Material left for machining."""

    allowance_xy_mm: u.Mm = Field(alias="allowance_xy", ge=0)
    allowance_z_mm: u.Mm = Field(alias="allowance_z", ge=0)


class Window(Strict):
    """Outside of this: refused, or warned in development mode."""

    power_w: list[u.Watt] = Field(alias="power", min_length=2, max_length=2)
    speed_mm_s: list[u.MmPerS] = Field(alias="speed", min_length=2, max_length=2)
    powder_g_min: list[u.GramPerMin] = Field(alias="powder", min_length=2, max_length=2)
    override: list[float] = Field(default=[0.7, 1.2], min_length=2, max_length=2)

    @model_validator(mode="after")
    def _least_first(self) -> "Window":
        pairs = (
            ("power", self.power_w, "W"),
            ("speed", self.speed_mm_s, "mm/s"),
            ("powder", self.powder_g_min, "g/min"),
        )
        for key, (least, most), unit in pairs:
            if not 0.0 <= least <= most:
                raise ValueError(f"{key}: {least:g} to {most:g} {unit} is no range from 0 up")
        least, most = self.override
        if not 0.0 < least <= 1.0 <= most:
            raise ValueError(
                f"override: {least:g} to {most:g} does not hold 1, or its least is not above 0"
            )
        return self


class MeltPoolLoop(Strict):
    """Melt-pool loop (off until the process issue calibrates it)."""

    enabled: bool
    signal: Literal["pool_width", "temperature"]
    setpoint_mm: u.Mm = Field(alias="setpoint", gt=0)
    power_range_w: list[u.Watt] = Field(alias="power_range", min_length=2, max_length=2)
    power_rate_w_s: u.WattPerS = Field(alias="power_rate", gt=0)


class Loops(Strict):
    """Process loops."""

    melt_pool: MeltPoolLoop


class Restart(Strict):
    """When an interrupted build may go on."""

    longest_stop_s: u.Second = Field(alias="longest_stop", gt=0)
    lowest_temperature_deg_c: u.DegC = Field(alias="lowest_temperature")
    overlap_mm: u.Mm = Field(alias="overlap", ge=0)
    remelt_pass: bool
    most_restarts: int = Field(ge=0)


class Recipe(Strict):
    """One recipe."""

    name: str
    material: str
    approved: bool
    bead: Bead
    catchment: float = Field(default=0.40, gt=0, le=1)  # deposited / fed powder
    track: dict[Literal["default", "contour", "hatch", "thin_wall", "first_layer"], Track]
    layers: Layers
    near_net_shape: NearNetShape
    window: Window
    composition: Composition | None = None  # absent: the recipe's material alone
    loops: Loops | None = None
    restart: Restart

    @model_validator(mode="after")
    def _default_is_whole(self) -> "Recipe":
        default = self.track.get("default")
        if default is None:
            raise ValueError("[track.default] is missing")
        open_keys = [
            field.alias or name
            for name, field in Track.model_fields.items()
            if getattr(default, name) is None and name not in OPTIONAL_SETTINGS
        ]
        if open_keys:
            raise ValueError(f"[track.default] lacks {', '.join(open_keys)}")
        return self

    @model_validator(mode="after")
    def _blend_has_the_material(self) -> "Recipe":
        if self.composition is not None and self.material not in self.composition.powders:
            raise ValueError(
                f"[composition] takes {', '.join(self.composition.powders)}, but not the "
                f"recipe's material {self.material!r}"
            )
        return self

    @property
    def powders(self) -> tuple[str, ...]:
        """Every powder that the recipe takes, its material first."""
        if self.composition is None:
            return (self.material,)
        return tuple(dict.fromkeys((self.material, *self.composition.powders)))

    def settings_for(self, kind: TrackKind, layer: int) -> TrackSettings:
        """The settings of a track: default, then its kind's, then the first layer's."""
        own_default = self.track["default"].model_dump()
        values = OPTIONAL_SETTINGS | {k: v for k, v in own_default.items() if v is not None}
        chosen = [kind.name.lower()] + (["first_layer"] if layer == 0 else [])
        for key in chosen:
            own = self.track.get(key)  # type: ignore[call-overload]
            if own is not None:
                values.update({k: v for k, v in own.model_dump().items() if v is not None})
        return TrackSettings.model_validate(values)

    def all_settings(self) -> dict[str, TrackSettings]:
        """Every combination a build can use, by name, for checks."""
        return {
            f"{kind.name.lower()}{', first layer' if layer == 0 else ''}": self.settings_for(
                kind, layer
            )
            for kind in TrackKind
            for layer in (0, 1)
        }


def load_recipe(name_or_path: str) -> tuple[Recipe, str]:
    """A recipe by name or path, and the file's text."""
    return load_model(Recipe, find_file("recipes", name_or_path, RecipeError), RecipeError)


def parse_recipe(text: str, origin: str) -> Recipe:
    """A recipe from text (a job's or a record's)."""
    return parse_model(Recipe, text, origin, RecipeError)


def check_recipe(recipe: Recipe, cell: Cell, origin: str | Path, *, strict: bool) -> list[str]:
    """Compare a recipe with the cell and with its own window.

    Hard limits of the cell raise RecipeError. The recipe's window raises when ``strict``
    (production mode); otherwise each breach is returned as a warning.
    """
    powders = [h.powder for h in cell.powder.hoppers]
    if recipe.material not in powders:
        raise RecipeError(
            f"{origin}: material {recipe.material!r} is in no hopper of cell {cell.name!r} "
            f"(hoppers hold {', '.join(powders)})"
        )
    if recipe.loops is not None and recipe.loops.melt_pool.enabled:
        raise RecipeError(
            f"{origin}: loops.melt_pool.enabled is true, but this version has no melt-pool loop; "
            "set it to false"
        )
    for at in recipe.composition.points if recipe.composition is not None else ():
        for name, share in at.share.items():
            if share > 0.0 and name not in powders:
                raise RecipeError(
                    f"{origin} [composition]: {name!r} (share {share:g} at {at.at_mm:g} mm) is in "
                    f"no hopper of cell {cell.name!r} (hoppers hold {', '.join(powders)})"
                )
    slowest = min(a.speed_mm_s for a in cell.motion.axes[:2]) * cell.motion.speed_share
    warnings: list[str] = []
    for name, s in recipe.all_settings().items():
        hard = [
            ("power", s.power_w, cell.laser.rated_power_w, "W", "laser.rated_power"),
            ("speed", s.speed_mm_s, slowest, "mm/s", "motion.axes speed x sqrt(plan_share)"),
            ("powder", s.powder_g_min, cell.powder.greatest_flow_g_min, "g/min",
             "powder.greatest_flow"),
            ("carrier_gas", s.carrier_l_min, cell.gas.greatest_flow_l_min, "L/min",
             "gas.greatest_flow"),
            ("shield_gas", s.shield_l_min, cell.gas.greatest_flow_l_min, "L/min",
             "gas.greatest_flow"),
        ]  # fmt: skip
        for key, value, limit, unit, limit_name in hard:
            if value > limit:
                raise RecipeError(
                    f"{origin} [track, {name}]: {key} {value:g} {unit} above {limit:g} {unit} "
                    f"({limit_name} of cell {cell.name!r})"
                )
        if 0.0 < s.powder_g_min < cell.powder.least_flow_g_min:
            raise RecipeError(
                f"{origin} [track, {name}]: powder {s.powder_g_min:g} g/min below "
                f"{cell.powder.least_flow_g_min:g} g/min (powder.least_flow of cell {cell.name!r})"
            )
        if s.power_floor_w > s.power_w:
            raise RecipeError(
                f"{origin} [track, {name}]: power_floor {s.power_floor_w:g} W above "
                f"power {s.power_w:g} W"
            )
        if s.power_floor_w < cell.laser.threshold_power_w:
            raise RecipeError(
                f"{origin} [track, {name}]: power_floor {s.power_floor_w:g} W below "
                f"{cell.laser.threshold_power_w:g} W (laser.threshold_power of cell "
                f"{cell.name!r}): the beam would go out at low speed"
            )
        soft = [
            ("power", s.power_w, recipe.window.power_w, "W"),
            ("speed", s.speed_mm_s, recipe.window.speed_mm_s, "mm/s"),
            ("powder", s.powder_g_min, recipe.window.powder_g_min, "g/min"),
        ]
        for key, value, (least, most), unit in soft:
            if not least <= value <= most:
                text = (
                    f"{origin} [track, {name}]: {key} {value:g} {unit} outside the window "
                    f"{least:g} to {most:g} {unit}"
                )
                if strict:
                    raise RecipeError(text)
                warnings.append(text)
    return warnings
