"""What the browser's Back goes back to: pages, not every position that a slider had."""

from __future__ import annotations

import streamlit as st

#: Streamlit (1.67) adds an entry whenever the address changes. One of the same page takes the place of the last one instead.
_ONE_ENTRY_A_PAGE = """<script>
if (!Object.hasOwn(window.history, "pushState")) {
  window.history.pushState = function (state, title, url) {
    const samePage = url && new URL(url, window.location.href).pathname === window.location.pathname;
    History.prototype[samePage ? "replaceState" : "pushState"].call(this, state, title, url);
  };
}
</script>"""


def one_entry_a_page() -> None:
    """From now on a change of the address within a page replaces its entry, so that Back leaves the page in one step."""
    st.html(_ONE_ENTRY_A_PAGE, unsafe_allow_javascript=True)
