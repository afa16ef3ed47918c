"""GenICam back end: without the package it refuses by name; its calls: unit/test_camera.py."""

import pytest

from firmware_bridge.devices.camera_genicam import GenicamCamera
from firmware_bridge.errors import DeviceError
from tests.transcripts.wire_script import talk


def test_without_harvesters_nothing_is_opened(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "harvesters.core", None)

    async def body(device, port):
        raise AssertionError("connected")

    with pytest.raises(DeviceError, match="'harvesters' is not installed; driver 'camera_genicam'"):
        talk(GenicamCamera, "", body, text=True)
