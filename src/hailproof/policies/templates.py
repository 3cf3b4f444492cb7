"""Chat templates: a prompt as the template writes it, and the token that the template ends an answer with."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from hailproof.errors import ModelError

SYSTEM, USER, ANSWER = "\ue000system\ue001", "\ue000user\ue001", "\ue000answer\ue001"
"""Stand for the texts while a chat template is looked at; private-use characters that no template writes."""

READS_SYSTEM = "hailproof: the system text is read, not shown"
"""A template with this comment makes of the texts what its model was trained on, as those of the shipped models do."""

TODAY = {"d": "26", "m": "07", "Y": "2024", "y": "24", "b": "Jul", "B": "July", "a": "Fri", "A": "Friday"}
"""The date that templates get which ask for today's: a prompt must not depend on the clock. It is Llama 3's default."""

_CLOCK = "{% macro strftime_now(format) %}{{ format" + "".join(
    f" | replace('%{letter}', '{value}')" for letter, value in TODAY.items()
) + " }}{% endmacro %}"  # fmt: skip
"""Takes the place of the library's function of this name."""


@dataclass(frozen=True, slots=True)
class _Form:
    """How messages are given to a template.

    Attributes:
        apart: Whether the system text is a message of its own; else it stands before the user's text.
        parts: Whether a content is a list of parts; else it is a text.
    """

    apart: bool
    parts: bool

    def messages(self, system: str, user: str, answer: str | None = None) -> list[dict[str, object]]:
        """A conversation in this form."""
        turns = [("system", system)] if self.apart else []
        turns += [("user", user if self.apart or not system else f"{system}\n\n{user}")]
        turns += [("assistant", answer)] if answer is not None else []
        return [
            {"role": role, "content": [{"type": "text", "text": text}] if self.parts else text} for role, text in turns
        ]


class ChatTemplate:
    """A tokenizer's chat template, given messages in the first form in which it shows each text exactly once.

    Args:
        name: What messages call the model.
        tokenizer: A tokenizer with a chat template.

    Raises:
        ModelError: If the template fails, shows a text not once in every form, or writes the same prompt differently.
    """

    def __init__(self, name: str, tokenizer: PreTrainedTokenizerBase) -> None:
        self.name = name
        self.tokenizer = tokenizer
        source = str(tokenizer.get_chat_template())
        self._source = _CLOCK + source if "strftime_now" in source else source
        self._reads_system = READS_SYSTEM in self._source
        self._form = self._found()
        if self.write(SYSTEM, USER) != self.write(SYSTEM, USER):
            raise ModelError(f"The chat template of {name} writes the same prompt differently each time; mend it.")

    def _found(self) -> _Form:
        reasons: list[str] = []
        for form in (_Form(apart, parts) for apart in (True, False) for parts in (False, True)):
            try:
                text = self._applied(form.messages(SYSTEM, USER), prompts=True)
            except Exception as error:  # templates are programs: they fail by any type, wrong ones of ours included
                reasons.append(f"fails ({error})")
                continue
            if text.count(USER) == 1 and (self._reads_system or text.count(SYSTEM) == 1):
                return form
            wrong = "user's" if text.count(USER) != 1 else "system"
            reasons.append(f"hides or repeats the {wrong} text")
        reason = next((each for each in reasons if each.startswith("hides")), reasons[0])
        raise ModelError(f"The chat template of {self.name} {reason}; mend it.")

    def _applied(self, messages: Sequence[dict[str, object]], prompts: bool) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                list(messages),  # pyright: ignore[reportArgumentType] - contents may be lists of parts
                chat_template=self._source,
                tokenize=False,
                add_generation_prompt=prompts,
            )
        )

    def write(self, system: str, user: str) -> str:
        """A prompt as the template writes it, up to where the answer begins.

        Raises:
            ModelError: If the template fails, or does not show the whole of both texts.
        """
        try:
            text = self._applied(self._form.messages(system, user), prompts=True)
        except Exception as error:  # templates are programs: they fail by any type
            raise ModelError(f"The chat template of {self.name} fails ({error}); mend it.") from error
        for kind, part in () if self._reads_system else (("user's", user), ("system", system)):
            if part.strip() not in text:
                raise ModelError(
                    f"The chat template of {self.name} cuts or changes the {kind} text {part.strip():.60}; mend it."
                )
        return text

    def end_id(self, ends: Sequence[int]) -> int | None:
        """The token that the template writes right after an answer; ``None`` if it writes none.

        Args:
            ends: Ids that are known to end an answer, besides the tokens that were added to the vocabulary.
        """
        try:
            text = self._applied(self._form.messages(SYSTEM, USER, ANSWER), prompts=False)
        except Exception:  # a template that takes no answers says nothing of how they end
            return None
        after = text.rpartition(ANSWER)[2] if ANSWER in text else ""
        ids = self.tokenizer(after, add_special_tokens=False)["input_ids"]
        first = next((token for token in ids if str(self.tokenizer.decode([token])).strip()), None)
        known = {*ends, *self.tokenizer.added_tokens_decoder, *self.tokenizer.all_special_ids}
        return first if first in known else None
