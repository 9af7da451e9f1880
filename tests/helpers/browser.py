"""A page in headless Chromium, which may fetch nothing but the file itself."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "<script>document.title = 'run'</script>",
    '" onfocus=alert(1) autofocus x="',
    "{{ 7 * 7 }}",
    "<!--",
    "]]>",
    "javascript:alert(1)",
    "\u2028\x1b[31m\udcff",
]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


class Opened:
    """A page, with what it wrote to the console, what went wrong and what it asked for beside its file."""

    def __init__(self, page, path):
        self.page, self.console, self.requests = page, [], []
        url = path.as_uri()
        page.on("console", lambda message: self.console.append(message.text))
        page.on("pageerror", lambda error: self.console.append(str(error)))
        page.on("dialog", lambda dialog: (self.console.append("dialog"), dialog.dismiss()))
        page.on("request", lambda each: self.requests.append(each.url) if each.url != url else None)
        page.goto(url)

    def texts(self, selector):
        return self.page.locator(selector).all_text_contents()

    def cells(self, table, column):
        """The shown cells of a column of the table with that caption."""
        rows = self.page.locator("table", has=self.page.locator("caption", has_text=table)).locator(
            "tbody tr"
        )
        shown = (
            "rows => rows.filter(row => !row.hidden).map(row => [...row.cells].map(cell => cell.textContent))"
        )
        return [row[column] for row in rows.evaluate_all(shown)]

    def is_clean(self):
        return self.console == [] and not [url for url in self.requests if not url.startswith("data:")]

    def scrolls_sideways(self):
        return self.page.evaluate("document.documentElement.scrollWidth > innerWidth")


@contextlib.contextmanager
def opened(path: Path, *, width: int = 1280, scheme: str = "light"):
    """Open a file in a browser, or skip the test where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser here: none of {', '.join(NAMES)} is on the path")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            yield Opened(page, path)
        finally:
            browser.close()
