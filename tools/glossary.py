"""Write docs/glossary.md from the texts that the tooltips show: `python -m tools.glossary`."""

from dcmerge.studies.glossary import as_markdown
from tools.app_server import REPOSITORY

PAGE = REPOSITORY / "docs" / "glossary.md"

if __name__ == "__main__":
    PAGE.write_text(as_markdown(), encoding="utf-8")
    print(PAGE)
