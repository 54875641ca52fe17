"""Values to bytes and back: what survives a process, a crash and another machine, and what tells two values apart."""

from exoflow.codec.arguments import encode_arguments
from exoflow.codec.code import code_fingerprint, code_mark, home_of, same_code, source_of
from exoflow.codec.differences import by_parameter, difference
from exoflow.codec.encoded import Encoded, from_bytes, from_object, read_stored, sharing, to_bytes, to_parts, to_shared
from exoflow.codec.engines import Live, engine_object
from exoflow.codec.exceptions import decode_error, encode_error
from exoflow.codec.fingerprints import fingerprint, packed, same, unpacked, whole_fingerprint
from exoflow.codec.ownership import taken_over
from exoflow.codec.references import (
    Reference,
    find_references,
    make_reference,
    reduce_reference,
    register_reference,
    substitute,
)
from exoflow.codec.values import (
    all_immutable,
    as_encoded,
    decode,
    encode,
    encode_result,
    encode_small,
    immutable,
)

__all__ = [
    "Encoded",
    "Live",
    "Reference",
    "all_immutable",
    "as_encoded",
    "by_parameter",
    "code_fingerprint",
    "code_mark",
    "decode",
    "decode_error",
    "difference",
    "encode",
    "encode_arguments",
    "encode_error",
    "encode_result",
    "encode_small",
    "engine_object",
    "find_references",
    "fingerprint",
    "from_bytes",
    "from_object",
    "home_of",
    "immutable",
    "make_reference",
    "packed",
    "read_stored",
    "reduce_reference",
    "register_reference",
    "same",
    "same_code",
    "sharing",
    "source_of",
    "substitute",
    "taken_over",
    "to_bytes",
    "to_parts",
    "to_shared",
    "unpacked",
    "whole_fingerprint",
]
