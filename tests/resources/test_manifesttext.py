"""From bytes to text: what is not UTF-8 says where."""

from __future__ import annotations

import pytest

from reconciler.resources.manifesttext import MAX_BYTES, read_text


def test_utf_8_with_any_line_ends_is_taken_as_it_is() -> None:
    text = read_text("a: ü\r\nb: 😀\rc: 1\n".encode())
    assert text.exact
    assert text.lines == ("a: ü", "b: 😀", "c: 1", "")
    assert text.found == ()


@pytest.mark.parametrize(
    ("data", "line", "column", "message"),
    [
        ("a: 1\nb: für".encode("latin-1"), 2, 5, "not UTF-8: it holds the byte 0xFC here"),
        ("ü: \xff".encode("latin-1"), 1, 1, "not UTF-8"),
        ("a: 1".encode("utf-16"), 1, 1, "UTF-16; save it as UTF-8"),
        (b"\xfe\xff\x00a", 1, 1, "UTF-16"),
        (b"\xef\xbb\xbfa: 1", 1, 1, "byte order mark"),
        (b"a: 1\nb: \x07", 2, 4, "U+0007"),
        (b"a\0b", 1, 2, "U+0000"),
        ("a: \u2028".encode(), 1, 4, "U+2028 (line separator)"),
        ("a: \x85".encode(), 1, 4, "U+0085"),
    ],
)
def test_other_encodings_and_control_characters_have_a_position(
    data: bytes, line: int, column: int, message: str
) -> None:
    text = read_text(data)
    (found,) = text.found
    assert (found.line, found.column) == (line, column)
    assert message in found.message
    assert not text.exact


def test_1_mib_is_read_and_more_is_not() -> None:
    assert read_text(b"#" * MAX_BYTES).found == ()
    assert "10.0 MiB; a manifest is 1 MiB at most" in read_text(b"#" * 10 * MAX_BYTES).found[0].message


def test_a_binary_file_gives_a_handful_of_problems() -> None:
    assert len(read_text(bytes(range(32)) * 1000).found) == 20
