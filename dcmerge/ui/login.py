"""A login before every page, where the server's secrets set up Streamlit's own (OpenID Connect); docs/security.md shows how."""

from __future__ import annotations

import os

import streamlit as st
from streamlit.errors import StreamlitSecretNotFoundError

from dcmerge.ui.text import plain


def require_login() -> None:
    """End the page in a button that leads to the provider, until the visitor has logged in. Nothing where no login is set up."""
    if _unreadable():
        st.error("This dashboard stays closed: the file with its secrets cannot be read.", icon=":material/lock:")
        st.stop()
    # Streamlit tells whether somebody is logged in only where its secrets have a section [auth].
    if "is_logged_in" not in st.user:
        return
    if st.user.is_logged_in:
        with st.sidebar.container(horizontal=True, vertical_alignment="center"):
            st.caption(plain(f"Logged in as {st.user.get('email') or st.user.get('name') or st.user.get('sub')}"))
            st.button("Log out", key="log.out", type="tertiary", on_click=st.logout)
        return
    st.title("Log in")
    st.markdown("This dashboard shows its models to people who have logged in.")
    st.button("Log in", key="log.in", type="primary", icon=":material/login:", on_click=st.login)
    st.stop()


def _unreadable() -> bool:
    """Whether there are secrets that cannot be read: a mistake in that file must not open the door."""
    if not any(os.path.exists(path) for path in st.get_option("secrets.files")):
        return False
    try:
        len(st.secrets)
    except StreamlitSecretNotFoundError:
        return True
    return False
