"""Every error the bridge raises on purpose.

BridgeError
├── TransportError      a port cannot be opened, or the other side is gone
├── ProtocolError       bytes that do not follow the protocol
└── DeviceError         a device refused, answered nonsense, or answers no more
    └── MapError        a register map file is wrong: file, key, value, limit
"""


class BridgeError(Exception):
    """Base of all errors of the wire side."""


class TransportError(BridgeError):
    """A port cannot be opened, or the other side is gone."""


class ProtocolError(BridgeError):
    """Bytes that do not follow the protocol."""


class DeviceError(BridgeError):
    """A device refused, answered nonsense, or answers no more."""


class MapError(DeviceError):
    """A register map file is wrong."""
