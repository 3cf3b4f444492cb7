"""Reads HTML pages as a browser would, with and without one."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

HOSTILE = "<script>alert(1)</script><img src='http://evil.example/x' onerror=alert(1)>\"'&\u202etxt"

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium on the path; on Debian, install it with: apt install chromium"
)


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, the text in them, and the cells of each table."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.tables: list[list[list[str]]] = []
        self._open: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "br"):
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while tag in self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        for tag in {*self._open}:
            self.texts.setdefault(tag, []).append(data)
        if {"td", "th"} & {*self._open}:
            self.tables[-1][-1][-1] += data

    def named(self, tag: str, css: str = "") -> list[dict[str, str | None]]:
        return [
            attrs
            for name, attrs in self.elements
            if name == tag and (not css or css in (attrs.get("class") or "").split())
        ]

    def text(self, tag: str) -> str:
        return "".join(self.texts.get(tag, []))


def assert_harmless(page: Page) -> None:
    """Nothing that strangers wrote is markup, and nothing is asked for or run but the page's own script."""
    assert len(page.named("script")) == 1
    assert "alert" not in page.text("script")
    assert not page.named("img")
    assert not [attrs for _, attrs in page.elements if any(name.startswith("on") for name in attrs)]
    assert not [attrs for _, attrs in page.elements for name in attrs if name in {"src", "srcset", "action", "style"}]
    assert all((attrs.get("href") or "#").startswith("#") for _, attrs in page.elements)
    assert not re.search(r"url\(|@import|https?:", page.text("style") + page.text("script"))
    assert "\u202e" not in page.text("html")
    (policy,) = [attrs["content"] for attrs in page.named("meta") if attrs.get("http-equiv")]
    assert policy is not None
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[\w+/]{43}='; script-src 'sha256-[\w+/]{43}='; "
        r"base-uri 'none'; form-action 'none'",
        policy,
    )


def browse(path: Path, then: str = "", width: int = 1200) -> tuple[Page, list[str]]:
    """Opens a page in Chromium.

    Args:
        path: The page.
        then: A script that does something to it; its policy, which forbids that, is taken away.
        width: Of the window.

    Returns:
        The page after its scripts ran, and what was written to the console.
    """
    if then:
        source = re.sub(r"<meta http-equiv[^>]*>", "", path.read_text(encoding="utf-8"))
        path = path.with_name("driven.html")
        path.write_text(source.replace("</body>", f"<script>{then}</script></body>"), encoding="utf-8")
    ended = subprocess.run(
        [
            str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0",
            "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={path.parent / 'profile'}", f"--window-size={width},900", "--virtual-time-budget=2000",
            "--dump-dom", path.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return Page(ended.stdout), [line for line in ended.stderr.splitlines() if "CONSOLE" in line]


def luminance(color: str) -> float:
    """Relative luminance of a hexadecimal color, as the contrast guidelines of the W3C define it."""
    digits = color.removeprefix("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    shares = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colors; 4.5 is enough to read small text."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def colors(style: str) -> tuple[dict[str, str], dict[str, str]]:
    """The named colors of a style: in light, and in dark."""
    found = re.findall(r"--([\w-]+): light-dark\((#\w+), (#\w+)\)", style)
    return {name: light for name, light, _ in found}, {name: dark for name, _, dark in found}
