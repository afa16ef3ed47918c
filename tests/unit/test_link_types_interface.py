"""Every link offers what the controller uses, under the same names."""

import inspect

import pytest

from firmware_bridge.link_process import LinkProcess
from firmware_bridge.link_types import Link
from firmware_bridge.motion_link import MotionLink
from firmware_bridge.transport import NullPort
from tests.unit.link_bench import SETTINGS


def _methods(protocol):
    return {n for n, m in inspect.getmembers(protocol) if callable(m) and not n.startswith("_")}


@pytest.mark.parametrize("link", [MotionLink, LinkProcess])
def test_segment_links_offer_the_whole_interface(link):
    wanted = _methods(Link)
    assert {"start", "hold", "token", "home", "disarm"} <= wanted
    for name in wanted:
        assert callable(getattr(link, name)), name
        asked = inspect.signature(getattr(Link, name)).parameters
        given = inspect.signature(getattr(link, name)).parameters
        assert list(given) == list(asked), name
    made = link(NullPort("motion", 0), SETTINGS)
    assert made.abilities.exact_position
    assert made.abilities.dead_man
    assert dict(made.lacks) == {}
