"""Prometheus metrics of a node, made from its status when they are asked for."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hailproof.errors import ConfigError


class StatusCollector(Collector):
    """Turns a node's status into metrics; what is unknown has none.

    Args:
        status: Gives the status.
    """

    def __init__(self, status: Callable[[], Mapping[str, Any]]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        status = self._status()
        last = status.get("last") or {}
        gauges = {
            "round": ("Last finished round", status.get("round")),
            "reward": ("Mean reward of what was admitted", last.get("reward")),
            "completion_tokens": ("Mean tokens of a completion", last.get("completion_tokens")),
            "equal": ("1 if this node holds what the majority holds", _number(last.get("equal"))),
            "senders": ("Members whose batch counted", len(last["sent"]) if "sent" in last else None),
            "suspended": ("Members without slots in the next round", len(last.get("suspended", ())) if last else None),
            "stalled_seconds": ("Waited for a quorum beyond the deadline", last.get("stalled")),
        }
        for name, (about, value) in gauges.items():
            if value is not None:
                yield GaugeMetricFamily(f"hailproof_{name}", about, value=value)
        yield _labelled(
            GaugeMetricFamily, "stage_seconds", "Seconds of the last round", ("stage",), last.get("seconds", {})
        )
        counted = {
            (sender, decision): count
            for sender, counts in last.get("senders", {}).items()
            for decision, count in counts.items()
        }
        decided = GaugeMetricFamily(
            "hailproof_completions", "Completions of the last round", labels=("sender", "decision")
        )
        for labels, count in counted.items():
            decided.add_metric(labels, count)
        yield decided
        yield _labelled(
            CounterMetricFamily, "refused", "Envelopes refused since the start", ("reason",), last.get("refused", {})
        )
        yield _labelled(
            CounterMetricFamily, "bytes", "Bytes of envelopes since the start", ("direction",), last.get("bytes", {})
        )
        for name, key in (("mended", "mended"), ("store_failures", "store_failures")):
            if key in last:
                yield CounterMetricFamily(f"hailproof_{name}", f"{name.replace('_', ' ')} since the start", last[key])


def _labelled(kind: Any, name: str, about: str, labels: tuple[str, ...], values: Mapping[str, float]) -> Metric:
    family = kind(f"hailproof_{name}", about, labels=labels)
    for label, value in values.items():
        family.add_metric((label,), value)
    return family


def _number(flag: bool | None) -> float | None:
    return None if flag is None else float(flag)


def serve(status: Callable[[], Mapping[str, Any]], host: str, port: int) -> Callable[[], None]:
    """Serves metrics from a thread of its own; returns what ends it.

    Raises:
        ConfigError: If the address cannot be used.
    """
    registry = CollectorRegistry()
    registry.register(StatusCollector(status))
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise ConfigError(
            f"Metrics cannot be served at {host}:{port} ({error.strerror}); set metrics_port to a free one, or to 0."
        ) from error

    def stop() -> None:
        server.shutdown()
        thread.join()
        server.server_close()

    return stop
