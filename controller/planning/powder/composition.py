"""Powders mixed in the jet: which hopper gives what share, and where.

A recipe's ``[composition]`` names mass shares at heights above the substrate or at lengths of
emission, straight between its points and held beyond them. Without one the recipe's material
comes alone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from controller.config import Cell, Material
from controller.errors import PlanError
from controller.recipes import Composition, Recipe


@dataclass(frozen=True)
class Mixture:
    """The recipe's powders in the hoppers of a cell."""

    powders: tuple[str, ...]  # by hopper; "" where the recipe takes nothing
    composition: Composition | None

    @classmethod
    def of(cls, recipe: Recipe, cell: Cell) -> "Mixture":
        """Find every powder's hopper. Raises PlanError naming powder and hoppers."""
        wanted = recipe.powders
        held = [h.powder for h in cell.powder.hoppers]
        for name in wanted:
            if name not in held:
                key = "composition" if recipe.composition is not None else "material"
                raise PlanError(
                    f"recipe {recipe.name!r}: {key} {name!r} is in no hopper of cell "
                    f"{cell.name!r} (hoppers hold {', '.join(held)})"
                )
        places = {held.index(name): name for name in wanted}
        return cls(tuple(places.get(n, "") for n in range(len(held))), recipe.composition)

    @property
    def along(self) -> str:
        """ "", "z" or "path": what the shares depend on."""
        return "" if self.composition is None else self.composition.along

    def shares_at(self, at_mm: np.ndarray) -> np.ndarray:
        """Mass share of each hopper, (n, hoppers), at heights or lengths in mm."""
        at = np.asarray(at_mm, dtype=np.float64)
        shares = np.zeros((len(at), len(self.powders)))
        for hopper, name in enumerate(self.powders):
            if not name:
                continue
            if self.composition is None:
                shares[:, hopper] = 1.0
                continue
            points = self.composition.points
            places = np.array([p.at_mm for p in points])
            shares[:, hopper] = np.interp(at, places, [p.share.get(name, 0.0) for p in points])
        return shares

    def kinks_mm(self) -> np.ndarray:
        """Places at which a share bends."""
        if self.composition is None:
            return np.zeros(0)
        return np.array([p.at_mm for p in self.composition.points])


def feedable(
    total_g_min: np.ndarray, shares: np.ndarray, least_g_min: float
) -> tuple[np.ndarray, np.ndarray]:
    """Flows of the hoppers that the feeder can give: each 0 or at least its least flow.

    The total is kept; of the ways to keep it the one nearest to the wanted shares is taken.

    Parameters
    ----------
    total_g_min : (n,) 0 or at least ``least_g_min``; shares : (n, k), k 1 or 2, rows add to 1

    Returns flows (n, k) g/min, and by how much the shares differ from the wanted, (n,).
    """
    total = np.asarray(total_g_min, dtype=np.float64)
    flows = total[:, None] * shares
    low = ((flows > 1e-9) & (flows < least_g_min - 1e-9)).any(axis=1)
    if not low.any() or shares.shape[1] == 1:
        return flows, np.zeros(len(total))
    made = flows[low]
    whole = total[low]
    first = made[:, 0].copy()
    # the second hopper alone, the first alone, one at its least flow and the other the rest
    choices = np.stack([np.zeros_like(whole), whole,
                        np.full_like(whole, least_g_min), whole - least_g_min])  # fmt: skip
    bad = (whole < 2.0 * least_g_min) & (np.arange(4)[:, None] >= 2)
    nearest = np.argmin(np.where(bad, math.inf, np.abs(choices - first)), axis=0)
    made[:, 0] = choices[nearest, np.arange(len(whole))]
    made[:, 1] = whole - made[:, 0]
    off = np.zeros(len(total))
    off[low] = np.abs(made[:, 0] - first) / np.maximum(whole, 1e-12)
    flows[low] = made
    return flows, off


def materials_of(
    recipe: Recipe, material: Material, materials: Mapping[str, Material] | None
) -> dict[str, Material]:
    """The material of every powder of a recipe. Raises PlanError naming what is missing."""
    known = {**(materials or {}), recipe.material: material}
    for name in recipe.powders:
        if name not in known:
            raise PlanError(
                f"recipe {recipe.name!r}: composition {name!r} has no material file among "
                f"{', '.join(sorted(known))}: density and price are needed"
            )
    return {name: known[name] for name in recipe.powders}


def deposit_volume_mm3(
    mixture: Mixture, laid_g: np.ndarray, materials: Mapping[str, Material]
) -> float:
    """Volume of what was laid of each hopper: volumes add up, 1 / rho = sum w / rho."""
    return float(
        sum(
            g / materials[name].density_g_mm3
            for g, name in zip(laid_g, mixture.powders, strict=True)
            if name
        )
    )
