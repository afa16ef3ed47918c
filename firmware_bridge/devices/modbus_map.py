"""Any role by a register map file alone, Modbus TCP or RTU.

Source: the map file names its own, and the role that it is for; what a map can say:
docs/reference/device-protocols.md section 9.
"""

from pathlib import Path
from typing import Any

from firmware_bridge.errors import MapError
from firmware_bridge.role_map import RoleMap, any_map, role_named
from firmware_bridge.roles import Role
from firmware_bridge.transport import Port

_MADE: dict[str, type["ModbusMap"]] = {}


class ModbusMap(RoleMap):
    """The device of the map's role: ``ModbusMap(port, map="room_fictitious")`` is a Room."""

    driver = __name__.rpartition(".")[2]
    role = Role  # of_role() makes the class of one role

    def __new__(
        cls, port: Port, name: str | None = None, *, map: str | Path | None = None, **options: Any
    ) -> "ModbusMap":
        if map is None:
            raise MapError(f"{name or cls.driver}: map is missing: it names the role")
        loaded = any_map(map)
        return object.__new__(cls.of_role(loaded.role, loaded.origin))

    @classmethod
    def of_role(cls, key: str, origin: str = "modbus_map") -> type["ModbusMap"]:
        """The class for a role's key. Raises MapError."""
        if key not in _MADE:
            role = role_named(key, origin)
            body = {"__module__": __name__, "__doc__": cls.__doc__}
            _MADE[key] = type(f"{role.__name__}Map", (ModbusMap,), body, role=role)
        return _MADE[key]
