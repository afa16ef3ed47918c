"""Driver names: each module ``firmware_bridge/devices/<name>.py`` is the driver ``<name>``.

A new file in that folder is known at once; nothing is listed by hand.
"""

import importlib
import pkgutil
from typing import Any

from firmware_bridge import devices
from firmware_bridge.device import Device
from firmware_bridge.errors import DeviceError
from firmware_bridge.transport import Port


def names() -> tuple[str, ...]:
    """The known drivers, sorted."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(devices.__path__)))


def driver_class(name: str) -> type[Device]:
    """The class of a driver. Raises DeviceError that says what there is."""
    if name not in names():
        raise DeviceError(f"driver {name!r} is not known; there are: {', '.join(names())}")
    module = importlib.import_module(f"{devices.__name__}.{name}")
    found = [
        item
        for item in vars(module).values()
        if isinstance(item, type) and issubclass(item, Device) and item.driver == name
    ]
    if len(found) != 1:
        raise DeviceError(f"driver {name!r} must declare one device with a role, not {len(found)}")
    return found[0]


def make(driver: str, port: Port, name: str | None = None, **options: Any) -> Any:
    """A device of a driver; no I/O. ``options`` are the driver's own (``map=...``).

    Raises DeviceError for an unknown driver or option, MapError for a wrong map file.
    """
    cls = driver_class(driver)
    try:
        return cls(port, name, **options)
    except TypeError as exc:
        raise DeviceError(f"driver {driver!r}: {exc}") from None
