"""The generator of the documentation site, without building it: ``make check`` does that."""

from pathlib import Path

import pytest
from loaded import script

from hailproof.attacks import ATTACKS
from hailproof.defenses import DEFENSES

ROOT = Path(__file__).resolve().parents[1]


pages = script(".ci/pages.py")


def test_every_attack_and_defense_has_a_page():
    assert [*pages.names("attacks")] == [*ATTACKS] and [*pages.names("defenses")] == [*DEFENSES]
    for kind in pages.KINDS:
        for name in pages.names(kind):
            page = pages.entry(kind, name)
            heads = [line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")]
            assert heads[0] in ("Threat", "Idea") and heads[-4:] == ["Result", "Limits", "Source", "Options"]
            assert f"{kind[:-1]} {name}\n" in page


def test_what_the_overview_says_of_an_attack_is_on_its_page():
    assert "Eligible: completions with a 2∘2 equation" in " ".join(pages.entry("attacks", "equation").split())
    spin = pages.entry("attacks", "spin")
    assert "| `spin` (code) | programs that never end | seconds of a round |" in spin and "`bulk`" not in spin


def test_a_docstring_is_read_by_its_labels():
    text = "X: about.\n\nThreat: one.\n\nMore.\n\nLimits: two.\n\nSources: three."
    parts = {"": "X: about.", "Threat": "One.\n\nMore.", "Limits": "Two.", "Source": "Three."}
    assert pages.labeled(text) == parts


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        ("X.\n\nThreat: a.\n\nLimits: b.", "lacks Source;"),
        ("X.\n\nIdea: a.\n\nSource: b.", "lacks Limits;"),
        ("X.\n\nLimits: a.\n\nSource: b.", "lacks Threat or Idea;"),
    ],
)
def test_a_docstring_without_a_label_is_refused(text, lacks):
    with pytest.raises(pages.SiteError, match=lacks):
        pages.labeled(text)


def relinked(text: str) -> str:
    source = ROOT / "docs" / "attacks.md"
    targets = {ROOT / "docs" / "defenses.md": "defenses.md", ROOT / "CHANGELOG.md": "CHANGELOG.md"}
    return pages.relinked(text, source, "attacks/text.md", targets)


@pytest.mark.parametrize(
    ("link", "there"),
    [
        ("[a](defenses.md#needs-a-judge)", "[a](../defenses.md#needs-a-judge)"),
        ("[a](../CHANGELOG.md)", "[a](../CHANGELOG.md)"),
        ("[a](https://arxiv.org/abs/2511.09780)", "[a](https://arxiv.org/abs/2511.09780)"),
        ("`f[0](lost.md)`", "`f[0](lost.md)`"),
        ("[`a`](../Makefile)", "`a`"),
    ],
)
def test_links_fit_the_place_of_the_page(monkeypatch, link, there):
    monkeypatch.delenv("SOURCE", raising=False)
    assert relinked(link) == there


def test_links_that_leave_the_site(monkeypatch):
    monkeypatch.setenv("SOURCE", "https://host/owner/name/blob/main")
    assert relinked("[a](../examples/trl/attacked.py#L3)") == "[a](https://host/owner/name/blob/main/examples/trl/attacked.py#L3)"
    with pytest.raises(pages.SiteError, match=r"attacks.md links to lost.md"):
        relinked("[a](lost.md)")


def built(folder: Path, body: str) -> None:
    (folder / "index.html").write_text(f"<h2 id=here>Here</h2>{body}")
    (folder / "style.css").write_text("p {background: url(image.png)}")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("<a href='index.html#here'></a><a href='https://elsewhere'></a><img src='style.css'>", None),
        ("<script src='https://elsewhere/x.js'></script>", "loads https://elsewhere/x.js"),
        ("<link rel=stylesheet href='//elsewhere/x.css'>", "loads //elsewhere/x.css"),
        ("<link rel=preconnect href='https://elsewhere'>", "loads https://elsewhere"),
        ("<pre class='mermaid'></pre>", "class mermaid"),
        ("<img src='lost.png'>", "links to lost.png"),
        ("<a href='lost.html'></a>", "links to lost.html"),
        ("<a href='index.html#lost'></a>", "no such heading"),
    ],
)
def test_a_built_page_fetches_nothing_and_leads_nowhere_wrong(tmp_path, monkeypatch, body, error):
    monkeypatch.setattr(pages, "SITE", tmp_path)
    built(tmp_path, body)
    if error is None:
        pages.check()
        return
    with pytest.raises(pages.SiteError, match=error):
        pages.check()


def test_a_style_sheet_fetches_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "SITE", tmp_path)
    built(tmp_path, "")
    (tmp_path / "style.css").write_text("@font-face {src: url('https://elsewhere/font.woff2')}")
    with pytest.raises(pages.SiteError, match=r"style.css loads url\('https://elsewhere/font.woff2"):
        pages.check()
