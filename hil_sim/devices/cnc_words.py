"""The Modbus server of the simulated CNC: docs/handshake.md at the places of its generic map."""

from __future__ import annotations

from struct import Struct, pack_into
from typing import TYPE_CHECKING

from hil_sim.devices.modbus import ILLEGAL_ADDRESS, ILLEGAL_VALUE, Block, ModbusError, ModbusTcp

if TYPE_CHECKING:
    from hil_sim.devices.cnc import Cnc

STORE_UNIT, STORE_END = 2, 0xFFFF
BUSY = 6
_FILE = Struct(">BHHH")

# our words, their words
O_VERSION, O_BEAT, O_BITS, O_LAYER, O_PROGRAM, O_POWER, O_OVERRIDE, O_SHARE = 0, 1, 2, 3, 4, 6, 8, 9
N_OURS, THEIRS, N_THEIRS = 10, 100, 32
PERMIT, GO, HOLD_BEAD, HOLD_NOW, ABORT, RESET, POWDER_READY, GAS_READY, REFERENCE = (
    1 << n for n in range(9)
)
AUTOMATIC, REFERENCED, INTERLOCK_OK, PERMITTED, GATE_REQUESTED, GATE_ON, PENDING = (
    1 << n for n in range(7)
)


class Words(ModbusTcp):
    """The Modbus server of the control; answers go to the control's own queue."""

    channel = "motion"
    functions = frozenset((3, 6, 16, 21))

    def __init__(self, control: Cnc) -> None:
        super().__init__(None, None)  # type: ignore[arg-type]
        self.control = control
        self.ours = Block(0, N_OURS)
        self.theirs = Block(THEIRS, N_THEIRS)
        self.blocks = {1: (self.ours, self.theirs), STORE_UNIT: ()}

    def answer(self, data: bytes) -> None:
        self.control.reply(data)

    def refresh(self, unit: int) -> None:
        self.control.tell(self.theirs.data)

    def write_registers(self, unit: int, address: int, values: tuple[int, ...]) -> None:
        if unit != 1 or address + len(values) > N_OURS:
            raise ModbusError(ILLEGAL_ADDRESS)
        for n, value in enumerate(values, address):
            pack_into(">H", self.ours.data, 2 * n, value)
        self.control.told(self.ours.data)

    def _answer_other(self, unit: int, function: int, pdu: bytes) -> bytes:
        if function != 21:
            return super()._answer_other(unit, function, pdu)
        if unit != STORE_UNIT:
            raise ModbusError(ILLEGAL_ADDRESS)
        at, end = 2, len(pdu)
        if end < 9 or pdu[1] != end - 2:
            raise ModbusError(ILLEGAL_VALUE)
        while at < end:
            kind, file, record, count = _FILE.unpack_from(pdu, at)
            data = pdu[at + 7 : at + 7 + 2 * count]
            if kind != 6 or len(data) != 2 * count or file == 0:
                raise ModbusError(ILLEGAL_VALUE)
            self.control.stored(file, record, data)
            at += 7 + 2 * count
        return pdu
