"""Words for messages."""

import pytest

from sfumato.words import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("FSD in eV/Å\n\tα", "FSD in eV/Å\n\tα"),
        ("a\x1b[2Jb\x07\x00", r"a\x1b[2Jb\x07\x00"),
        ("\x9b31m\udcff\r", r"\x9b31m\udcff\r"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text, shown):
    assert printable(text) == shown


def test_a_text_is_bounded():
    assert printable("x" * 10, 4) == "xxxx… (10 characters)"
    assert printable("x" * 4, 4) == "xxxx"
