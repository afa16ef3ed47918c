"""Report and pictures: what stands in them, that it fits, that every letter can be drawn."""

import dataclasses
import re
import time
import warnings
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from controller.errors import RecordError
from controller.record import report
from controller.record.beads import beads_of_plan, beads_of_record
from controller.record.charts import COLUMNS, reduce_columns, settled_emission
from controller.record.content import make_content
from controller.record.pictures import show_job
from controller.record.reader import read_record
from controller.record.report import write_report
from controller.record.verify import verify_record
from tests.unit import record_samples
from tests.unit.record_samples import (
    HEADER,
    POWER_W,
    make_plan,
    write_job,
    write_record,
    write_trace,
)


@pytest.fixture(scope="module")
def plan():
    return make_plan(8)


@pytest.fixture(scope="module")
def folder(plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("report")
    write_record(base / "r", plan, job=write_job(base / "j.lmdjob", plan))
    write_trace(base / "r" / "trace.mcap", plan)
    return base / "r"


@pytest.fixture(scope="module")
def hard_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Long names, foreign letters, many alarms, a damaged second."""
    base = tmp_path_factory.mktemp("hard")
    plan = make_plan(3)
    name = "a part <b>with</b> a very long name, $x_1$ & more of it than any page can hold"
    plan = dataclasses.replace(plan, part={**plan.part, "name": name})
    devices = {
        role: {"model": f"Model of the {role} with a long name", "serial": "SN-123456",
               "firmware": "1.2.3", "calibrated": "2026-01-01"}
        for role in ("laser", "powder", "gas", "oxygen", "chiller", "pyrometer", "safety")
    }  # fmt: skip
    header = {
        **HEADER,
        "operator": "王小明 🙂",
        "devices": devices,
        "deviations": ["recipe not approved", "software not frozen " * 8],
    }
    events = record_samples.events_of(plan)
    for k in range(60):
        events.append((4_000_000 + k * 250_000, "alarm", {
            "code": 100 + k, "name": "LINK_LOST", "severity": ("NOTE", "HOLD", "ABORT")[k % 3],
            "text": "The motion controller is silent for over 100 ms. " * 4}))  # fmt: skip
    events.sort(key=lambda e: e[0])
    patch = pytest.MonkeyPatch()
    patch.setattr(record_samples, "events_of", lambda plan: list(events))
    write_record(base / "r", plan, job=write_job(base / "j.lmdjob", plan), header=header,
                 state="ABORTED")  # fmt: skip
    patch.undo()
    path = base / "r" / "record.mcap"
    data = bytearray(path.read_bytes())
    data[100_000] ^= 1
    path.write_bytes(data)
    return base / "r"


class Page(HTMLParser):
    """Text, tags and addresses of a page; refuses unbalanced tags."""

    VOID = ("meta", "link", "br", "path", "use", "image", "rect", "stop")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self._open and self._open[-1] == tag:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in self.VOID:
            return
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.mark.slow
def test_report_is_written_whole_within_6_s(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a letter that no font has is a warning in matplotlib
        start = time.perf_counter()
        paths = write_report(folder)
        took_s = time.perf_counter() - start
    assert took_s < 6.0
    pdf = paths.pdf.read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type /Page\b", pdf)) == 2
    assert b"/Image" in pdf  # the part's pictures
    assert not list(folder.glob("*.part"))
    page = Page(paths.html.read_text())
    assert page.tags.count("svg") == 2
    # stands alone: nothing is fetched from anywhere
    assert all(a.startswith(("#", "data:image/png;base64,")) for a in page.addresses)
    assert "script" not in page.tags
    for words in (
        "lobed cup", "SIMULATED CELL", "✓ SEALED", "✓ COMPLETE", "316l_general", "M. Weber",
        "SIM-001", "YLR-1000 (simulated), S/N S-17", "302 SHIELD_LOW (HOLD)",
        "speed 1 → 0.95 by M. Weber", "0 steps of any axis", read_record(folder).content_hash,
        "c0ffee00" * 8, "OXY5500, cal. 2026-10-02",
    ):  # fmt: skip
        assert words in page.text, words
    planned_energy = f"{8 * 283 * 0.02 * POWER_W / 1000:.3f}"
    assert planned_energy in page.text
    assert verify_record(folder).ok, "the report must not touch what is sealed"


@pytest.mark.slow
def test_same_record_gives_the_same_report(folder: Path) -> None:
    paths = write_report(folder)
    first = paths.pdf.read_bytes(), paths.html.read_bytes()
    write_report(folder)
    assert (paths.pdf.read_bytes(), paths.html.read_bytes()) == first


@pytest.mark.slow
@pytest.mark.parametrize("which", ["folder", "hard_folder"])
def test_every_text_is_on_the_page_and_over_no_other(
    which: str, request: pytest.FixtureRequest
) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    content = make_content(request.getfixturevalue(which))
    with report._style() as letters:
        for make in (report._first_page, report._second_page):
            figure = make(content, letters).figure
            figure.set_dpi(200)
            renderer = FigureCanvasAgg(figure).get_renderer()
            boxes = []
            for text in figure.texts:
                box = text.get_window_extent(renderer)
                assert box.x0 >= 0.5 * 200, text.get_text()
                assert box.x1 <= (report.PAGE_IN[0] - 0.5) * 200, text.get_text()
                assert box.y0 >= 0.3 * 200, text.get_text()
                # letters only: ascent and descent of neighbours may share a hair
                boxes.append((box.x0, box.x1, box.y0 + 5, box.y1 - 3, text.get_text()))
            for k, a in enumerate(boxes):
                for b in boxes[k + 1 :]:
                    over = a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]
                    assert not over, (a, b)


@pytest.mark.slow
def test_badges_stand_on_every_page(folder: Path, hard_folder: Path) -> None:
    for where, wanted in (
        (folder, {"SIMULATED CELL", "✓ SEALED", "✓ COMPLETE"}),
        (hard_folder, {"SIMULATED CELL", "✕ SEAL BROKEN", "✕ ABORTED"}),
    ):
        content = make_content(where)
        with report._style() as letters:
            for make in (report._first_page, report._second_page):
                assert wanted <= {t.get_text() for t in make(content, letters).figure.texts}


def test_real_cell_has_no_simulated_badge_and_no_truth(tmp_path: Path) -> None:
    write_record(tmp_path / "r", make_plan(1), header={**HEADER, "simulated": False}, n_rows=500)
    content = make_content(tmp_path / "r")
    assert not content.simulated
    assert not content.has_truth
    with report._style() as letters:
        texts = [t.get_text() for t in report._first_page(content, letters).figure.texts]
    assert not any("SIMULATED" in t or "Truth" in t for t in texts)


@pytest.mark.slow
def test_hostile_names_are_text_not_markup(hard_folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = write_report(hard_folder)
    html = paths.html.read_text()
    assert "&lt;b&gt;with&lt;/b&gt;" in html
    assert "<b>with" not in html
    page = Page(html)
    assert "王小明" in page.text  # the reader's own fonts draw the page
    assert "damaged between" in page.text
    assert "software not frozen" in page.text


def test_letters_without_a_font_become_a_visible_box() -> None:
    with report._style() as letters:
        assert letters.clean("a\n b \U0001f642") == "a b □"
        short = letters.fit("a long text that does not fit", 0.8, 8.0)
        assert short.endswith("…")
        assert letters.width_in(short, 8.0) <= 0.8


@pytest.mark.slow
@pytest.mark.parametrize("n_rows", [1, 2, 430])
def test_report_of_a_killed_recorder(tmp_path: Path, n_rows: int) -> None:
    write_record(tmp_path / "r", make_plan(1), header={}, n_rows=n_rows, close=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = write_report(tmp_path / "r")
    page = Page(paths.html.read_text())
    assert "INTERRUPTED" in page.text
    assert "did not close the record" in page.text


def test_damaged_job_is_told_in_the_report(tmp_path: Path) -> None:
    plan = make_plan(1)
    write_record(tmp_path / "r", plan, job=write_job(tmp_path / "j.lmdjob", plan), n_rows=500)
    path = tmp_path / "r" / "job.lmdjob"
    data = bytearray(path.read_bytes())
    data[data.index(b"[track.default]")] ^= 1
    path.write_bytes(data)
    content = make_content(tmp_path / "r")
    assert content.seal[0] == "SEAL BROKEN"
    assert any("job could not be read" in note for note in content.figure_notes)


def test_deviation_beyond_its_limit_is_flagged(folder: Path, plan) -> None:
    rows = {r.label: r for r in make_content(folder).figures}
    assert not any(r.executed_flag or r.truth_flag for r in rows.values())
    figures = {**plan.figures, "energy_j": plan.figures["energy_j"] * 1.02}
    off = make_content(folder, dataclasses.replace(plan, figures=figures))
    flagged = {r.label for r in off.figures if r.executed_flag}
    assert flagged == {"Laser energy"}


def test_no_record_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="not a record folder"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- charts --------------------------------------------------------------------------------


def test_columns_hold_mean_and_range_of_wanted_rows() -> None:
    t_s = np.arange(8.0)
    values = np.array([1, 3, 5, np.nan, 7, 9, 100, 2.0])
    wanted = np.array([1, 1, 1, 1, 1, 1, 0, 1], bool)
    c = reduce_columns(t_s, values, wanted, 2)
    assert c.t_s.tolist() == [1.75, 5.25]
    assert c.mean.tolist() == [3.0, 6.0]
    assert c.low.tolist() == [1.0, 2.0]
    assert c.high.tolist() == [5.0, 9.0]
    none = reduce_columns(t_s, values, np.zeros(8, bool), 2)
    assert np.isnan(none.mean).all()
    assert len(reduce_columns(t_s[:0], values[:0], wanted[:0]).t_s) == 0
    assert (
        len(reduce_columns(np.arange(1e4), np.ones(10_000), np.ones(10_000, bool)).t_s) == COLUMNS
    )


def test_settled_emission_leaves_out_the_rise() -> None:
    rows = np.zeros(60, [("t_us", "<i8"), ("gate", "<f4")])
    rows["t_us"] = np.arange(60) * 10_000
    rows["gate"][5:30] = 1
    rows["gate"][40:] = 1
    on = np.flatnonzero(settled_emission(rows))
    assert on.tolist() == [*range(20, 30), *range(55, 60)]


# --- pictures ------------------------------------------------------------------------------


def pixels(path: Path) -> np.ndarray:
    from matplotlib.image import imread

    return imread(path)[:, :, :3]


@pytest.mark.slow
def test_show_draws_the_part_in_each_colouring(plan, tmp_path: Path) -> None:
    seen = []
    for by in ("power", "speed", "time", "layer"):
        image = pixels(show_job(plan, tmp_path / f"{by}.png", by))
        coloured = np.ptp(image, axis=2) > 0.2
        share = float(coloured[100:, :1050].mean())  # without the colour bar
        assert 0.05 < share < 0.6, (by, share)
        seen.append(image)
    assert all((a != b).any() for k, a in enumerate(seen) for b in seen[k + 1 :])


@pytest.mark.slow
def test_show_draws_one_layer_from_above(plan, tmp_path: Path) -> None:
    image = pixels(show_job(plan, tmp_path / "a.png", "speed", layer=3))
    assert (np.ptp(image, axis=2) > 0.2).mean() > 0.01
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png"]


def test_show_refuses_what_it_cannot_draw(plan, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="layer 8 is not in the job, it has layers 0 to 7"):
        show_job(plan, tmp_path / "a.png", layer=8)
    with pytest.raises(RecordError, match="'heat' is not one of power, speed, energy, time, layer"):
        show_job(plan, tmp_path / "a.png", "heat")
    with pytest.raises(RecordError, match=r"must end in \.png"):
        show_job(plan, tmp_path / "a.jpg")
    with pytest.raises(RecordError, match="cannot be written"):
        show_job(make_plan(1), tmp_path / "no" / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_beads_of_a_plan_are_its_emission(plan) -> None:
    beads = beads_of_plan(plan)
    length = np.linalg.norm(beads.end_mm - beads.start_mm, axis=1).sum()
    assert length == pytest.approx(plan.tracks["length_mm"].sum(), rel=2e-3)
    assert len(beads) == 8 * 283
    assert len(beads.travel_mm) == 7
    assert beads.values["power"] == pytest.approx(POWER_W, rel=1e-4)
    assert np.unique(beads.layer).tolist() == list(range(8))
    few = beads_of_plan(plan, max_beads=500)
    assert 300 < len(few) <= 520
    assert np.allclose(few.start_mm[0], beads.start_mm[0])
    assert np.allclose(few.end_mm[-1], beads.end_mm[-1])


def test_beads_of_a_record_lie_on_the_plan(folder: Path, plan) -> None:
    beads = beads_of_record(read_record(folder), 1.6)
    length = np.linalg.norm(beads.end_mm - beads.start_mm, axis=1).sum()
    assert length == pytest.approx(plan.tracks["length_mm"].sum(), rel=0.01)
