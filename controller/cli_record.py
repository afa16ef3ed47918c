"""``lmd record``: what build records say, and whether they are what was sealed."""

from pathlib import Path
from typing import Annotated

import typer

from controller import words
from controller.errors import RecordError, Unfinished, VerifyError

record = typer.Typer(help="Build records.", no_args_is_help=True, rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")]
Folder = Annotated[Path, typer.Argument(help="A record's folder, or one that holds records.")]


def find_record(folder: Path) -> Path:
    """The record in a folder: itself, or the newest one below it."""
    if not folder.exists():
        raise RecordError(f"{folder}: no such folder")
    if not folder.is_dir():
        raise RecordError(f"{folder}: is a file, a record is a folder")
    if (folder / "record.mcap").exists():
        return folder
    inside = sorted(folder.glob("*/record.mcap"), key=lambda p: p.stat().st_mtime_ns)
    if not inside:
        raise RecordError(f"{folder}: holds no record.mcap")
    return inside[-1].parent


@record.command()
def verify(folder: Folder, json: Json = False) -> None:
    """Check every byte of a record against its seals; exit code 4 when it differs."""
    from dataclasses import asdict

    from controller.record.verify import verify_record
    from controller.terminal import print_json

    where = find_record(folder)
    found = verify_record(where)
    if json:
        print_json({"record": str(where), "verdict": found.verdict, **asdict(found)})
    elif found.ok:
        print(f"{where}: {found.verdict}")
        for line in found.notes:
            print(f"  {line}")
    else:
        for line in (*found.problems, *found.notes):
            print(line)
    if not found.ok:
        raise VerifyError(f"{where}: {found.verdict}")


@record.command()
def info(folder: Folder, json: Json = False) -> None:
    """Planned, executed and simulated figures of a record."""
    from controller.record.summary import summarise
    from controller.terminal import position, print_figures, print_json, print_pairs

    where = find_record(folder)
    found = summarise(where)
    if json:
        print_json({"record": str(where), **found})
        return
    print_figures(f"{where.name}: {found['state']}", found)
    print()
    print_pairs(
        [
            ("position error", position(found)),
            ("content hash", found["content_hash"] or "- (the record was not closed)"),
        ]
    )


@record.command()
def report(folder: Folder, json: Json = False) -> None:
    """Write report.pdf and report.html again."""
    from controller.record.report import write_report
    from controller.terminal import print_json

    paths = write_report(find_record(folder))
    if json:
        print_json({"pdf": str(paths.pdf), "html": str(paths.html)})
    else:
        print(paths.pdf)
        print(paths.html)


@record.command()
def export(
    folder: Folder,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the files.")],
    form: Annotated[str, typer.Option("--format", help="csv or parquet.")] = "csv",
    json: Json = False,
) -> None:
    """Telemetry and events as CSV or Parquet."""
    from controller.record.export import export_csv, export_parquet
    from controller.record.reader import read_record
    from controller.terminal import print_json

    makers = {"csv": export_csv, "parquet": export_parquet}
    if form not in makers:
        raise RecordError(f"--format {form}: must be csv or parquet")
    paths = makers[form](read_record(find_record(folder)), out)
    if json:
        print_json({"files": [str(p) for p in paths]})
    else:
        for path in paths:
            print(path)


def resume(
    record_folder: Annotated[
        Path, typer.Argument(help="Record of the interrupted build, or a folder of records.")
    ],
    cell: Annotated[
        str, typer.Option("--cell", help="Cell: name or path; default: the record's.")
    ] = "",
    out: Annotated[Path, typer.Option("--out", help="Folder that gets the record's folder.")] = (
        Path("records")
    ),
    time: Annotated[
        str | None, typer.Option("--time", help="real, virtual or null; default virtual.")
    ] = None,
    scenario: Annotated[
        str | None, typer.Option("--scenario", help="Faults to inject: name or path.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of everything that varies.")] = 1,
    mode: Annotated[
        str, typer.Option("--mode", help="production, development or maintenance.")
    ] = "development",
    json: Json = False,
) -> None:
    """Go on with an interrupted build, from its record.

    It begins where the build was executed to, and makes a record of its own that names the
    old one.
    """
    words.seed(seed)
    words.one_of("--mode", mode, words.UNIT_MODES)
    if time is not None:
        words.one_of("--time", time, words.TIME_MODES)
    where = find_record(record_folder)

    from controller.build import Wish
    from controller.restart import resume_build
    from controller.terminal import print_build, print_json, progress

    wish = Wish(
        part=where, cell=cell, out=out, time_mode=time, scenario=scenario, seed=seed, mode=mode
    )
    with progress(not json) as tell:
        result = resume_build(where, wish, tell)
    if json:
        print_json(result)
    else:
        print_build(result)
    if not result["sealed"]:
        raise VerifyError(f"{result['record']}: DAMAGED: {result['problems'][0]}")
    if result["state"] != "COMPLETE":
        raise Unfinished(result["state"], result["alarms"])
