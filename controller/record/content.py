"""What a report says, before it is laid out: one content for PDF and HTML."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller import __version__
from controller.errors import RecordError
from controller.model import BuildPlan
from controller.record import summary as sm
from controller.record.charts import Mark
from controller.record.reader import Event, Record, Trace, read_record, read_trace
from controller.record.verify import Verification, verify_record

# figure -> (label, unit, factor, decimals, deviation in % from which the report flags it);
# the limits are the project's own requirements for the simulated cell
FIGURES = {
    "duration_s": ("Duration", "s", 1.0, 2, 2.0),
    "emission_s": ("Emission", "s", 1.0, 2, 0.5),
    "energy_j": ("Laser energy", "kJ", 1e-3, 3, 0.5),
    "powder_g": ("Powder fed", "g", 1.0, 2, 1.0),
    "deposited_g": ("Mass deposited", "g", 1.0, 2, 5.0),
    "layers": ("Layers", "", 1.0, 0, 0.01),
}
GOOD, ODD, BAD, NEUTRAL = "good", "odd", "bad", "neutral"  # how a badge or cell is drawn
STATE_LEVEL = {"COMPLETE": GOOD, "STOPPED": ODD, "HELD": ODD}
LISTED = (
    "alarm", "override", "hold", "resume", "command", "state", "device", "record_end",
)  # fmt: skip
_TAG = {"alarm": "A", "override": "O", "hold": "H", "resume": "H"}


@dataclass(frozen=True)
class FigureRow:
    """A line of the comparison table, already as text."""

    label: str
    unit: str
    planned: str
    executed: str
    executed_pct: str
    executed_flag: bool
    truth: str
    truth_pct: str
    truth_flag: bool


@dataclass(frozen=True)
class LogRow:
    """A line of the list of alarms, overrides and stops."""

    tag: str
    t_s: float
    kind: str
    text: str
    level: str


@dataclass(frozen=True)
class Content:
    """Everything a report shows."""

    title: str
    subtitle: str
    simulated: bool
    state: tuple[str, str]  # word, level
    seal: tuple[str, str]
    seal_lines: list[str]
    figures: list[FigureRow]
    figure_notes: list[str]
    has_truth: bool
    groups: list[tuple[str, list[tuple[str, str]]]]  # heading, (key, value)
    log: list[LogRow]
    marks: list[Mark]
    n_alarms: int
    content_hash: str
    record: Record
    plan: BuildPlan | None
    verification: Verification
    summary: dict[str, Any] = field(default_factory=dict)


def make_content(
    folder: Path, plan: BuildPlan | None = None, verification: Verification | None = None
) -> Content:
    """Read, verify and summarise a record folder. Raises RecordError when there is none."""
    record = read_record(folder)
    verification = verification or verify_record(folder)
    notes: list[str] = []
    if plan is None:
        try:
            plan = sm.plan_of(record)
        except RecordError as exc:
            notes.append(f"The job could not be read: {exc}")
    trace: Trace | None = None
    if record.trace_path is not None:
        try:
            trace = read_trace(record.trace_path)
        except RecordError as exc:
            notes.append(f"The simulator's trace could not be read: {exc}")
    summary = sm.summarise_parts(record, plan, trace)
    part = dict(plan.part) if plan is not None else dict(record.header.get("part") or {})
    header = record.header
    log, marks = _log(record)
    name = str(part.get("name") or "unnamed part")
    cell = str(header.get("cell_title") or header.get("cell") or "unknown cell")
    words = [cell, f"{header['mode']} mode" if header.get("mode") else ""]
    words.append(str(header.get("started_wall") or ""))
    return Content(
        title=name,
        subtitle="   ·   ".join(w for w in words if w),
        simulated=bool(header.get("simulated")),
        state=(record.state or "UNKNOWN", STATE_LEVEL.get(record.state, BAD)),
        seal=_seal_badge(verification),
        seal_lines=_seal_lines(verification),
        figures=_figures(summary),
        figure_notes=notes + _figure_notes(summary),
        has_truth=summary["truth"] is not None,
        groups=_groups(record, plan, part, verification, summary),
        log=log,
        marks=marks,
        n_alarms=len(summary["alarms"]),
        content_hash=record.content_hash,
        record=record,
        plan=plan,
        verification=verification,
        summary=summary,
    )


def _seal_badge(v: Verification) -> tuple[str, str]:
    if not v.ok:
        return "SEAL BROKEN", BAD
    if not v.complete:
        return f"SEALED TO {v.sealed_until_s:g} s", ODD
    return "SEALED", GOOD


def _seal_lines(v: Verification) -> list[str]:
    n = len(v.problems)
    first = v.verdict if v.ok else f"damaged: {n} problem{'s' if n != 1 else ''}"
    return [first, *v.problems[:20], *v.notes[:4]]


def _figures(summary: dict[str, Any]) -> list[FigureRow]:
    rows = []
    deviations = summary["deviations_pct"]
    for key, (label, unit, factor, decimals, limit) in FIGURES.items():

        def text(
            column: Any, key: str = key, factor: float = factor, decimals: int = decimals
        ) -> str:
            value = column.get(key) if column else None
            return "–" if value is None else f"{value * factor:.{decimals}f}"

        done = deviations["executed"][key]
        true = deviations["truth"][key] if deviations["truth"] else None
        rows.append(
            FigureRow(
                label,
                unit,
                text(summary["planned"]),
                text(summary["executed"]),
                _pct(done),
                done is not None and abs(done) > limit,
                text(summary["truth"]),
                _pct(true),
                true is not None and abs(true) > limit,
            )
        )
    return rows


def _pct(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:+.2f} %".replace("-", "−") if abs(value) >= 0.005 else "0.00 %"


def _figure_notes(summary: dict[str, Any]) -> list[str]:
    notes = []
    error, compared = summary["position_error_steps"], summary["segments_executed"]
    if error is not None:
        notes.append(
            f"Largest position error over {compared} of {summary['segments_planned']} segment "
            f"ends: {error} {'step' if error == 1 else 'steps'} of any axis."
        )
    elif summary.get("path_check") is not None:
        notes.append(path_sentence(summary["path_check"]))
    elif compared is not None:
        notes.append("No segment end in the trace: positions cannot be compared.")
    if summary["truth"] is not None:
        notes.append("Executed: integrated from 100 Hz telemetry. Truth: the simulator's own "
                     "trace, written apart from the controller.")  # fmt: skip
    else:
        notes.append("Executed: integrated from 100 Hz telemetry; deposited mass from measured "
                     "powder and the recipe's catchment.")  # fmt: skip
    if summary["time_ratio"] is not None:
        notes.append(f"Simulated time over wall time: {summary['time_ratio']:.1f}.")
    return notes


def path_sentence(told: dict[str, Any]) -> str:
    """What was compared where the machine plans its motion by itself."""
    if told["off_path_mm"] is None:
        return "No place with light on is known: positions cannot be compared."
    text = (
        f"The machine plans its motion by itself, so positions are not compared to the step: "
        f"{told['places']} places with the gate open ({told['source']}, one each 10 ms) are at "
        f"most {told['off_path_mm']:.4f} mm from the planned path (tolerance "
        f"{told['tolerance_mm']:.4f} mm)"
    )
    if told["unlit_mm"] is not None:
        text += f"; no planned place of a bead is further than {told['unlit_mm']:.2f} mm from one"
    return text + "."


def _groups(
    record: Record,
    plan: BuildPlan | None,
    part: dict[str, Any],
    verification: Verification,
    summary: dict[str, Any],
) -> list[tuple[str, list[tuple[str, str]]]]:
    h = record.header
    extents = part.get("extents_mm")
    build = [
        ("Part", str(part.get("name") or "–")),
        (
            "Model file",
            f"{part['source_name']} ({part.get('units') or '?'})"
            if part.get("source_name")
            else "–",
        ),
        ("Size", " × ".join(f"{v:.1f}" for v in extents) + " mm" if extents else "–"),
        ("Cell", str(h.get("cell_title") or h.get("cell") or "–")),
        ("Recipe", str(h.get("recipe") or (plan.meta.get("recipe") if plan else "") or "–")),
        ("Mode", str(h.get("mode") or "–")),
        ("Operator", str(h.get("operator") or "–")),
        ("Started", str(h.get("started_wall") or "–")),
        ("Ended as", record.state),
    ]
    if h.get("scenario"):
        build.append(("Scenario", str(h["scenario"])))
    if h.get("seed") is not None:
        build.append(("Seed, time", f"{h['seed']}, {h.get('time') or '–'}"))
    groups = [("Build", [(k, v) for k, v in build if v != "–"])]
    deviations = h.get("deviations") or []
    if deviations:
        rows = [(str(k + 1), str(text)) for k, text in enumerate(deviations)]
        groups.append(("Deviations from the approved set", rows))
    link = h.get("link") or {}
    if link.get("lacks"):
        lacks = [(str(k).lower().replace("_", " "), str(v)) for k, v in link["lacks"].items()]
        groups.append(("What the motion link cannot give", lacks))
    materials = [
        (f"Hopper {m.get('hopper', k + 1)}",
         f"{m.get('powder', '?')}, lot {m.get('lot', '?')}"
         + (f", {m['mass_g'] / 1000:g} kg" if m.get("mass_g") else ""))
        for k, m in enumerate(h.get("materials") or [])
        if isinstance(m, dict)
    ]  # fmt: skip
    if materials:
        groups.append(("Materials", materials))
    software = [(str(k), str(v)) for k, v in (h.get("software") or {}).items()]
    software.append(("report by", f"lmd-controller {__version__}"))
    groups.append(("Software", software))
    devices = []
    for role, device in (h.get("devices") or {}).items():
        if isinstance(device, dict):
            words = [str(device.get("model") or device.get("driver") or "?")]
            words += [f"S/N {device['serial']}"] if device.get("serial") else []
            words += [f"fw {device['firmware']}"] if device.get("firmware") else []
            words += [f"cal. {device['calibrated']}"] if device.get("calibrated") else []
            devices.append((str(role), ", ".join(words)))
    if devices:
        groups.append(("Devices", devices))
    final = record.final or {}
    job = final.get("job") or {}
    hashes = [
        ("Model", str(part.get("source_sha256") or "–")),
        ("Plan", str(h.get("plan_hash") or (plan.figures.get("hash") if plan else "") or "–")),
        ("Job file", str(job.get("sha256") or "–")),
        ("Recipe", str(h.get("recipe_sha256") or "–")),
        ("Record file", str(final.get("sha256") or "–")),
        ("Content", record.content_hash),
        ("Signing key", verification.key_id or "–"),
    ]
    groups.append(("Hashes (sha256)", [(k, v) for k, v in hashes if v != "–"]))
    return groups


def _log(record: Record) -> tuple[list[LogRow], list[Mark]]:
    rows: list[LogRow] = []
    marks: list[Mark] = []
    count: dict[str, int] = {}
    for event in record.events:
        if event.kind not in LISTED:
            continue
        tag = _TAG.get(event.kind, "")
        text, level = _say(event)
        if event.kind == "state" and event.data.get("new") in ("ABORTING", "STOPPING"):
            tag = "X"
        t_s = event.t_us * 1e-6
        if tag:
            count[tag] = count.get(tag, 0) + 1
            tag = f"{tag}{count[tag]}"
            marks.append(Mark(tag, t_s, level))
        rows.append(LogRow(tag, t_s, event.kind, text, level))
    return rows, marks


def _say(event: Event) -> tuple[str, str]:
    d = event.data
    if event.kind == "alarm":
        level = NEUTRAL if d.get("severity") == "NOTE" else ODD
        if d.get("severity") in ("STOP", "ABORT"):
            level = BAD
        what = " ".join(str(d.get(k, "")) for k in ("code", "name") if d.get(k) is not None)
        text = f"{what} ({d.get('severity', '?')}): {d.get('text', '')}"
        if d.get("detail"):
            text += f" {d['detail']}"
        return text, level
    if event.kind == "override":
        new, old = d.get("new"), d.get("old")
        change = f"{old:g} → {new:g}" if _number(old) and _number(new) else f"{old} → {new}"
        return f"{d.get('what', '?')} {change} by {d.get('who') or '?'}", ODD
    if event.kind == "state":
        level = BAD if d.get("new") in ("ABORTING", "ABORTED", "STOPPING") else NEUTRAL
        return f"{d.get('old')} → {d.get('new')}: {d.get('cause', '')}", level
    if event.kind == "command":
        args = ", ".join(f"{k} {_brief(v)}" for k, v in (d.get("args") or {}).items() if v != "")
        return f"{d.get('what')} by {d.get('who') or '?'}" + (f" ({args})" if args else ""), NEUTRAL
    if event.kind == "device":
        return f"{d.get('device', '?')}: {d.get('text', '')}", ODD
    if event.kind == "record_end":
        return f"record closed as {d.get('state')}", NEUTRAL
    where = f" at segment {d['segment']}" if "segment" in d else ""
    return f"{d.get('cause') or event.kind}{where}", ODD


def _brief(value: Any) -> str:
    """A sha256 by its first digits: the whole stands among the hashes."""
    text = str(value)
    return f"{text[:12]}…" if re.fullmatch(r"[0-9a-f]{64}", text) else text


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
