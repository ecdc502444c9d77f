"""YAML and JSON from people: what is read, what is refused in one sentence, and that nothing in a file can hurt."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcmerge import InputError
from dcmerge.checkpoints.documents import SIZE_LIMIT, dumped_document, parsed_document, read_document

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(min_size=1), PLAIN, max_size=4))
def test_what_is_written_is_read_again(document: dict[str, Any]) -> None:
    text = dumped_document(document)
    assert parsed_document(text) == document
    assert parsed_document(json.dumps(document)) == document
    assert list(parsed_document(text)) == list(document)


def test_numbers_are_read_as_people_write_them() -> None:
    assert parsed_document("{a: 1e-3, b: -2E5, c: .5, d: 7, e: 1e, f: 1.e+2}") == {
        "a": 1e-3,
        "b": -2e5,
        "c": 0.5,
        "d": 7,
        "e": "1e",
        "f": 100.0,
    }


def test_the_same_object_twice_is_written_out_twice() -> None:
    shared = {"weight": 1.0}
    assert "&" not in dumped_document({"a": shared, "b": shared})


BAD = {
    "a list": ("[1, 2]", "expected names with values .a mapping., got a list"),
    "nothing": ("", "got nothing"),
    "a word": ("hello", "got a str"),
    "broken": ("a: [1\nb: 2", "neither .*line"),
    "broken JSON that is broken YAML": ('{"a": 1', "neither"),
    "a tag": ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
    "an alias": ("a: &x [1]\nb: *x", r"an alias \(\*name\).* in line 2"),
    "a bomb": ("a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]", "an alias"),
    "a key twice": ("a: 1\nb: 2\na: 3", "the key 'a' twice in line 3"),
    "a key twice below": ("a:\n  b: 1\n  b: 2", "the key 'b' twice in line 3"),
    "a key twice in JSON": ('{"a": {"b": 1, "b": 2}}', "the key 'b' twice"),
    "a merge key": ("a: {<<: {b: 1}}", "not a plain name"),
    "a number as key": ("1: a", "expected names of text, got 1"),
    "a list as key": ("[1]: a", "not a plain name"),
    "two documents": ("a: 1\n---\nb: 2", "neither"),
    "NaN in JSON": ('{"a": NaN}', "expected a finite number, got NaN"),
    "a control character": ("a: \x07", "neither"),
    "too deep": ("a: " + "[" * 100_000, "nested too deeply"),
    "too deep in JSON": ('{"a": ' + "[" * 100_000, "nested too deeply"),
    "a number of a million digits": ("a: " + "1" * 10**6, "a number of 1000000 characters"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_text_is_one_sentence(what: str) -> None:
    text, words = BAD[what]
    with pytest.raises(InputError, match=words) as error:
        parsed_document(text, "recipe.yaml")
    assert "recipe.yaml" in str(error.value) and len(str(error.value).splitlines()) == 1


def test_a_large_text_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("#" * (SIZE_LIMIT + 1))
    with pytest.raises(InputError, match=f"at most {SIZE_LIMIT} bytes"):
        read_document(path)
    with pytest.raises(InputError, match=f"at most {SIZE_LIMIT} characters"):
        parsed_document("#" * (SIZE_LIMIT + 1))


def test_bad_files_are_one_sentence(tmp_path: Path) -> None:
    binary, pipe = tmp_path / "b.yaml", tmp_path / "p.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    os.mkfifo(pipe)
    for path, words in ((binary, "UTF-8"), (pipe, "pipe"), (tmp_path, "folder"), (tmp_path / "none.yaml", "no file or folder")):
        with pytest.raises(InputError, match=words):
            read_document(path)
    with pytest.raises(InputError, match="NUL"):
        read_document("a\0b")


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"\xef\xbb\xbfmethod: ties")
    assert read_document(tmp_path / "r.yaml") == {"method": "ties"}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ('!!int ""', "a value that is no int in line 1"),
        ('!!float ""', "no float"),
        ("!!bool zz", "no bool"),
        ("!!timestamp zz", "no timestamp"),
        ("0x" + "f" * 6000, "a number of 6002 characters"),
        ("0b" + "1" * 60000, "a number of"),
        (":".join(["1"] * 3000), "a number of"),
        ("9" * 6000, "a number of"),
        ("!!binary é", "binary|base64|neither"),
    ],
)
def test_a_value_that_belies_its_tag_is_told_with_its_line(value: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        parsed_document(f"scale: {value}\n")


def test_a_json_number_of_many_digits_is_refused() -> None:
    with pytest.raises(InputError, match="one of 5000 digits"):
        parsed_document('{"scale": ' + "9" * 5000 + "}")
