"""The commands of real swarms: ``keygen``, ``node``, ``relay`` and ``status``."""

import signal
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

console = Console(highlight=False, markup=False)

LOG = "node.log"
"""Where a node's log lines go while a live view has the terminal."""


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    for command in (keygen, node, relay, status):
        app.command()(command)


def _say(text: str) -> None:
    console.print(text, soft_wrap=True)


def keygen(path: Annotated[Path, typer.Argument(help="The key file to write; its public part gets .pub.")]) -> None:
    """Make the key of a node; an existing one is never overwritten."""
    from hailproof.identity import Identity

    identity = Identity.new()
    public = identity.save(path)
    _say(f"Private key: {path} (keep it; whoever has it is this node)")
    _say(f"Public key:  {identity.name} (also in {public}; every node lists it among the members)")


def node(
    config: Annotated[Path, typer.Argument(help="The TOML file of this node.")],
    check: Annotated[bool, typer.Option("--check", help="Only build everything and show the swarm's id.")] = False,
    live: Annotated[
        bool, typer.Option("--live", help="Show what each sender sends and keeps, and whether this node learns.")
    ] = False,
) -> None:
    """Take part in a real swarm, until its last round or until it is stopped."""
    from hailproof.runs.quiet import quiet_libraries
    from hailproof.service.config import load_node

    files = load_node(config)
    quiet_libraries()
    from hailproof.service.node import NodeService
    from hailproof.tracking.live import LiveView
    from hailproof.tracking.watch import watching

    doing: list[Any] = []  # the node, once it is built
    view = LiveView(files.swarm.run_config().rounds, console, lambda: _doing(*doing)) if live and not check else None
    with watching(files.node.track, files.path(files.node.folder), view, _warn) as watch:
        service = NodeService(files, watch=watch)
        doing.append(service)
        if view is not None and console.is_terminal:
            service.log = service.log.into(service.folder / LOG)  # it would run through the picture
        last = _lived(service, files, check)
    if last is not None and last < service.rounds:
        _say(f"Stopped after round {last} of {service.rounds}; go on with: hailproof node {config}")


def _lived(service: Any, files: Any, check: bool) -> int | None:
    """Runs a node until its end; ``None`` if it was only to be checked."""
    if check:
        who = service.membership if service.membership.member else "a stranger that would ask to join"
        _say(f"Swarm {service.swarm_id}: this is {who}; {len(files.swarm.members)} members are listed.")
        if files.swarm.panel:
            _say(_panel_said(files.swarm.most_members, files.swarm.panel))
        if service.draws_matter:
            _say(
                "Who holds the same weights can compute others' draws before it sends, and so make an honest node look "
                "guilty to 'influence'; set draws = \"private\" in the swarm's file."
            )
        service.close()
        return None
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _stop(service))
    stop_metrics = None
    if files.node.metrics_port:
        from hailproof.service.metrics import serve

        stop_metrics = serve(lambda: service.records.status, files.node.metrics_host, files.node.metrics_port)
    try:
        return service.run()
    finally:
        if stop_metrics:
            stop_metrics()


def _panel_said(members: int, size: int) -> str:
    """How likely a panel is captured, if a third of the members that there may ever be is malicious."""
    from hailproof.exchange.panels import captured

    risk = captured(members, members // 3, size)
    return (
        f"Each round is decided by {size} of {members} members; if {members // 3} were malicious, they would come to "
        f"decide one round in {1 / risk:.3g}, and from then on all."
        if risk
        else f"Each round is decided by {size} of {members} members; {members // 3} could decide none."
    )


def _doing(service: Any = None) -> str:
    """What a node does just now."""
    status = service.records.status if service is not None else {}
    return f"round {status['round']}: {status['phase']}" if {"round", "phase"} <= {*status} else "begins"


def _warn(sentence: str) -> None:
    Console(stderr=True, highlight=False, markup=False).print(f"hailproof: {sentence}", soft_wrap=True)


def _stop(service: Any) -> None:
    """Stops at the next wait; a second signal stops at once, which costs at most the round that was begun."""
    if service.stopping.is_set():
        raise KeyboardInterrupt
    service.stopping.set()


def relay(
    swarm: Annotated[list[Path], typer.Argument(help="The files that the nodes share; their members may send.")],
    folder: Annotated[Path, typer.Option(help="Where envelopes are kept.")] = Path("relay"),
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen at.", min=1, max=65535)] = 8470,
    days: Annotated[float, typer.Option(help="Days after which an envelope is removed.", min=0.01)] = 7.0,
    megabytes_per_hour: Annotated[float, typer.Option(help="That one key may send.", min=0.1)] = 2048.0,
    requests_per_second: Annotated[float, typer.Option(help="Of one address, in the mean.", min=0.1)] = 200.0,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate, to serve HTTPS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key.")] = None,
    swarm_id: Annotated[
        list[str] | None,
        typer.Option(help="The id of each file's swarm, as 'hailproof node --check' shows it; else it is worked out."),
    ] = None,
) -> None:
    """Keep envelopes for swarms whose nodes cannot reach each other; it needs no trust."""
    from hailproof.errors import ConfigError
    from hailproof.service.config import load_swarm

    files = [load_swarm(path) for path in swarm]
    for file in files:
        file.check_keys()
    if (tls_cert is None) != (tls_key is None):
        raise ConfigError("HTTPS needs a certificate and its key; give both --tls-cert and --tls-key.")
    try:
        import uvicorn

        from hailproof.service.patience import CONNECTIONS, Patient
        from hailproof.service.relay import Quotas, Relay, keeping_up, pruning
    except ImportError as error:
        raise ConfigError("The relay needs starlette and uvicorn; install 'hailproof[swarm]'.") from error
    from hailproof.exchange.stores import FolderStore
    from hailproof.service.relay_swarms import gates_of, ids_of, standings_of

    ids = ids_of(files, swarm_id or ())
    store, gates = FolderStore(folder), gates_of(files, ids)
    standings = standings_of(store, folder, files, ids, gates)
    quotas = Quotas(bytes_per_hour=megabytes_per_hour * 1e6, requests_per_second=requests_per_second)
    keys = {key for file in files for key in file.keys}
    _say(f"Relay for {', '.join(ids)} ({len(keys)} keys), kept in {folder}")
    _say(f"It listens at http{'s' if tls_cert else ''}://{host}:{port}")
    with pruning(store, days * 86400), keeping_up(standings):
        uvicorn.run(
            Relay(store, *gates, quotas=quotas).app, host=host, port=port, log_level="warning", ws="none",
            limit_concurrency=CONNECTIONS, http=Patient, timeout_keep_alive=30, h11_max_incomplete_event_size=16384,
            ssl_certfile=tls_cert and str(tls_cert), ssl_keyfile=tls_key and str(tls_key),
        )  # fmt: skip


def status(
    folders: Annotated[list[Path], typer.Argument(help="Folders of nodes, or a folder that holds them.")],
    once: Annotated[bool, typer.Option("--once", help="Show the table once.")] = False,
    web: Annotated[bool, typer.Option("--web", help="Serve a page that updates itself.")] = False,
    host: Annotated[str, typer.Option(help="With --web: the address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="With --web: the port.", min=1, max=65535)] = 8471,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="With --web: a name under which the page may be asked for; repeatable.")
    ] = None,
) -> None:
    """Show who sent, who was caught, whether nodes learn, and whether they are equal."""
    from hailproof.service.status import find_status, hosts_of, picture_of, read_status, status_app

    files = find_status(folders)
    if web:
        import uvicorn

        app = status_app(files, hosts=hosts_of(host, allow_host or ()))
        _say(f"Status: http://{f'[{host}]' if ':' in host else host}:{port}/")
        uvicorn.run(app, host=host, port=port, log_level="warning", ws="none", timeout_graceful_shutdown=1)
        return
    if once or not console.is_terminal:
        console.print(picture_of(read_status(files)))
        return
    import time

    from rich.live import Live

    with Live(picture_of(read_status(files)), console=console, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(1)
                live.update(picture_of(read_status(files)), refresh=True)
        except KeyboardInterrupt:
            return
