"""Every link offers what the controller uses, under the same names."""

import inspect

import pytest

from firmware_bridge.link_types import Link
from firmware_bridge.motion_link import MotionLink
from firmware_bridge.motion_link_process import MotionLinkProcess


def _methods(protocol):
    return {n for n, m in inspect.getmembers(protocol) if callable(m) and not n.startswith("_")}


@pytest.mark.parametrize("link", [MotionLink, MotionLinkProcess])
def test_segment_links_offer_the_whole_interface(link):
    wanted = _methods(Link)
    assert {"start", "hold", "token", "home", "disarm"} <= wanted
    for name in wanted:
        assert callable(getattr(link, name)), name
        asked = inspect.signature(getattr(Link, name)).parameters
        given = inspect.signature(getattr(link, name)).parameters
        assert list(given) == list(asked), name
    assert link.abilities.exact_position
    assert link.abilities.dead_man
    assert dict(link.lacks) == {}
