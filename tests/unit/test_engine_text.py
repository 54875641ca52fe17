"""Text out of tokens: nothing is given out that a later token could change or take back."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, strategies as st

from exoflow.llm.engine.text import TextStream


class Bytes:
    """A tokenizer whose tokens are the bytes of UTF-8."""

    eos_ids = frozenset({256})
    longest = 1

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(token for token in tokens if token < 256).decode(errors="replace")

    def chat(self, messages: Sequence[dict[str, object]]) -> list[int]:
        return self.encode(str(messages))


def streamed(text: str, stop: Sequence[str] = ()) -> tuple[list[str], TextStream]:
    stream = TextStream(Bytes(), stop)
    pieces = []
    for token in Bytes().encode(text):
        pieces.append(stream.add(token))
        if stream.has_stopped:
            break
    pieces.append(stream.end())
    return pieces, stream


@given(st.text(max_size=40))
def test_the_pieces_are_the_text(text: str) -> None:
    pieces, stream = streamed(text)
    assert "".join(pieces) == text == stream.text


def test_half_a_character_is_held_back() -> None:
    pieces, _ = streamed("aé€🎈")
    assert [piece for piece in pieces if piece] == ["a", "é", "€", "🎈"]


def test_bytes_that_never_become_a_character_are_given_out_in_the_end() -> None:
    stream = TextStream(Bytes(), ())
    assert stream.add(0xE2) == ""
    assert stream.end() == "\N{REPLACEMENT CHARACTER}"


@given(st.text(alphabet="ab", max_size=20), st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3))
def test_the_text_ends_before_the_first_stop_string(text: str, stop: list[str]) -> None:
    pieces, stream = streamed(text, stop)
    ends = [place + len(each) for each in stop if (place := text.find(each)) >= 0]
    first_end = min(ends, default=None)
    if first_end is None:
        assert "".join(pieces) == text
    else:
        starts = [first_end - len(each) for each in stop if text[:first_end].endswith(each)]
        assert "".join(pieces) == text[: min(starts)]
        assert stream.has_stopped


@pytest.mark.parametrize("text", ["xEND", "xEN END", "EEND"])
def test_what_may_begin_a_stop_string_is_held_back(text: str) -> None:
    given_out = ""
    stream = TextStream(Bytes(), ["END"])
    for token in Bytes().encode(text):
        given_out += stream.add(token)
        assert text.removesuffix("END").startswith(given_out)
    assert given_out == text.removesuffix("END")
