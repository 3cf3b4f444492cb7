"""Whether the hub can have a model, asked once before its library asks again and again."""

from difflib import get_close_matches

from huggingface_hub import constants, get_session, hf_hub_url, try_to_load_from_cache

from hailproof.errors import ModelError
from hailproof.policies.checks import first_line
from hailproof.policies.fetched import FETCHABLE
from hailproof.policies.shipped import shipped_models

SECONDS = 10.0
"""For the hub to say anything at all."""
_FILES = ("config.json", "adapter_config.json")


def check_hub(name: str) -> None:
    """Makes sure that the hub can be asked for a model that lies in no folder.

    Raises:
        ModelError: If it cannot be reached and nothing of the model was fetched before, or it has no such model.
    """
    if constants.HF_HUB_OFFLINE or any(isinstance(try_to_load_from_cache(name, file), str) for file in _FILES):
        return
    try:
        answers = [get_session().head(hf_hub_url(name, file), timeout=SECONDS).status_code for file in _FILES]
    except Exception as error:  # the library may use one HTTP client or another, each with errors of its own
        raise ModelError(
            f"Model '{name}' is no shipped or fetched one and no folder{_meant(name)}, and the hub cannot be asked for "
            f"it ({first_line(error)}); check the name, or the network."
        ) from error
    if all(status in (401, 404) for status in answers):
        raise ModelError(
            f"Model '{name}' is no shipped or fetched one and no folder{_meant(name)}, and it is not on the hub; check "
            "the name, or log in if it is private."
        )


def _meant(name: str) -> str:
    close = get_close_matches(name, [*shipped_models(), *FETCHABLE], 1)
    return f" (is '{close[0]}' meant?)" if close else ""
