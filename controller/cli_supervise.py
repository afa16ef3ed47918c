"""``lmd why`` and ``lmd approve``: why a cell that runs cannot fire; freeze what it may run."""

from pathlib import Path
from typing import Annotated, Any

import typer

CellName = Annotated[str, typer.Option("--cell", help="Cell: name or path.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")]


def _call(cell: str, role: str, method: str, **params: Any) -> dict[str, Any]:
    from controller.api.client import Client
    from controller.cli_cell import default_run_dir

    run_dir = default_run_dir(Path(cell).stem)
    with Client(run_dir, role=role, name=f"lmd {method}") as client:
        answer: dict[str, Any] = client.call(method, **params)
    return answer


def why(cell: CellName = "sim", json: Json = False) -> None:
    """Why the laser cannot be enabled now.

    The chain of a running cell, hardware first.
    """
    from controller.terminal import print_json, print_table

    told = _call(cell, "observer", "why_not")
    if json:
        print_json(told)
        return
    rows = [
        [
            link["title"],
            link["holds"],
            "; ".join(f"{r['name']}: {r['text']}" for r in link["reasons"]),
        ]
        for link in told["chain"]
    ]
    title = "may fire" if told["may_fire"] else f"cannot fire, look first at: {told['first']}"
    print_table(title, ["link", "holds", "why"], rows, text_last=True)


def approve(
    who: Annotated[str, typer.Argument(help="Who approves.")],
    cell: CellName = "sim",
    json: Json = False,
) -> None:
    """Freeze what a cell may run in production.

    That is the loaded job's recipe, limits, software, firmware, cell and calibrations.
    """
    from controller.terminal import print_json

    told = _call(cell, "engineer", "approve", who=who)
    if json:
        print_json(told)
        return
    recipes = ", ".join(told["recipes"]) or "none"
    print(f"approved by {told['who']} at {told['when']}: recipes {recipes}")
