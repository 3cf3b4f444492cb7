"""An outside hook that says which strangers may join: somebody's own function, asked aside, so that no round waits."""

import importlib
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, cast, final

from hailproof.errors import ConfigError

REMEMBERED = 1024
"""Keys whose answer is remembered; the oldest are forgotten first."""
WAITING = 64
"""Keys that wait for an answer; others are asked when they ask again."""

Hook = Callable[[bytes, Mapping[str, Any]], bool]


def load_hook(path: str) -> Hook:
    """Imports a hook.

    Args:
        path: ``module:function``.

    Raises:
        ConfigError: If there is no such function.
    """
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # what a module raises that is imported is its own matter
        raise ConfigError(
            f"The hook admission.hook = '{path}' cannot be imported ({type(error).__name__}: {error!s:.200}); write "
            "module:function, and install the module on every node."
        ) from error
    if not callable(found):
        raise ConfigError(f"The hook admission.hook = '{path}' is no function; write module:function.")
    return cast(Hook, found)


@final
class Doorkeeper:
    """Asks a hook about strangers, one after the other in a thread of its own.

    Whoever was not answered for yet is not let in yet, so a hook that is slow, or hangs, holds up nobody but newcomers.
    A "yes" stands; a "no" is asked again when the stranger asks again.

    Args:
        hook: Called with the 32 bytes of a public key, and what ``genesis`` holds; only ``True`` lets in.
        genesis: What all nodes know of the swarm since before its first round.
        failed: Called with a sentence when the hook raises.
    """

    def __init__(self, hook: Hook, genesis: Mapping[str, Any], failed: Callable[[str], None]) -> None:
        self._hook, self._genesis, self._failed = hook, genesis, failed
        self._answers: OrderedDict[bytes, bool] = OrderedDict()
        self._waiting: queue.Queue[bytes] = queue.Queue(WAITING)
        self._asked: set[bytes] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._work, daemon=True).start()

    def __call__(self, key: bytes) -> bool:
        """Whether the hook has said that a stranger may join; asks it if it has not."""
        with self._lock:
            answer = self._answers.get(key)
            if answer is not None:
                if not answer:
                    del self._answers[key]
                return answer
            if key not in self._asked:
                try:
                    self._waiting.put_nowait(key)
                except queue.Full:
                    return False
                self._asked.add(key)
        return False

    def _work(self) -> None:
        while True:
            key = self._waiting.get()
            try:
                answer = self._hook(key, self._genesis) is True
            except BaseException as error:  # it is somebody's own, which may even try to end the process
                self._failed(f"The hook failed for {key.hex()} ({type(error).__name__}: {error!s:.200}).")
                answer = False
            with self._lock:
                self._asked.discard(key)
                self._answers[key] = answer
                while len(self._answers) > REMEMBERED:
                    self._answers.popitem(last=False)
