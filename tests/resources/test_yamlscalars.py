"""What an unquoted word means: YAML 1.2's core schema, not PyYAML's 1.1."""

from __future__ import annotations

import pytest

from reconciler.resources.yamlscalars import refused_character, resolve


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("Off", "Off"),
        ("y", "y"),
        ("None", "None"),
        ("true", True),
        ("FALSE", False),
        ("", None),
        ("~", None),
        ("Null", None),
        ("012", 12),
        ("0o14", 12),
        ("0x1f", 31),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("-7", -7),
        ("+3", 3),
        ("1.50", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("52:54:00:12:34:56", "52:54:00:12:34:56"),
        ("12:30:45", "12:30:45"),
        ("2026-01-01", "2026-01-01"),
        ("2026-01-01T10:00:00Z", "2026-01-01T10:00:00Z"),
        ("2Gi", "2Gi"),
        ("-", "-"),
        (".", "."),
        ("1.2.3.4", "1.2.3.4"),
    ],
)
def test_plain_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    found = resolve(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", [".nan", ".NaN", ".inf", "-.INF", "+.inf"])
def test_what_is_not_a_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not allowed here"):
        resolve(text)


@pytest.mark.parametrize("text", ["9" * 41, "1e999", "0x" + "f" * 60])
def test_numbers_that_no_field_can_hold_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no field can hold|too large"):
        resolve(text)


def test_control_characters_and_halves_of_surrogates_are_named() -> None:
    assert refused_character("two\nlines\twith a tab\r\n") is None
    assert "U+0000" in str(refused_character("a\0b"))
    assert "U+D800" in str(refused_character("\ud800"))
