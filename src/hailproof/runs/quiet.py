"""Keeps progress bars and advice of libraries out of our own output."""

import os


def quiet_libraries() -> None:
    """Silences what ``transformers`` and ``tokenizers`` print beside errors; call before models load."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
