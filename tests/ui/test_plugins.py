"""The page's plugin, as it stands in docs/contributing.md, in the dashboard: a select box, a slider, the catalogue."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from dcmerge.methods import methods
from dcmerge.methods.plugins import VARIABLE
from tests.docs.pages import blocks
from tests.plugins import write_plugin
from tests.ui.conftest import Open

pytestmark = pytest.mark.usefixtures("own_register")
LABEL = "Mean by depth (from by_depth.py)"


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file by_depth.py, which the dashboard is started with."""
    [example] = [block for block in blocks("docs/contributing.md") if block.file == "by_depth.py"]
    path = write_plugin(tmp_path / "plugins", example.text, "by_depth.py")
    monkeypatch.setenv(VARIABLE, str(path))
    return path


def test_it_is_chosen_and_tuned_like_a_built_in_method(folder: Path, plugin: Path, open_page: Open) -> None:
    app = open_page("pages/3_Merge.py", set=f"folder:{folder.name}", method="by_depth")
    assert not app.exception and not app.error
    chooser, gamma = app.selectbox(key="method"), app.slider(key="by_depth.gamma")
    assert chooser.value == "by_depth" and LABEL in chooser.options and "DC-Merge" in chooser.options
    assert (gamma.label, gamma.min, gamma.max, gamma.step, gamma.value) == ("γ", 0, 1, 0.05, 0.5)
    gamma.set_value(0.25).run()
    assert not app.exception and not app.error
    texts = [code.value for code in app.code]
    assert any(f"--plugin {plugin}" in text and "gamma=0.25" in text for text in texts)
    assert any(f"dcmerge.load_plugin({str(plugin)!r})" in text for text in texts)
    sha256 = hashlib.sha256(plugin.read_bytes()).hexdigest()
    assert any(f"plugin:\n  name: by_depth.py\n  sha256: {sha256}" in text for text in texts)


def test_the_catalogue_says_where_it_is_from(folder: Path, plugin: Path, open_page: Open) -> None:
    app = open_page("pages/6_Methods.py", set=f"folder:{folder.name}")
    assert not app.exception and not app.warning
    overview = app.dataframe[0].value.set_index("method")
    assert overview.loc["Mean by depth", "plugin"] == "by_depth.py" and overview["plugin"].notna().sum() == 1
    [card] = [e for e in app.main.expander if "Mean by depth" in e.label]
    assert card.label.replace("\\", "") == LABEL
    assert any(hashlib.sha256(plugin.read_bytes()).hexdigest() in text.value for text in card.markdown)


def test_a_plugin_that_has_gone_is_told_and_left_out(folder: Path, plugin: Path, open_page: Open) -> None:
    plugin.unlink()
    app = open_page("pages/6_Methods.py", set=f"folder:{folder.name}")
    assert not app.exception and len(app.main.expander) == len(methods())
    [warning] = app.warning
    assert "plugin: expected a Python file, got no file at" in warning.value.replace("\\", "")


def test_a_parameter_called_like_one_of_the_sidebar_is_the_plugins_own(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_page: Open
) -> None:
    text = write_plugin(tmp_path / "a").read_text().replace("factor:", "rho:").replace("* factor", "* rho")
    monkeypatch.setenv(VARIABLE, str(write_plugin(tmp_path / "b", text)))
    app = open_page("pages/3_Merge.py", set=f"folder:{folder.name}", method="mine", rho="7")
    assert not app.exception and not app.error
    assert app.slider(key="mine.rho").value == 2.0
