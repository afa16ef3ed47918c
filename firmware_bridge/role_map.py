"""A role served by a register map alone: which entry fills which field, which steps a command is.

The fields of the role's reading are found in the map by name:

- a number or a flag: the reading or setting of that name; a flag must be one bit;
- a tuple: the entries ``<field>_1``, ``<field>_2``, ... (at least one);
- a tuple of texts (``faults``): the bits named ``<field>_<TEXT>``, those that are set;
- a field that the device does not give: a value in ``[constants]``, said openly.

A command that the role writes by ``put`` needs the setting of that name; one that the role
leaves open needs its steps in ``[commands]``. What is missing is a MapError before any I/O.
"""

import dataclasses
import inspect
from pathlib import Path
from typing import Any

from firmware_bridge import roles
from firmware_bridge.errors import MapError
from firmware_bridge.modbus_device import MapDevice
from firmware_bridge.register_map import RegisterMap, load_map
from firmware_bridge.registers import Reading, Setting
from firmware_bridge.transport import Port

URGENT = {"emission_disable", "drop_supply"}  # go before anything else on the wire
OWN_DRIVER = {"powder_feeder": "feeder_map"}  # its flow needs a calibration


def role_named(key: str, origin: str) -> type[roles.Role]:
    """The role of a map. Raises MapError that says what there is."""
    found = {role.key: role for role in roles.ROLES}
    if key in OWN_DRIVER:
        raise MapError(f"{origin}: role {key!r} has a driver of its own: {OWN_DRIVER[key]}")
    if key not in found:
        known = ", ".join(sorted(set(found) - set(OWN_DRIVER)))
        raise MapError(f"{origin}: role {key!r} is not known; there are: {known}")
    return found[key]


def _words_of(method: Any) -> set[str]:
    """The settings that a role's method puts."""
    code = method.__code__
    texts = {c for c in code.co_consts if isinstance(c, str) and c != method.__doc__}
    return texts if "put" in code.co_names else set()


class RoleMap(MapDevice):
    """Base of drivers that a map fills whole: readings by name, commands by steps."""

    def __init_subclass__(cls, role: type[roles.Role] | None = None, **kwargs: Any) -> None:
        for name, method in _open_commands(role).items() if role is not None else ():
            if name not in vars(cls):
                setattr(cls, name, method)
        super().__init_subclass__(role=role, **kwargs)

    def __init__(self, port: Port, name: str | None = None, **options: Any) -> None:
        super().__init__(port, name, **options)
        self._where: dict[str, tuple[str, ...]] = {}
        known = {f.name for f in dataclasses.fields(self.role.reading_type)[1:]}
        for constant in self.map.constants:
            if constant not in known:
                raise MapError(f"{self.map.origin}: constants.{constant}: no field of the role")
        for field in dataclasses.fields(self.role.reading_type)[1:]:
            if isinstance(inspect.getattr_static(type(self), field.name, None), property):
                continue  # the driver makes it
            self._where[field.name] = self._entries(field)
        self._check_commands()

    def _entries(self, field: "dataclasses.Field[Any]") -> tuple[str, ...]:
        """Names of the map's entries that fill a field; none for a constant."""
        name, kind, origin = field.name, str(field.type), self.map.origin
        entries = self.map.readings
        if name in self.map.constants:
            value = self.map.constants[name]
            if isinstance(value, bool) is not ("bool" in kind) or isinstance(value, tuple) is not (
                "tuple" in kind
            ):
                raise MapError(f"{origin}: constants.{name} {value!r} is no {_plain(kind)}")
            if name in entries:
                raise MapError(f"{origin}: constants.{name}: there is an entry of that name")
            return ()
        if "tuple[str" in kind:
            found = tuple(e for e in entries if e.startswith(f"{name}_"))
            for bit in found:
                self.map.need_bit(bit)
        elif "tuple" in kind:
            count = 1
            while f"{name}_{count}" in entries:
                count += 1
            found = tuple(f"{name}_{i}" for i in range(1, count))
            for bit in found if "bool" in kind else ():
                self.map.need_bit(bit)
            if not found:
                raise MapError(f"{origin}: readings.{name}_1 is missing ({_plain(kind)})")
        else:
            entry = self.map.need(name)
            if "bool" in kind and entry.bit is None and not _is_switch(entry):
                raise MapError(f"{origin}: readings.{name} needs a bit")
            found = (name,)
        return found

    def _check_commands(self) -> None:
        origin = self.map.origin
        wanted = set()
        for method_name, method in vars(self.role).items():
            if not inspect.iscoroutinefunction(method):
                continue
            if "NotImplementedError" in method.__code__.co_names:
                wanted.add(method_name)
                by_map = hasattr(inspect.getattr_static(type(self), method_name), "by_map")
                if by_map and method_name not in self.map.commands:
                    raise MapError(f"{origin}: commands.{method_name} is missing")
            for setting in _words_of(method):
                self.map.need(setting, Setting)
        for command in self.map.commands:
            if command not in wanted:
                raise MapError(f"{origin}: commands.{command}: no open command of the role")

    def _field(self, name: str) -> Any:
        """The value of a field of the role's reading, from the last poll."""
        if name in self.map.constants:
            return self.map.constants[name]
        where = self._where[name]
        kind = str(self.role.reading_type.__dataclass_fields__[name].type)
        if "tuple[str" in kind:
            return tuple([e[len(name) + 1 :] for e in where if self.value(e)])
        if "tuple" in kind:
            return tuple([self.value(e) for e in where])
        value = self.value(name)
        if "bool" in kind:
            return bool(value)
        return float(value) if "float" in kind else value

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("_where", ()):
            return self._field(name)
        return super().__getattr__(name)

    async def carry_out(self, command: str) -> None:
        """The map's steps for a command. Raises DeviceError."""
        urgent = command in URGENT
        since = self.n_urgent
        for setting, value in self.map.commands[command]:
            await self.put(setting, value, urgent=urgent, since=since)


def _is_switch(entry: Reading) -> bool:
    return isinstance(entry, Setting) and entry.limits == (0.0, 1.0)


def _plain(kind: str) -> str:
    return kind.replace("<class '", "").replace("'>", "")


def _open_commands(role: type[roles.Role]) -> dict[str, Any]:
    """Methods for the commands that a role leaves open: each carries out the map's steps."""
    made = {}
    for name, method in vars(role).items():
        if (
            inspect.iscoroutinefunction(method)
            and "NotImplementedError" in method.__code__.co_names
        ):
            made[name] = _steps_of(name, method.__doc__)
    return made


def _steps_of(name: str, doc: str | None) -> Any:
    async def command(self: RoleMap) -> None:
        await self.carry_out(name)

    command.__name__, command.__doc__ = name, doc
    command.by_map = True  # type: ignore[attr-defined]
    return command


def any_map(map: str | Path) -> RegisterMap:
    """A map of whatever role. Raises MapError."""
    return load_map(map, None)
