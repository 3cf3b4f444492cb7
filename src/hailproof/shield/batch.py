"""One call of a shield: what a trainer hands over becomes rows, each readable, or with a verdict that says why not."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hailproof.errors import ConfigError
from hailproof.parsing import encodable
from hailproof.protocols import Codec
from hailproof.records import Verdict
from hailproof.shield.results import Sender
from hailproof.shield.rows import Asked, Text, answer_of, column, ids_of, reward_of, sender_of

if TYPE_CHECKING:
    from hailproof.policies.causal_lm import CausalLM

NAME = "shield"
"""Whose verdicts those are that no defense has to be asked for."""

MAX_CHARACTERS = 1_000_000
"""A longer completion is not read."""

CHARACTERS_PER_TOKEN = 64
"""A text of more characters for each token that the model reads is not tokenized."""

NO_REWARD = Verdict(NAME, "abstain", "no reward was given")


@dataclass(frozen=True, slots=True)
class RowRead:
    """One completion as it was read.

    Attributes:
        text: What it says.
        token_ids: Its tokens; ``None`` if they are not known.
        prompt_ids: The tokens of its prompt; empty if they are not needed.
        finished: Whether it ended by itself.
        fault: Why it cannot be screened; empty if it can.
    """

    text: str
    token_ids: tuple[int, ...] | None
    prompt_ids: tuple[int, ...] = ()
    finished: bool = True
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads completions with whatever a shield has.

    Attributes:
        policy: The model, if there is one.
        codec: The tokenizer, if there is one.
        needs_tokens: Whether a defense looks at tokens.
        multi_turn: Whether end tokens may stand inside a completion.
        max_characters: A longer text is not read.
    """

    policy: "CausalLM | None"
    codec: Codec | None
    needs_tokens: bool
    multi_turn: bool
    max_characters: int

    def read(
        self, text: str | None, ids: tuple[int, ...] | None, prompt: tuple[int, ...], finished: bool | None
    ) -> RowRead:
        """Reads a completion from its ids, if a tokenizer can, else from its text.

        Args:
            text: The text as it was given.
            ids: The ids as they were given.
            prompt: Ids of the prompt.
            finished: Whether it ended by itself, if that was given.
        """
        codec = self.codec
        fault = self._fault_of_size(text, ids, prompt)
        if fault:
            return RowRead(text or "", None, prompt, True, fault)
        if ids is not None:
            fault = self._fault_of(ids)
            if fault or codec is None:
                row = RowRead(text or "", ids, prompt, finished is not False, fault)
            else:
                ended = ids[-1] in codec.end_ids
                row = RowRead(codec.decode(ids[:-1] if ended else ids), ids, prompt, ended)
        else:
            row = RowRead(text or "", None, prompt, finished is not False)
        fault = row.fault or self._fault_in(row.text)
        if not fault and codec is not None and row.token_ids is None:
            body, end = codec.encode(row.text), (codec.end_ids[0],) if row.finished else ()
            row = RowRead(codec.decode(body), (*body, *end) or (codec.end_ids[0],), prompt, row.finished)
        fault = fault or self._fault_of_size(None, row.token_ids, prompt)
        return RowRead(row.text, row.token_ids, row.prompt_ids, row.finished, fault)

    def _fault_of_size(self, text: str | None, ids: tuple[int, ...] | None, prompt: tuple[int, ...]) -> str:
        """Why the model cannot read so much, found before any of it is tokenized or decoded; empty if it can."""
        if self.policy is None or not self.needs_tokens:
            return ""
        context = self.policy.engine.context
        if not prompt:
            return "its prompt has no tokens, or cannot be written"
        if not _are_tokens(self.policy.codec, prompt):
            return "its prompt holds ids that are no tokens of the vocabulary"
        if ids is not None and len(ids) + len(prompt) > context:
            return f"{len(ids) + len(prompt)} tokens with its prompt, where the model reads {context}"
        if ids is None and text is not None and len(text) > CHARACTERS_PER_TOKEN * context:
            return f"{len(text)} characters, where the model reads {context} tokens"
        return ""

    def _fault_of(self, ids: tuple[int, ...]) -> str:
        """Why nobody can have drawn these ids; empty if somebody can."""
        if not ids:
            return "it has no tokens"
        if len(ids) > self.max_characters:
            return f"{len(ids)} tokens, over the limit of {self.max_characters} characters"
        codec = self.codec
        if codec is None:
            return "" if min(ids) >= 0 else f"{min(ids)} is no token"
        if not _are_tokens(codec, ids):
            return "it holds ids that are no tokens of the vocabulary"
        if not self.multi_turn and any(token in codec.end_ids for token in ids[:-1]):
            return "it goes on after its end token"
        return ""

    def _fault_in(self, text: str) -> str:
        if len(text) > self.max_characters:
            return f"{len(text)} characters, over the limit of {self.max_characters}"
        return "it holds lone surrogates, which no model writes" if encodable(text) != text else ""


def _are_tokens(codec: Codec, ids: tuple[int, ...]) -> bool:
    known = getattr(codec, "known", None)
    return min(ids) >= 0 and max(ids) < 2**31 and (known is None or known.issuperset(ids))


@dataclass(frozen=True, slots=True)
class Batch:
    """N completions as a shield reads them.

    Attributes:
        rows: ``[N]`` the completions.
        prompts: ``[N]`` what was asked.
        rewards: ``[N]`` the receiver's own rewards; ``None`` where there is none.
        senders: ``[N]`` who sent each; ``None`` if that is not known.
        groups: ``[N]`` labels of the groups; ``None`` if they are not known.
        keys: ``[N]`` keys of the slots; ``None`` if they are not known.
        given_ids: Whether token ids were given.
    """

    rows: list[RowRead]
    prompts: list[Asked]
    rewards: list[float | None]
    senders: list[Sender] | None
    groups: list[str] | None
    keys: list[int] | None
    given_ids: bool

    @classmethod
    def of(
        cls,
        reader: Reader,
        *,
        completions: Iterable[Text] | None,
        completion_ids: Iterable[Sequence[int]] | None,
        prompts: Iterable[Text] | None,
        prompt_ids: Iterable[Sequence[int]] | None,
        rewards: Iterable[float | None] | None,
        senders: Iterable[Sender] | None,
        groups: Iterable[Sender] | None,
        slot_keys: Iterable[int] | None,
        finished: Iterable[bool] | None,
    ) -> "Batch":
        """Checks and reads what a trainer hands over.

        Raises:
            ConfigError: If it does not fit together.
        """
        if completions is None and (completion_ids is None or reader.codec is None):
            raise ConfigError("There is nothing to read; give completions, or completion_ids and a tokenizer.")
        given = completions if completions is not None else completion_ids
        assert given is not None
        first = column("completions" if completions is not None else "completion_ids", given)
        count = len(first)

        def optional(name: str, values: Iterable[Any] | None, read: Any) -> list[Any] | None:
            if values is None:
                return None
            return [read(f"{name}[{i}]", each) for i, each in enumerate(column(name, values, count))]

        texts = optional("completions", first if completions is not None else None, answer_of)
        ids = optional("completion_ids", first if completions is None else completion_ids, ids_of)
        asked = optional("prompts", prompts, Asked.of)
        ended = optional("finished", finished, _flag)
        tokens = _prompt_ids(reader, asked, optional("prompt_ids", prompt_ids, ids_of), count)
        labels = optional("groups", groups, sender_of)
        if labels is None and asked is not None:
            labels = [each.label for each in asked]
        elif labels is None and prompt_ids is not None:
            places: dict[tuple[int, ...], int] = {}
            labels = [places.setdefault(each, len(places)) for each in tokens]
        earned = optional("rewards", rewards, reward_of)
        return cls(
            rows=[
                reader.read(_at(texts, i), _at(ids, i), tokens[i], _at(ended, i)) for i in range(count)
            ],
            prompts=asked or [Asked("", "", "")] * count,
            rewards=[1.0] * count if earned is None else earned,
            senders=optional("senders", senders, sender_of),
            groups=None if labels is None else [str(each) for each in labels],
            keys=optional("slot_keys", slot_keys, _key),
            given_ids=ids is not None,
        )

    def label(self, index: int) -> str:
        """The label of a row's group; of its own where groups are not known."""
        return str(index) if self.groups is None else self.groups[index]

    @property
    def asked(self) -> list[int]:
        """The rows that defenses are asked about."""
        return [i for i, row in enumerate(self.rows) if not row.fault and self.rewards[i] is not None]

    @property
    def faults(self) -> Mapping[int, tuple[Verdict, ...]]:
        """The verdicts on the others."""
        return {
            i: (Verdict(NAME, "reject", row.fault),) if row.fault else (NO_REWARD,)
            for i, row in enumerate(self.rows)
            if row.fault or self.rewards[i] is None
        }


def _prompt_ids(
    reader: Reader, asked: list[Asked] | None, given: list[Any] | None, count: int
) -> list[tuple[int, ...]]:
    """The prompts' tokens, as given or else the tokenizer's; empty where nobody looks at them."""
    if reader.policy is None or not reader.needs_tokens:
        return given or [()] * count
    if given is None and asked is None and count:
        raise ConfigError("A defense reads with a model, which needs the prompts too; give prompts or prompt_ids.")
    if given is None:
        from hailproof.shield.models import prompt_ids

        tokenizer = reader.policy.codec.tokenizer
        known = {each.label: each for each in asked or ()}
        tokens = {label: prompt_ids(tokenizer, each.given) for label, each in known.items()}
        given = [tokens[each.label] for each in asked or ()]
    return given


def _at(values: list[Any] | None, index: int) -> Any:
    return None if values is None else values[index]


def _flag(name: str, value: Any) -> bool:
    found = value.item() if hasattr(value, "item") else value
    if type(found) is not bool:
        raise ConfigError(f"{name} is {found!r:.80}; give True or False.")
    return found


def _key(name: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ConfigError(f"{name} is {value!r:.80}; give the key that hailproof.rollouts.completion_key makes.")
    return value
