"""``hailproof status``: what nodes of this machine say of themselves, as a table or as a page that updates itself."""

import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Group
from rich.table import Table
from rich.text import Text

from hailproof.errors import ConfigError, RunError
from hailproof.parsing import printable
from hailproof.runs.files import read_json
from hailproof.service.records import STATUS

PAGE_ONLY = ("weights", "learning")
"""What a terminal has no room for: the answer whether a node learns stands below the table."""
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\]")
SILENT = 120.0
"""Seconds after which a status that has not changed is shown as old."""


def find_status(paths: Sequence[Path]) -> list[Path]:
    """The status files of nodes.

    Args:
        paths: Folders of nodes, or folders that hold them.

    Raises:
        RunError: If a path holds none.
    """
    found: list[Path] = []
    for path in paths:
        here = [path / STATUS] if (path / STATUS).is_file() else sorted(path.glob(f"*/{STATUS}"))
        if not here:
            raise RunError(f"{path} is no folder of a node (it has no {STATUS}); give the folder that its file names.")
        found += here
    return list(dict.fromkeys(found))


def read_status(files: Sequence[Path]) -> list[dict[str, Any]]:
    """What the nodes say, in the order of the files; one that cannot be read says nothing."""
    found = []
    for path in files:
        try:
            status = read_json(path, "wait for the node to write it anew", RunError)
        except RunError:
            status = None
        found.append({"folder": path.parent.name, **(status if isinstance(status, dict) else {})})
    return found


def rows_of(statuses: Sequence[dict[str, Any]], now: float | None = None) -> list[dict[str, str]]:
    """What is shown of each node, as texts; a dash is what is not known."""
    return [_row(status, time.time() if now is None else now) for status in statuses]


def _row(status: dict[str, Any], now: float) -> dict[str, str]:
    last = status.get("last") or {}
    caught = {
        sender: counts["reject"] for sender, counts in last.get("senders", {}).items() if counts.get("reject")
    }
    age = now - status.get("at", 0)
    reward, equal, apart = last.get("reward"), status.get("equal"), status.get("apart")
    phase = str(status.get("phase", "-"))
    return {
        "node": str(status.get("node", status["folder"])),
        "round": f"{status.get('round', '-')}/{status.get('rounds', '-')}",
        "doing": phase if age < SILENT or phase in ("stopped", "finished") else f"silent for {age:.0f} s",
        "learning": _learning(status.get("learning")),
        "reward": "-" if reward is None else f"{reward:.3f}",
        "sent": ", ".join(map(str, last["sent"])) if last.get("sent") else "-",
        "caught": ", ".join(f"{sender}: {count}" for sender, count in caught.items()) or "-",
        "refused": ", ".join(f"{count} {reason}" for reason, count in last.get("refused", {}).items()) or "-",
        "equal": {True: "yes", False: "no", None: "-"}[equal],
        "apart": ", ".join(map(str, apart)) if isinstance(apart, list) and apart else str(apart or "-"),
        "weights": (last.get("weights") or "-")[:8],
    }


def _learning(answer: Any) -> str:
    """The word of the node's answer; the evidence is a line of its own."""
    return answer.partition(":")[0] if isinstance(answer, str) else "-"


def table_of(statuses: Sequence[dict[str, Any]]) -> Table:
    """The table of some nodes; the page has more columns, for which a terminal has no room."""
    rows = [{name: text for name, text in row.items() if name not in PAGE_ONLY} for row in rows_of(statuses)]
    table = Table(box=SIMPLE, pad_edge=False)
    for name in rows[0] if rows else ():
        table.add_column(name, overflow="fold", min_width=max(len(name), 8 if name == "doing" else 0))
    for row in rows:
        table.add_row(*row.values())
    return table


def picture_of(statuses: Sequence[dict[str, Any]]) -> Group:
    """The table of some nodes, and for each whether it learns and what that rests on."""
    answers = [
        Text(f"Is node {row['node']} learning? {printable(status['learning'], 400)}")
        for row, status in zip(rows_of(statuses), statuses, strict=True)
        if isinstance(status.get("learning"), str)
    ]
    return Group(table_of(statuses), *answers)


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>hailproof status</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color: #222; background: #fff; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .3rem .8rem; border-bottom: 1px solid #ddd; }
td.no { color: #b00020; font-weight: 600; } #state { color: #666; }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #111; } th, td { border-color: #333; } }
</style></head>
<body><h1>hailproof status</h1><p id="state" role="status">waiting for the first look</p>
<table><thead><tr id="head"></tr></thead><tbody id="rows"></tbody></table>
<script>
const source = new EventSource("events");
const said = document.getElementById("state");
source.onmessage = (message) => {
  const rows = JSON.parse(message.data);
  const cell = (kind, text) => { const made = document.createElement(kind); made.textContent = text; return made; };
  document.getElementById("head").replaceChildren(...Object.keys(rows[0] || {}).map((name) => cell("th", name)));
  document.getElementById("rows").replaceChildren(...rows.map((row) => {
    const line = document.createElement("tr");
    for (const [name, text] of Object.entries(row)) {
      const made = cell("td", text);
      if (name === "equal" && text === "no") made.className = "no";
      line.append(made);
    }
    return line;
  }));
  said.textContent = "updated " + new Date().toLocaleTimeString();
};
source.onerror = () => { said.textContent = "the status server does not answer; trying again"; };
</script></body></html>
"""
"""Texts of nodes go into the page as text, never as HTML."""


_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def hosts_of(address: str, named: Sequence[str]) -> tuple[str, ...]:
    """The names under which the page may be asked for.

    A web page elsewhere can have a reader's browser ask this server under a name of its own, and read the answer; so a
    server answers under the names that its owner knows, and under no others.

    Args:
        address: The address that is listened at.
        named: Further names, without a port.

    Raises:
        ConfigError: If a name is none, or all addresses are listened at and none is named.
    """
    for name in named:
        if not _HOST.fullmatch(name):
            raise ConfigError(f"--allow-host {name!r:.80} names no host; give a name or address without port or '*'.")
    if address in ("127.0.0.1", "localhost", "::1"):
        return (*_LOOPBACK, *named)
    everywhere = address in ("0.0.0.0", "::", "")
    if everywhere and not named:
        raise ConfigError(
            f"At '{address}' the page can be reached under names that only you know; give each with --allow-host, or "
            "one address with --host."
        )
    own = f"[{address}]" if ":" in address else address
    return (*_LOOPBACK, *(() if everywhere else (own,)), *named)


def status_app(files: Sequence[Path], every: float = 1.0, hosts: Sequence[str] = ()) -> Any:
    """The application that serves the page.

    Args:
        files: Status files of nodes.
        every: Seconds between two looks.
        hosts: Names under which it may be asked for; others are refused, so that no web page elsewhere can read it.
    """
    import asyncio
    from collections.abc import AsyncIterator

    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, Response, StreamingResponse
    from starlette.routing import Route

    async def page(request: Request) -> Response:
        policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
        return HTMLResponse(PAGE, headers={"Content-Security-Policy": policy})

    async def events(request: Request) -> Response:
        async def stream() -> AsyncIterator[str]:
            while True:
                rows = rows_of(await run_in_threadpool(read_status, files))
                yield f"data: {json.dumps(rows)}\n\n"
                await asyncio.sleep(every)

        return StreamingResponse(stream(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    named = list(hosts) or [*_LOOPBACK]
    return Starlette(
        routes=[Route("/", page), Route("/events", events)],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=named)],
    )
