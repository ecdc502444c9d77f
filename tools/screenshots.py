"""Save a picture of every page, light and dark, at three widths: `python -m tools.screenshots FOLDER [options]`.

The pictures are named <page>-<theme>-<width>.png. Options narrow what is taken; --url takes a running dashboard.
With --readme the README's two pictures are taken instead, spectra.png and merge.png: `python -m tools.screenshots --readme docs`.
"""

import argparse
import contextlib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser

from tools.app_server import REPOSITORY, running_app
from tools.browser import chromium, errors_shown, new_page, open_page, save_whole_page, wait_idle

THEMES = ("light", "dark")
WIDTHS = {390: 844, 1280: 800, 1920: 1080}  # px wide: px high; the first is a phone

READING = "How to read:"  # how every card's last line begins


@dataclass(frozen=True)
class Picture:
    """One of the README's pictures: a page, a view of it as in the address bar, and how many cards it shows."""

    page: str
    query: str
    cards: int


README_PICTURES = (
    Picture("Spectra", "smoothing=linear&rho=5", 2),
    Picture("Merge", "method=dc_merge&dc_merge.alpha=2.4&smoothing=linear&rho=5", 1),
)


def page_paths(script: Path) -> dict[str, str]:
    """Page name -> path in the address bar, as Streamlit derives it from the names in pages/ ("1_Spectra.py")."""
    names = [re.sub(r"^\d+[_ -]*", "", file.stem) for file in sorted((script.parent / "pages").glob("[!_.]*.py"))]
    return {"Home": "", **{name: name for name in names}}


@contextlib.contextmanager
def address(url: str | None, script: Path) -> Iterator[str]:
    """The given address, or that of a dashboard started for this purpose."""
    if url:
        yield url.rstrip("/")
        return
    with running_app(script) as app:
        yield app.url


def take(browser: Browser, url: str, target: Path, theme: str, width: int, settle: float, cards: int | None = None) -> list[str]:
    """Save one picture, of the whole page or of its first cards; return the uncaught exceptions that it shows."""
    page = new_page(browser, color_scheme=theme, viewport={"width": width, "height": WIDTHS.get(width, 900)})
    try:
        open_page(page, url, timeout=180)
        wait_idle(page, timeout=180, settle=settle)
        save_whole_page(page, target, until=page.locator("p", has_text=READING).nth(cards - 1) if cards else None)
        return errors_shown(page)
    finally:
        page.context.close()


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.screenshots", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--script", type=Path, default=REPOSITORY / "app.py", help="the home page (default: app.py)")
    parser.add_argument("--url", help="a running dashboard, instead of starting one")
    parser.add_argument("--page", action="append", metavar="NAME", help="only this page; Home is the first one")
    parser.add_argument("--theme", action="append", choices=THEMES, help="only this theme")
    parser.add_argument("--width", action="append", type=int, help="only this width in pixels (1280 and 1920)")
    parser.add_argument("--query", default="", help='view to restore, as in the address bar ("layer=3&rho=5")')
    parser.add_argument("--settle", type=float, default=1.0, help="seconds of rest before a picture is taken")
    parser.add_argument("--readme", action="store_true", help="take the README's two pictures and nothing else")
    return parser.parse_args(arguments)


def take_readme_pictures(browser: Browser, base: str, paths: dict[str, str], options: argparse.Namespace) -> bool:
    """Save the README's pictures, light and 1280 wide; whether one of them shows an exception."""
    failed = False
    for picture in README_PICTURES:
        url, target = f"{base}/{paths[picture.page]}?{picture.query}", options.folder / f"{picture.page.lower()}.png"
        errors = take(browser, url, target, "light", 1280, options.settle, picture.cards)
        print(target, *(f"shows an exception: {error}" for error in errors), flush=True)
        failed |= bool(errors)
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    """Take the pictures; exit code 1 where a page shows an uncaught exception."""
    options = read_options(arguments)
    paths = page_paths(options.script.resolve())
    unknown = set(options.page or ()) - set(paths)
    if unknown:
        sys.exit(f"There is no page {', '.join(sorted(unknown))}; there are: {', '.join(paths)}")
    failed = False
    with address(options.url, options.script.resolve()) as base, chromium() as browser:
        if options.readme:
            return int(take_readme_pictures(browser, base, paths, options))
        for name in options.page or paths:
            url = f"{base}/{paths[name]}" + (f"?{options.query}" if options.query else "")
            for theme in options.theme or THEMES:
                for width in options.width or WIDTHS:
                    target = options.folder / f"{name.lower()}-{theme}-{width}.png"
                    errors = take(browser, url, target, theme, width, options.settle)
                    print(target, *(f"shows an exception: {error}" for error in errors), flush=True)
                    failed |= bool(errors)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
