"""Every link offers what the controller uses, under the same names."""

import asyncio
import inspect

import pytest

from firmware_bridge.errors import DeviceError
from firmware_bridge.grbl_link import GrblLink
from firmware_bridge.link_process import LinkProcess
from firmware_bridge.link_types import Link
from firmware_bridge.motion_link import MotionLink
from firmware_bridge.supervised_link import SupervisedLink
from firmware_bridge.transport import NullPort
from tests.unit.link_bench import SETTINGS


def _methods(protocol):
    return {n for n, m in inspect.getmembers(protocol) if callable(m) and not n.startswith("_")}


@pytest.mark.parametrize("link", [MotionLink, LinkProcess])
def test_segment_links_need_no_excuse(link):
    made = link(NullPort("motion", 0), SETTINGS)
    assert made.abilities.exact_position
    assert made.abilities.dead_man
    assert dict(made.lacks) == {}


@pytest.mark.parametrize("link", [MotionLink, GrblLink, SupervisedLink, LinkProcess])
def test_links_offer_the_whole_interface(link):
    wanted = _methods(Link)
    assert {"start", "hold", "token", "home", "disarm", "jog", "probe", "power_law"} <= wanted
    for name in wanted:
        assert callable(getattr(link, name)), name
        asked = inspect.signature(getattr(Link, name)).parameters
        given = inspect.signature(getattr(link, name)).parameters
        assert list(given)[: len(asked)] == list(asked), name
        more = list(given.values())[len(asked) :]
        assert all(p.default is not p.empty for p in more), name


@pytest.mark.parametrize("link", [GrblLink, SupervisedLink])
def test_what_a_link_cannot_is_refused_by_name(link):
    made = link(NullPort("motion", 0), SETTINGS)
    able = made.abilities
    cannot = {n for n in ("jog", "probe", "power_law") if not getattr(able, n)}
    assert cannot == set(made.why_not) - {"trim"}
    if "jog" in cannot:
        made.jog([1.0])
        assert f"JOG refused (no_jog_no_probe): {made.lacks['no_jog_no_probe']}" in made.refusal
    for name, args in (("probe", (0, 1.0, 1.0)), ("power_law", (1, [(0.5, 0.5), (1.0, 1.0)]))):
        if name in cannot:
            key = made.why_not[name]
            with pytest.raises(DeviceError) as told:
                asyncio.run(getattr(made, name)(*args))
            assert f"{name.upper()} refused ({key}): {made.lacks[key]}" in str(told.value)
