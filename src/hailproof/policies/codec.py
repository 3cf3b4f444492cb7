"""The codec of a ``transformers`` tokenizer: prompts and texts to ids and back, and what is kept of strangers' ids."""

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from transformers import PreTrainedTokenizerBase

from hailproof.errors import ModelError
from hailproof.policies.templates import USER, ChatTemplate
from hailproof.records import Completion, Prompt

RENDERED_AT_ONCE = 8192
"""Prompts and system texts whose ids are remembered; judges see new prompts in every round."""

LONGEST_CHARACTER = 4
"""Tokens, one for each byte, after which a character has ended: what is decoded until then is no Unicode."""


class TokenizerCodec:
    """A tokenizer as the swarm uses it.

    Args:
        name: What messages call it.
        tokenizer: The tokenizer; if it has a chat template, prompts are rendered with it.
        end_ids: Tokens that end a completion besides the tokenizer's end token and what its chat template writes after
            an answer, as the settings of a model list them.
        columns: How many ids the model has; ``None``: as many as the tokenizer.

    Attributes:
        end_ids: Tokens that end a completion. The first, which this codec writes, is the one that the chat template
            writes after an answer; if it writes none, the tokenizer's end token.
        known: The ids that the model has and the tokenizer writes.

    Raises:
        ModelError: If no token ends a completion, or the chat template cannot be used.
    """

    def __init__(
        self, name: str, tokenizer: PreTrainedTokenizerBase, end_ids: Sequence[int] = (), columns: int | None = None
    ) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.template = ChatTemplate(name, tokenizer) if tokenizer.chat_template else None
        listed = [token for token in (tokenizer.eos_token_id, *end_ids) if isinstance(token, int)]
        written = self.template.end_id(listed) if self.template else None
        self.end_ids = tuple(dict.fromkeys(listed if written is None else (written, *listed)))
        if not self.end_ids:
            raise ModelError(f"Model {name} has no end-of-sequence token; set one in its tokenizer's configuration.")
        flagged = (token for token, added in tokenizer.added_tokens_decoder.items() if added.special)
        self._special_ids = frozenset((*tokenizer.all_special_ids, *flagged))  # decoding leaves all of them out
        self._never_inside = self._special_ids | set(self.end_ids)
        self.known = frozenset(i for i in tokenizer.get_vocab().values() if columns is None or i < columns)
        self._begin = self._begun()
        self._rendered: dict[Prompt, tuple[int, ...]] = {}
        self._frames: dict[str, list[list[int]]] = {}
        self._pieces: dict[int, str] = {}

    def _begun(self) -> tuple[int, ...]:
        """What the tokenizer writes before a text by itself, such as a begin token; what it appends is left out."""
        full, bare = self.tokenizer("a")["input_ids"], self.tokenizer("a", add_special_tokens=False)["input_ids"]
        starts = (i for i in range(len(full) - len(bare) + 1) if full[i : i + len(bare)] == bare)
        return tuple(full[: next(starts, 0)])

    def barred(self, columns: int) -> tuple[int, ...]:
        """Ids below ``columns`` that no completion may hold.

        These are special tokens that do not end it, which text cannot say, and ids of no token: the columns by which
        some models are wider than their tokenizer.
        """
        special = self._special_ids - set(self.end_ids)
        return tuple(i for i in range(columns) if i in special or i not in self.known)

    def render(self, prompt: Prompt) -> tuple[int, ...]:
        """Token ids of a prompt: by chat template if the tokenizer has one, else plain text.

        Special tokens that the user's text spells out stay text: they are split into ordinary pieces.

        Raises:
            ModelError: If that cannot be had, since the chat template does not show the user's text exactly once.
        """
        if prompt not in self._rendered:
            if len(self._rendered) >= RENDERED_AT_ONCE:
                self._rendered.clear()
            self._rendered[prompt] = self._render(prompt)
        return self._rendered[prompt]

    def _render(self, prompt: Prompt) -> tuple[int, ...]:
        if self.template is None:
            return (*self._begin, *self.encode(f"{prompt.system}\n\n{prompt.user}\n\n"))
        frame = self._frame(prompt.system)
        ids = self._with_specials(self.template.write(prompt.system, prompt.user))
        if self._specials(ids) != sum(map(self._specials, frame)):
            if len(frame) != 2:
                raise ModelError(f"The chat template of {self.name} hides or repeats the user's text; mend it.")
            ids = [*frame[0], *self.encode(prompt.user), *frame[1]]
        return tuple(ids)

    def _frame(self, system: str) -> list[list[int]]:
        """Token ids of what the template writes around the user's text, which is the same for all prompts of a task."""
        assert self.template is not None
        if system not in self._frames:
            if len(self._frames) >= RENDERED_AT_ONCE:
                self._frames.clear()
            self._frames[system] = [*map(self._with_specials, self.template.write(system, USER).split(USER))]
        return self._frames[system]

    def _with_specials(self, text: str) -> list[int]:
        """Token ids of what a template wrote, which writes its own begin token."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _specials(self, ids: Sequence[int]) -> int:
        return sum(i in self._never_inside for i in ids)

    def encode(self, text: str) -> tuple[int, ...]:
        """Tokenizes a completion's text, without special tokens and without the end token.

        Special tokens that a stranger spells out in text stay text: they are split into ordinary pieces.
        """
        ids = self._encoded(text)
        inside = {token for token in ids if self._stays_out(token)}
        if inside:  # tokens that are not flagged special: they are cut after their first character
            spelled = "|".join(re.escape(str(self.tokenizer.convert_ids_to_tokens(token))) for token in inside)
            borders = [0, *(found.start() + 1 for found in re.finditer(spelled, text)), len(text)]
            parts = (self._encoded(text[start:end]) for start, end in pairwise(borders))
            ids = [token for part in parts for token in part if not self._stays_out(token)]
        return tuple(ids)

    def _stays_out(self, token: int) -> bool:
        """Whether no text may become this token: one that ends a completion, or that the model does not have."""
        return token in self.end_ids or token not in self.known

    def _encoded(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of completion ids; special tokens are left out."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def as_completion(self, text: str) -> Completion:
        """Makes a finished completion of a text: its ids under this tokenizer, then the end token."""
        return Completion(text, (*self.encode(text), self.end_ids[0]), finished=True)

    def drawn(self, token_ids: Sequence[int]) -> Completion:
        """Makes a completion of ids that were drawn."""
        body, finished = self._body(token_ids)
        return Completion(self.decode(body), tuple(token_ids), finished)

    def _body(self, token_ids: Sequence[int]) -> tuple[Sequence[int], bool]:
        """Ids without the end token, and whether there was one."""
        ended = bool(token_ids) and token_ids[-1] in self.end_ids
        return (token_ids[:-1] if ended else token_ids), ended

    def received_ids(self, completion: Completion) -> tuple[int, ...]:
        """Ids to score and train a received completion with.

        The sender's ids are used if they are ids of this vocabulary, decode to the text that was sent, and hold an
        end token at the end only; else the text is tokenized anew (as between models with different tokenizers).
        """
        ids = completion.token_ids
        body, ended = self._body(ids)
        if (
            ended == completion.finished
            and ids
            and self.known.issuperset(ids)
            and self._never_inside.isdisjoint(body)
            and self.decode(body) == completion.text
        ):
            return ids
        end = (self.end_ids[0],) if completion.finished else ()
        return (*self.encode(completion.text), *end) or (self.end_ids[0],)

    def received(self, completion: Completion) -> Completion:
        """A received completion with the ids that it is scored and learned with, and the text that those ids say.

        It is another than the one that was sent where text was tokenized anew and the tokenizer does not keep all of
        it (Qwen's joins accents to letters): then what is read, rewarded and screened must be what will be learned.
        """
        ids = self.received_ids(completion)
        text = self.decode(self._body(ids)[0])
        return completion if text == completion.text else Completion(text, ids, completion.finished)

    def ends(self, token_ids: Sequence[int]) -> np.ndarray:
        """``[T]`` index of the character at which each token ends; one that ends inside a character ends before it."""
        for token in set(token_ids) - self._pieces.keys():
            self._pieces[token] = self.decode([token])
        pieces, text = [self._pieces[token] for token in token_ids], self.decode(token_ids)
        if "".join(pieces) != text:  # not by length alone: what one piece lacks, another may have too much
            return self._exact_ends(token_ids, len(text))
        return np.cumsum([len(piece) for piece in pieces])

    def _exact_ends(self, token_ids: Sequence[int], size: int) -> np.ndarray:
        """The same where tokens split characters, or decode to another length in a text than alone.

        Tokens are decoded with those before them, from one clean border to the next (as streaming servers do).
        """
        ends, end = np.zeros(len(token_ids), dtype=int), 0
        first = read = 0
        for index in range(len(token_ids)):
            known, text = self.decode(token_ids[first:read]), self.decode(token_ids[first : index + 1])
            if not text.endswith("\ufffd") or index - read + 1 >= LONGEST_CHARACTER:
                end += max(0, len(text) - len(known))
                first, read = read, index + 1
            ends[index] = end
        ends[-1] = size
        return np.minimum(ends, size)
