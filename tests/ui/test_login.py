"""A login before every page, where the secrets of the server set one up; nothing of one where they do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from streamlit import config
from streamlit.runtime.secrets import secrets_singleton

from tests.ui.conftest import PAGES, Open

AUTH = """[auth]
redirect_uri = "https://models.example.org/oauth2callback"
cookie_secret = "00000000000000000000000000000000"
client_id = "dcmerge"
client_secret = "x"
server_metadata_url = "https://login.example.org/.well-known/openid-configuration"
"""


@pytest.fixture
def secrets(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Writes the server's secrets."""
    before = config.get_option("secrets.files")

    def write(text: str) -> None:
        (tmp_path / "secrets.toml").write_text(text)
        config.set_option("secrets.files", [str(tmp_path / "secrets.toml")])
        secrets_singleton._reset()

    yield write
    config.set_option("secrets.files", before)
    secrets_singleton._reset()


@pytest.mark.parametrize("path", PAGES)
def test_no_page_shows_anything_before_the_login(path: str, open_page: Open, secrets: Callable[[str], None]) -> None:
    secrets(AUTH)
    app = open_page(path)
    assert not app.exception
    assert [one.value for one in app.title] == ["Log in"] and [one.label for one in app.button] == ["Log in"]
    assert not app.selectbox and not app.metric and not app.dataframe


@pytest.mark.parametrize("text", ["[auth", "[auth]\nclient_id = ", "\x00"])
def test_a_mistake_in_the_secrets_does_not_open_the_door(text: str, open_page: Open, secrets: Callable[[str], None]) -> None:
    secrets(text)
    app = open_page("app.py")
    assert not app.exception and not app.title and not app.selectbox
    assert "stays closed" in app.error[0].value


def test_without_a_login_in_the_secrets_there_is_none(open_page: Open, secrets: Callable[[str], None]) -> None:
    secrets('other = "x"\n')
    app = open_page("pages/6_Methods.py")
    assert not app.exception and app.title[0].value == "Methods" and not any("Log" in one.label for one in app.button)
