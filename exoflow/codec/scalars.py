"""Scalars as a tag and their bytes."""

from __future__ import annotations

import struct
from typing import Any

from exoflow.codec.encoded import OUT_OF_BAND_MIN_BYTES, Encoded
from exoflow.errors import Corrupt

_DOUBLE = struct.Struct("<cd")
_NONE, _TRUE, _FALSE = Encoded(b"n"), Encoded(b"t"), Encoded(b"f")
_new = tuple.__new__  # Encoded(...) costs twice as much, on the hottest path there is


def encode_scalar(value: Any, kind: type) -> Encoded:
    if kind is int:
        head: bytes = b"i" + value.to_bytes((value.bit_length() >> 3) + 1, "little", signed=True)
    elif kind is str:
        head = b"s" + value.encode("utf-8", "surrogatepass")
    elif kind is float:
        head = _DOUBLE.pack(b"d", value)
    elif kind is bool:
        return _TRUE if value else _FALSE
    elif value is None:
        return _NONE
    elif len(value) < OUT_OF_BAND_MIN_BYTES:
        head = b"b" + value
    else:
        return Encoded(b"B", (memoryview(value),))
    encoded: Encoded = _new(Encoded, (head, (), (), None))
    return encoded


def decode_scalar(tag: int, head: bytes | memoryview, buffers: tuple[memoryview, ...]) -> object:
    match tag:
        case 0x69:  # i
            return int.from_bytes(head[1:], "little", signed=True)
        case 0x73:  # s
            return str(head[1:], "utf-8", "surrogatepass")
        case 0x6E:  # n
            return None
        case 0x64:  # d
            return _DOUBLE.unpack(head)[1]
        case 0x74:  # t
            return True
        case 0x66:  # f
            return False
        case 0x62:  # b
            return bytes(head[1:])
        case 0x42:  # B
            whole = buffers[0].obj
            return whole if type(whole) is bytes and len(whole) == buffers[0].nbytes else bytes(buffers[0])
        case _:
            raise Corrupt(f"a value begins with {tag:#x}, which is no form of this version")
