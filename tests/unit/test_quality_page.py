"""The page on plan quality shows what the segments do, as light."""

import numpy as np
import pytest

from controller.errors import RecordError
from controller.record.quality_page import quality_figure, show_quality
from tests.unit.planning_cases import plan, small_tracks, track


def lines(figure, place):
    """x and y of the first line of an axes."""
    line = figure.axes[place].get_lines()[0]
    return np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)


@pytest.mark.slow
def test_speed_power_and_light_of_a_track_are_in_step():
    made = plan([track([(140, 145), (145, 145), (141, 146)])])
    figure = quality_figure(made, 0)
    on_s = float(made.tracks["start_s"][0]) + 1e-4  # gate latency of the cell
    t, power = lines(figure, 1)
    assert np.interp([on_s, on_s + 0.2], t, power) == pytest.approx([150.0, 600.0], abs=0.1)
    when, speed = lines(figure, 0)
    lit = (when > on_s + 0.1) & (when < float(made.tracks["end_s"][0]) - 0.1)
    slowest = when[lit][np.argmin(speed[lit])]
    corner = (t > on_s + 0.1) & (t < float(made.tracks["end_s"][0]) - 0.1)
    assert t[corner][np.argmin(power[corner])] == pytest.approx(slowest, abs=2e-5)
    low = float(speed[lit].min())
    assert power[corner].min() == pytest.approx(150 + 450 * low / 10, abs=0.2)


def test_margins_of_the_report_are_drawn():
    made = plan()
    names = [text.get_text() for text in quality_figure(made).axes[-1].get_yticklabels()]
    known = {
        k for k, m in made.figures["quality"]["margins"].items() if m["margin_pct"] is not None
    }
    assert set(names) == known


@pytest.mark.slow
def test_page_is_a_png_and_refuses_what_is_not_there(tmp_path):
    made = plan(small_tracks())
    assert show_quality(made, tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(RecordError, match="track 8 is not in the job, it has tracks 0 to 7"):
        show_quality(made, tmp_path / "b.png", 8)
    with pytest.raises(RecordError, match=r"must end in \.png"):
        show_quality(made, tmp_path / "b.pdf")
    with pytest.raises(RecordError, match="cannot be written"):
        show_quality(made, tmp_path / "nowhere" / "b.png")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
