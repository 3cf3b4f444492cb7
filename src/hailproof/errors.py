"""One error type per boundary; the message is one sentence that says what is wrong and what to do."""


class HailproofError(Exception):
    """Base of every error that is the user's or a peer's to mend; the command line prints it without a traceback."""


class ConfigError(HailproofError):
    """A configuration, option or name is wrong."""


class MismatchError(ConfigError):
    """A defense has nothing to do in the swarm, or on the task, that is configured beside it."""


class DataError(HailproofError):
    """A data file is missing, malformed, or lacks what the task needs."""


class ModelError(HailproofError):
    """A model or tokenizer does not load or does not fit its use."""


class RunError(HailproofError):
    """A run folder is in use, damaged, or does not fit the request."""


class RunBusyError(RunError):
    """Another process plays the run; it can be gone on with, or read, once that one ends."""


class PeerError(HailproofError):
    """What a peer sent is refused.

    Args:
        reason: One of :data:`hailproof.wire.REASONS`, to be counted.
        sentence: What is wrong with it.
    """

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class StoreError(HailproofError):
    """An object store cannot be reached, or does not do what is asked."""
