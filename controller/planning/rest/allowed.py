"""Whether a recipe lets an interrupted build go on: ``recipe.restart``."""

from controller.recipes import Restart


def against_stop(restart: Restart, dark_s: float) -> str:
    """Why a build that was dark for so long may not go on; "" when it may."""
    if dark_s <= restart.longest_stop_s:
        return ""
    return (
        f"no light for {dark_s / 60.0:.1f} min, the recipe's restart.longest_stop is "
        f"{restart.longest_stop_s / 60.0:g} min"
    )


def against_number(restart: Restart, number: int) -> str:
    """Why a bead may not be begun in its middle for the ``number``-th time; "" when it may."""
    if number <= restart.most_restarts:
        return ""
    return (
        f"restart {number} of this build, the recipe's restart.most_restarts is "
        f"{restart.most_restarts}"
    )
