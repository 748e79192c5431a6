"""Label selectors as people type them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.planning.selectors import parse_selector, selects
from reconciler.resources.errors import InvalidInput

WEB = {"app": "web", "tier": "front", "example.org/zone": "a"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "app",
        "app=web",
        "app==web",
        "app = web",
        "app!=db",
        "missing!=db",
        "!missing",
        "app in (web, db)",
        "app notin (db)",
        "missing notin (db)",
        "example.org/zone=a",
        "app=web,tier in (front,back),!missing",
    ],
)
def test_a_selector_that_matches(text: str) -> None:
    assert selects(parse_selector(text), WEB)


@pytest.mark.parametrize(
    "text",
    ["missing", "app=db", "app!=web", "!app", "app in (db)", "app notin (web)", "app=", "app=web,tier=x"],
)
def test_a_selector_that_does_not(text: str) -> None:
    assert not selects(parse_selector(text), WEB)


def test_an_empty_value_matches_an_empty_label() -> None:
    assert selects(parse_selector("spare="), {"spare": ""})


@pytest.mark.parametrize(
    "text",
    [
        ",",
        "a,",
        ",a",
        "a b",
        "=x",
        "a=b=c",
        "a in",
        "a in (",
        "a in b",
        "a in (b c)",
        "-a",
        "a=-",
        "a/b/c",
        "a>1",
    ],
)
def test_what_is_no_selector_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_selector(text)
    assert "label selector" in refused.value.message
    assert "app notin (web)" in refused.value.cure


@given(st.text(alphabet="ab=!(), in\n\u00e9", max_size=40))
def test_any_text_is_understood_or_refused_at_once(text: str) -> None:
    try:
        understood = isinstance(selects(parse_selector(text), WEB), bool)
    except InvalidInput as error:
        understood = bool(error.cure)
    assert understood
