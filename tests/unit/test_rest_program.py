"""The rest of a G-code program: its corners, its words, its places in the plan."""

import dataclasses
import functools
import re

import numpy as np
import pytest

from controller.config import load_cell
from controller.errors import PlanError
from controller.export import program_of
from controller.machine import rest_program as rp
from controller.machine.programs import PlanLoader, program_lines
from controller.planning.path.kinematics import tip_of_steps
from controller.planning.rest.parts import Part, next_part
from controller.planning.rest.resume import ends_steps, place_at, resume_plan
from controller.recipes import parse_recipe
from controller.session import prepare_plan
from firmware_bridge.link_types import SEGMENT_LINK
from firmware_bridge.segments import FLAG_GATE
from tests.hil.whole_cell import write_box


@functools.cache
def built(folder):
    part = write_box(folder / "box.stl", (8.0, 4.0, 1.0))
    plan = prepare_plan(part, None, "sim_grblhal")
    cell, _ = load_cell("sim_grblhal")
    return plan, cell, program_of(plan, "grblhal", comments=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return built(tmp_path_factory.mktemp("rest"))


def played(lines):
    """Ways of a program, read by a reader of its own: (from, to, S) of each G1 and G0."""
    at, s, motion, ways = [0.0, 0.0, 0.0], 0.0, "G0", []
    for line in lines:
        words = re.findall(r"([A-Z])(-?[0-9.]+)", line)
        start = tuple(at)
        for letter, value in words:
            if letter in "XYZ":
                at["XYZ".index(letter)] = float(value)
            elif letter == "S":
                s = float(value)
            elif letter == "G" and value in ("0", "1"):
                motion = f"G{value}"
        if any(letter in "XYZ" for letter, _ in words):
            ways.append((start, tuple(at), s if motion == "G1" else 0.0))
    return ways


def rest_of(made, track, mm):
    plan, cell, program = made
    recipe = parse_recipe(plan.recipe_toml, "recipe")
    at = place_at(plan, track, mm)
    here = ends_steps(plan)[at.segment]
    head, rest = resume_plan(plan, at, here, cell, recipe)
    return head, rest, rp.rest_program(program, plan, head, rest, cell)


@pytest.mark.parametrize(("track", "mm"), [(1, 5.0), (2, 3.3), (0, 12.0)])
def test_the_rest_ends_where_the_plan_ends_and_light_begins_where_it_joins(made, track, mm):
    _, cell, program = made
    _, rest, lines = rest_of(made, track, mm)
    tip = tip_of_steps(cell)
    steps = ends_steps(rest)
    ways = played(lines.lines)
    lit = [w for w in ways if w[2] > 0.0]
    opens = int(np.flatnonzero(rest.segments["flags"] & FLAG_GATE)[0])
    assert lit[0][0] == pytest.approx(tip(steps[opens].tolist()), abs=0.0006)
    assert ways[-1][1] == played(program.lines)[-1][1]
    length = sum(float(np.linalg.norm(np.subtract(b, a))) for a, b, _ in lit)
    moved = np.diff([tip(p) for p in steps.tolist()], axis=0)
    on = (rest.segments["flags"] & FLAG_GATE) != 0
    assert length == pytest.approx(float(np.linalg.norm(moved[on], axis=1).sum()), abs=0.15)


def test_every_line_knows_its_segment_and_they_never_fall(made):
    _, rest, lines = rest_of(made, 1, 5.0)
    segment = lines.segment_of_line
    assert len(lines.lines) == len(segment) == len(lines.gate_of_line) == len(lines.track_of_line)
    assert (np.diff(segment) >= 0).all()
    assert segment[0] == 0
    assert segment[-1] <= len(rest.segments)
    given = program_lines(lines, 1000)
    assert given[0].segment == 1000
    assert [g.gate for g in given] == lines.gate_of_line.tolist()


def test_the_line_that_is_gone_on_with_is_said_with_all_its_words(made):
    _, _, program = made
    _, _, lines = rest_of(made, 1, 5.0)
    kept = len(lines.lines) - next(
        k for k in range(len(lines.lines))
        if lines.lines[k + 1:] == program.lines[len(program.lines) - len(lines.lines) + k + 1:]
    )  # fmt: skip
    again = lines.lines[len(lines.lines) - kept]
    assert re.fullmatch(r"G1 X\S+ Y\S+ Z\S+ F\S+ S\S+", again), again


def test_an_arc_is_told_its_centre_from_where_it_is_begun_again():
    before = rp.Modal((10.0, 0.0, 5.0), "G1", "F600.0", "S500.0")
    said = rp._said_again("G3 X0.000 Y10.000 I-10.000 J0.000", before, (0.0, 10.0, 5.0),
                          (8.0, 6.0, 5.0))  # fmt: skip
    assert said == "G3 X0.000 Y10.000 Z5.000 I-8.000 J-6.000 F600.0 S500.0"


def test_straights_are_cut_at_corners_only():
    walk = np.array(
        [[x, round(x / 3), 0] for x in range(31)] + [[30, 10 + y, 0] for y in range(20)]
    )
    assert rp._straights(walk.astype(float), 0, len(walk) - 1) == [(0, 30), (30, len(walk) - 1)]


class ProgramPlayer:
    def __init__(self, **can):
        self.abilities = dataclasses.replace(SEGMENT_LINK, exact_position=False, **can)
        self.given = []

    def load_program(self, *args):
        self.given.append(args)


def test_a_rest_is_given_as_its_own_program_counting_on(made):
    plan, cell, program = made
    link = ProgramPlayer()
    loader = PlanLoader(cell, link)
    loader.prepare(plan)
    part = Part(plan)
    assert loader.load([part]) == 0
    lines, segments = link.given[0]
    assert [line.text for line in lines] == list(program.lines)
    assert len(segments) == len(plan.segments)
    head, rest, wanted = rest_of(made, 1, 5.0)
    loader.prepare_rest(plan, head, rest)
    later = next_part(part, head, rest)
    assert loader.load([part, later]) == len(plan.segments)
    lines, segments = link.given[1]
    assert [line.text for line in lines] == list(wanted.lines)
    assert lines[0].segment == len(plan.segments)
    assert len(segments) == len(plan.segments) + len(rest.segments)


def test_a_control_that_only_goes_on_by_itself_gets_no_rest(made):
    plan, cell, _ = made
    loader = PlanLoader(cell, ProgramPlayer(resume_in_bead=False))
    loader.prepare(plan)
    head, rest, _ = rest_of(made, 1, 5.0)
    with pytest.raises(PlanError, match="along its own program only"):
        loader.prepare_rest(plan, head, rest)
