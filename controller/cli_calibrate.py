"""``lmd calibrate``, ``lmd maintenance``, ``lmd cell new``: commissioning on the command line."""

from pathlib import Path
from typing import Annotated, Any

import typer

from controller import words
from controller.cli_cell import CellName, Hidden, Json, default_run_dir
from controller.errors import ConfigError

By = Annotated[str | None, typer.Option("--by", help="Who did it; default the user's name.")]
Notes = Annotated[str, typer.Option("--notes", help="Kept in the file.")]

cell_app = typer.Typer(
    help="Cell files: the first-run wizard.", no_args_is_help=True, rich_markup_mode=None
)


@cell_app.callback()
def _cell() -> None:
    """Cell files: the first-run wizard."""


def calibrate(
    kind: Annotated[str, typer.Argument(help="What to calibrate, or list.")],
    cell: CellName = "sim",
    item: Annotated[
        str | None, typer.Option("--item", help="Which hopper or rotary axis: hopper1, C.")
    ] = None,
    readings: Annotated[
        Path | None, typer.Option("--readings", help="CSV of your instruments' readings.")
    ] = None,
    by: By = None,
    notes: Notes = "",
    seed: Annotated[int, typer.Option("--seed", help="Simulated cell only.")] = 1,
    hidden: Hidden = None,
    run_dir: Annotated[Path | None, typer.Option("--run-dir", help="Default run/<cell>.")] = None,
    json: Json = False,
) -> None:
    """Measure a cell.

    Takes readings, works out the values, keeps them signed and dated; list: what is due.
    """
    words.seed(seed)
    if kind == "list":
        _list(cell, json)
        return
    from controller.commissioning import kinds, work
    from controller.commissioning.store import Store, iso
    from controller.config import find_file, load_cell
    from controller.terminal import number, print_json, print_pairs, print_table, progress

    row = kinds.kind(kind)
    path = find_file("cells", cell)
    config, _ = load_cell(str(path))
    which = work.one_item(row, config, item)
    if hidden is not None and (readings is not None or not config.simulated):
        raise ConfigError(f"--hidden {hidden}: only where a simulated cell is measured")
    if readings is not None:
        rows = work.read_readings(readings, row)
    else:
        with progress(not json) as tell:
            rows = work.take_readings(
                row, which, path, config, run_dir=run_dir or default_run_dir(config.name),
                seed=seed, hidden=hidden, tell=tell,
            )  # fmt: skip
    store = Store.of(config)
    found = work.conclude(row, which, rows, config, store, work.who(by), notes)
    changes = work.cell_changes(found)
    if json:
        told = {**found.as_dict(), "file": str(found.path), "cell": config.name}
        print_json({**told, "readings": len(rows), "cell_file": changes})
        return
    table = [
        [v.name, number(found.values[v.name]), number(found.uncertainty[v.name]), v.unit]
        for v in row.values
    ]
    where = config.name if which == "cell" else f"{config.name}, {which}"
    print_table(f"{row.title}: {where}", ["", "value", "+-", "unit"], table, text_last=True)
    print()
    pairs = [("readings", str(len(rows))), ("due", iso(found.due_s)), ("signed", found.key)]
    pairs.append(("file", str(found.path)))
    pairs += [
        ("cell file" if n == 0 else "", f"{key} = {text}")
        for n, (key, text) in enumerate(changes.items())
    ]
    print_pairs(pairs)


def _list(cell: str, json: bool) -> None:
    """Every calibration that the cell needs: when done, when due, what speaks against it."""
    from controller.commissioning.store import Store, iso, now_s
    from controller.config import load_cell
    from controller.terminal import paint, print_json, print_table

    config, _ = load_cell(cell)
    store = Store.of(config)
    standing = store.standing(config, now_s())
    if json:
        found = [
            {"kind": s.kind.name, "item": s.item, "counts": not s.problem, "problem": s.problem,
             "last": s.last.as_dict() if s.last else None}
            for s in standing
        ]  # fmt: skip
        told: dict[str, Any] = {"cell": config.name, "folder": str(store.folder)}
        print_json({**told, "calibrations": found, "not_counted": store.bad})
        return
    rows = []
    for s in standing:
        name = s.kind.name if s.item == "cell" else f"{s.kind.name} {s.item}"
        done = iso(s.last.done_s)[:10] if s.last else "-"
        due = iso(s.last.due_s)[:10] if s.last else "-"
        state = paint("ok", "good") if not s.problem else paint(s.problem.split(";")[0], "bad")
        rows.append([name, done, due, state])
    head = ["calibration", "done", "due", "state"]
    print_table(f"cell {config.name}: calibrations in {store.folder}", head, rows, text_last=True)
    for bad in store.bad:
        print(f"does not count: {bad}")


def maintenance(
    what: Annotated[str, typer.Argument(help="What was done, or list.")],
    cell: CellName = "sim",
    by: By = None,
    notes: Notes = "",
    json: Json = False,
) -> None:
    """Note what was done to a cell.

    Calibrations that it touches are void.
    """
    from controller.commissioning import work
    from controller.commissioning.kinds import KINDS, MAINTENANCE
    from controller.commissioning.store import Store, now_s
    from controller.config import load_cell
    from controller.terminal import print_json, print_table

    config, _ = load_cell(cell)
    voids = {w: [k.name for k in KINDS.values() if w in k.voided_by] for w in MAINTENANCE}
    if what == "list":
        if json:
            print_json({"maintenance": {w: {"text": t, "voids": voids[w]}
                                        for w, t in MAINTENANCE.items()}})  # fmt: skip
            return
        rows = [[w, text, ", ".join(voids[w])] for w, text in MAINTENANCE.items()]
        print_table("maintenance", ["word", "what was done", "voids"], rows, text_last=True)
        return
    store = Store.of(config)
    path = store.note(what, config.name, now_s(), work.who(by), notes)
    if json:
        print_json({"cell": config.name, "maintenance": what, "voids": voids[what],
                    "file": str(path)})  # fmt: skip
        return
    print(f"noted: {MAINTENANCE[what]}; void from now on: {', '.join(voids[what]) or 'nothing'}")
    print(f"file: {path}")


@cell_app.command("new")
def new_cell(
    out: Annotated[Path, typer.Option("-o", "--out", help="Cell file to write, *.toml.")],
    like: Annotated[str, typer.Option("--like", help="Cell to begin with: name or path.")] = "sim",
    answers: Annotated[
        Path | None, typer.Option("--answers", help="TOML file of answers: nothing is asked.")
    ] = None,
    json: Json = False,
) -> None:
    """Ask for what differs from cell to cell, check it, and write a cell file."""
    from controller.commissioning import wizard
    from controller.terminal import print_json, print_pairs

    words.new_file("--out", out, ".toml")
    if out.exists():
        raise ConfigError(f"--out {out}: exists already; give another name")
    text, before = wizard.base(like)
    given = wizard.read_answers(answers) if answers is not None else wizard.ask(before, _prompt)
    wizard.write(text, given, out)
    if json:
        print_json({"cell_file": str(out), "answers": given})
        return
    print_pairs([(key, str(value)) for key, value in given.items()] or [("answers", "none")])
    print(f"checked and written: {out}")


def _prompt(question: str, default: str) -> str:
    return str(typer.prompt(question, default=default))
