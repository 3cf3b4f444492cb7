"""Builds the documentation site in build/docs/site, and refuses broken links and whatever would be fetched.

The pages are ``docs/*.md`` as they are, with two changes: links that leave the site lead to ``SOURCE``, if the
environment names one (``https://host/owner/repository/blob/main``), and are plain text otherwise. A page for each
attack and defense is made from its docstring, its paragraph on the overview page and the tables of results that name
it; the references come from the code.
"""

import ast
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
BUILD = ROOT / "build" / "docs"
PAGES, SITE = BUILD / "pages", BUILD / "site"
BESIDE = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "llms.txt")
"""Files at the root of the repository that are on the site too."""

KINDS = {"attacks": "attack", "defenses": "defense"}
LABEL = re.compile(r"(Threat|Idea|Limits|Sources?|Deviations[^:\n]*): ")
ASKED = ("Limits", "Source")
"""What a docstring must say under its label; besides them, Threat or Idea."""

ROLE = re.compile(r":[a-z]+:(?=`)")
LINK = re.compile(r"(?P<code>^```.*?^```|`[^`\n]+`)|\[(?P<text>(?:[^][]|\[[^]]*\])*)\]\((?P<to>[^)\s]+)\)", re.M | re.S)
TABLE = re.compile(r"(?:^\|.*\n)+", re.M)

API = {
    "The shield": ("hailproof.shield.Shield", "hailproof.shield.Screened", "hailproof.shield.ScreenedRow"),
    "Records": ("hailproof.records.Verdict", "hailproof.records.Span", "hailproof.protocols.Sampling"),
    "To write an attack": (
        "hailproof.attacks.base.BaseAttack", "hailproof.protocols.AttackView", "hailproof.protocols.Attack",
    ),
    "To write a defense": (
        "hailproof.defenses.base.BaseDefense", "hailproof.protocols.Evidence", "hailproof.protocols.Defense",
    ),
    "To write a task": ("hailproof.tasks.base.BaseTask", "hailproof.protocols.Task"),
    "To write an engine": ("hailproof.protocols.Engine", "hailproof.protocols.Codec"),
    "Runs and the bench": ("hailproof.campaigns.analysis.load", "hailproof.campaigns.analysis.load_cells",
                           "hailproof.campaigns.analysis.Run"),
    "Errors": ("hailproof.errors",),
}  # fmt: skip


class SiteError(Exception):
    """What has to be mended before the site can be built."""


def names(kind: str) -> dict[str, tuple[str, str]]:
    """Module and class of each built-in attack or defense, by name, read from the registry's source."""
    tree = ast.parse((ROOT / f"src/hailproof/{kind}/__init__.py").read_text(encoding="utf-8"))
    places = next(ast.literal_eval(node) for node in ast.walk(tree) if isinstance(node, ast.Dict))
    return {name: tuple(place.split(":")) for name, place in places.items()}


def docstring(module: str) -> str:
    """What a module says of itself, without the names of roles."""
    path = ROOT / "src" / (module.replace(".", "/") + ".py")
    return ROLE.sub("", ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")


def labeled(text: str) -> dict[str, str]:
    """The parts of a docstring by label, in order; the first line is ``""``, and what follows a label belongs to it.

    Raises:
        SiteError: If a part that is asked for is missing.
    """
    first, _, rest = text.partition("\n")
    parts, label = {"": first}, "Idea"
    for paragraph in rest.strip().split("\n\n"):
        found = LABEL.match(paragraph)
        if found:
            label = re.sub("^Sources$", "Source", found[1])
            paragraph = paragraph[found.end() :]
            paragraph = paragraph[:1].upper() + paragraph[1:]
        parts[label] = f"{parts[label]}\n\n{paragraph}" if label in parts else paragraph
    missing = [part for part in ASKED if part not in parts]
    if "Threat" not in parts and "Idea" not in parts:
        missing.append("Threat or Idea")
    if missing:
        raise SiteError(f"{first!r} lacks {' and '.join(missing)}; begin a paragraph of the docstring with it.")
    return parts


def overview(kind: str, name: str) -> str:
    """What the overview page says of a name: the paragraphs from its bold name to the next one, or its table row."""
    page = (DOCS / f"{kind}.md").read_text(encoding="utf-8")
    found = re.search(rf"^\*\*`{name}`.*?(?=^\*\*`|^\*\*Where|^#|\Z)", page, re.M | re.S)
    return found[0].strip() if found else "\n".join(rows(page, name))


def rows(page: str, name: str) -> Iterator[str]:
    """The rows of tables whose first cell names an attack or defense, each table with its head."""
    for table in TABLE.findall(page):
        head, rule, *body = table.splitlines()
        named = [row for row in body if f"`{name}`" in row.split("|")[1]]
        if named:
            yield "\n".join([head, rule, *named])


def results(name: str) -> str:
    """The measurements that name an attack or defense, each under the page that they stand on."""
    said = []
    for path in sorted(DOCS.glob("*.md")):
        if path.stem in (*KINDS, "concepts", "faults", "mutations"):
            continue
        page = path.read_text(encoding="utf-8")
        title = page.partition("\n")[0].removeprefix("# ")
        tables = list(rows(page, name))
        if tables:
            said.append(f"From [{title}]({path.name}):\n\n" + "\n\n".join(tables))
    return "\n\n".join(said) or "Nothing is measured in the present regime yet; [the bench](bench.md) says how to."


def entry(kind: str, name: str) -> str:
    """The page of an attack or defense, with links as if it stood in ``docs``."""
    module, _class = names(kind)[name]
    parts = labeled(docstring(module))
    title, _, about = parts[""].partition(": ")
    flag = f"--attack {name}" if kind == "attacks" else f"--defense {name}"
    sections = [f"# {title}", f"{about[:1].upper()}{about[1:]}", f"```\nhailproof run {flag}\n```"]
    order = [part for part in parts if part not in ("", "Limits", "Source")]
    sections += [f"## {part}\n\n{parts[part]}" for part in order]
    said = overview(kind, name)
    if said:
        sections.append(f"## Details\n\n{said}")
    sections += [f"## Result\n\n{results(name)}", f"## Limits\n\n{parts['Limits']}", f"## Source\n\n{parts['Source']}"]
    options = "    options:\n      members: []\n      show_root_heading: false\n"
    sections.append(f"## Options\n\n::: {module}.{_class}\n{options}")
    return "\n\n".join(sections)


def api() -> str:
    """The reference of what people import."""
    sections = ["# Python", "What to import, read from the code. Everything else may change without notice."]
    for title, objects in API.items():
        sections += [f"## {title}", *(f"::: {name}" for name in objects)]
    return "\n\n".join(sections) + "\n"


def cli() -> str:
    """The reference of the command line, as typer writes it."""
    command = [sys.executable, "-m", "typer", "hailproof.cli", "utils", "docs", "--name", "hailproof"]
    path = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path})
    page = done.stdout.replace("# `hailproof`", "# Command line", 1)
    about = dict(re.findall(r"^##+ `hailproof ([^`]+)`\n\n(.+)$", page, re.M))
    shortened = re.compile(r"^\* `([\w-]+)`: .+\.\.\.$", re.M)
    return shortened.sub(lambda row: f"* `{row[1]}`: {about.get(row[1], row[0])}", page)


def relinked(text: str, source: Path, target: str, targets: dict[Path, str]) -> str:
    """A page whose links fit the place that it has on the site.

    Args:
        text: The page.
        source: The file that its links are relative to.
        target: Its place on the site.
        targets: Places of all files on the site.

    Raises:
        SiteError: If a link leads to a file that does not exist.
    """
    where = os.environ.get("SOURCE", "")

    def new(found: re.Match[str]) -> str:
        to = found["to"]
        if found["code"] or urlsplit(to).scheme or to.startswith("#"):
            return found[0]
        path, hash_, anchor = to.partition("#")
        file = Path(os.path.normpath(source.parent / path))
        if not file.exists():
            raise SiteError(f"{source.relative_to(ROOT)} links to {to}, which does not exist; mend the link.")
        place = targets.get(file)
        if place:
            return f"[{found['text']}]({posixpath.relpath(place, posixpath.dirname(target) or '.')}{hash_}{anchor})"
        if where:
            return f"[{found['text']}]({where}/{file.relative_to(ROOT).as_posix()}{hash_}{anchor})"
        return found["text"]

    return LINK.sub(new, text)


def stage() -> None:
    """Lays out everything that the site is built from."""
    shutil.rmtree(BUILD, ignore_errors=True)
    files = {path: path.relative_to(DOCS).as_posix() for path in sorted(DOCS.rglob("*")) if path.is_file()}
    files |= {ROOT / name: name for name in BESIDE}
    files.pop(DOCS / "zensical.toml")
    made = {f"{kind}/{name}.md": entry(kind, name) for kind in KINDS for name in names(kind)}
    made |= {"reference/api.md": api(), "reference/cli.md": cli()}
    targets = files | {DOCS / place: place for place in made}
    for path, place in files.items():
        target = PAGES / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".md" or place == "llms.txt":
            target.write_text(relinked(path.read_text(encoding="utf-8"), path, place, targets), encoding="utf-8")
        elif not path.match("archive/**/cells/*"):
            shutil.copyfile(path, target)
    for place, text in made.items():
        target = PAGES / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(relinked(text, DOCS / "index.md", place, targets), encoding="utf-8")
    settings = (DOCS / "zensical.toml").read_text(encoding="utf-8")
    for kind in KINDS:
        lines = "".join(f'    {{ "{name}" = "{kind}/{name}.md" }},\n' for name in names(kind))
        settings = settings.replace(f'    "{kind}/*",\n', lines)
    (BUILD / "zensical.toml").write_text(settings, encoding="utf-8")
    listed = set(re.findall(r'"([\w/-]+\.md)"', json.dumps(tomllib.loads(settings)["project"]["nav"])))
    there = {path.relative_to(PAGES).as_posix() for path in PAGES.rglob("*.md")}
    lost = {page for page in there - listed if not page.startswith("archive/")} | (listed - there)
    if lost:
        raise SiteError(f"{sorted(lost)[0]} is a page or in the navigation, but not both; see docs/zensical.toml.")


class Page(HTMLParser):
    """What a built page refers to, and the anchors that it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Takes up one tag."""
        has = {name: value or "" for name, value in attrs}
        self.anchors |= {has[name] for name in ("id", "name") if name in has}
        if tag == "a" and "href" in has:
            self.links.append(has["href"])
        elif tag == "link" and has.get("rel") not in ("canonical", "prev", "next", "alternate"):
            self.loads.append(has.get("href", ""))
        elif {"mermaid", "glightbox", "pyodide"} & set(has.get("class", "").split()):
            self.loads.append(f"https:// for the class {has['class']}")
        elif tag in ("script", "img", "iframe", "source", "video", "audio", "embed") and "src" in has:
            self.loads.append(has["src"])


def check() -> None:
    """Follows every reference of the built site.

    Raises:
        SiteError: If something would be fetched from elsewhere, or a link leads nowhere.
    """
    pages = {path: Page(path) for path in sorted(SITE.rglob("*.html")) if "archive" not in path.parts}
    anchors = {path: page.anchors for path, page in pages.items()}
    for path, page in pages.items():
        for address in page.links + page.loads:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if address in page.loads and parts.scheme != "data":
                    raise SiteError(f"{path.relative_to(SITE)} loads {address}; ship it, or leave it out.")
                continue
            target = path if not parts.path else Path(os.path.normpath(path.parent / unquote(parts.path)))
            if path.name == "404.html" and parts.path.startswith("/"):
                target = SITE / parts.path.lstrip("/")
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                raise SiteError(f"{path.relative_to(SITE)} links to {address}, which does not exist; mend the link.")
            if parts.fragment and target in anchors and unquote(parts.fragment) not in anchors[target] | {"__top"}:
                raise SiteError(f"{path.relative_to(SITE)} links to {address}, which has no such heading.")
    for path in SITE.rglob("*.css"):
        found = re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)\"']+", path.read_text(encoding="utf-8"))
        if found:
            raise SiteError(f"{path.relative_to(SITE)} loads {found[0]}; ship it, or leave it out.")


def main() -> None:
    """Builds and checks the site; what is wrong is one sentence and exit status 1."""
    try:
        stage()
        command = [sys.executable, "-m", "zensical", "build", "--strict", "-f", str(BUILD / "zensical.toml")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=BUILD)
        if done.returncode:
            raise SiteError(f"The site does not build:\n{done.stdout}{done.stderr}")
        for page in sorted(PAGES.rglob("*.md")):  # for those who read llms.txt
            shutil.copyfile(page, SITE / page.relative_to(PAGES))
        check()
    except SiteError as error:
        raise SystemExit(f"docs: {error}") from None
    pages = sum(1 for _ in SITE.rglob("*.html"))
    print(f"docs: {pages} pages in {(SITE / 'index.html').relative_to(ROOT)}")


if __name__ == "__main__":
    main()
