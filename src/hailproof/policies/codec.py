"""The codec of a ``transformers`` tokenizer: prompts and texts to ids and back, and what is kept of strangers' ids."""

from collections.abc import Sequence

import numpy as np
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from hailproof.errors import ModelError
from hailproof.records import Completion, Prompt

RENDERED_AT_ONCE = 8192
"""Prompts whose ids are remembered; judges see new ones in every round."""

_USER = "\ue000user\ue001"
"""Stands for the user's text while a chat template is looked at; private-use characters that no template writes."""

LONGEST_CHARACTER = 4
"""Tokens, one for each byte, after which a character has ended: what is decoded until then is no Unicode."""


class TokenizerCodec:
    """A tokenizer as the swarm uses it.

    Args:
        name: What messages call it.
        tokenizer: The tokenizer; if it has a chat template, prompts are rendered with it.
        end_ids: Tokens that end a completion; the first is the one that this codec writes.
    """

    def __init__(self, name: str, tokenizer: PreTrainedTokenizerBase, end_ids: Sequence[int]) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.end_ids = tuple(dict.fromkeys(end_ids))
        if not self.end_ids:
            raise ModelError(f"Model {name} has no end-of-sequence token; set one in its tokenizer's configuration.")
        flagged = (token for token, added in tokenizer.added_tokens_decoder.items() if added.special)
        self._special_ids = frozenset((*tokenizer.all_special_ids, *flagged))  # decoding leaves all of them out
        self._never_inside = self._special_ids | set(self.end_ids)
        self._rendered: dict[Prompt, tuple[int, ...]] = {}
        self._pieces: dict[int, str] = {}

    def barred(self, columns: int) -> tuple[int, ...]:
        """Ids below ``columns`` that no completion may hold.

        These are special tokens that do not end it, which text cannot say, and the columns by which some models are
        wider than their tokenizer.
        """
        special = sorted(self._special_ids - set(self.end_ids))
        return tuple(i for i in (*special, *range(len(self.tokenizer), columns)) if i < columns)

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
        begins = not self.tokenizer.chat_template  # templates write their own begin token
        ids = self.tokenizer(self.templated(prompt.system, prompt.user), add_special_tokens=begins)["input_ids"]
        around = self.templated(prompt.system, _USER).split(_USER)
        head, *more = (self.tokenizer(part, add_special_tokens=False)["input_ids"] for part in around)
        head = self.tokenizer(around[0], add_special_tokens=True)["input_ids"] if begins else head
        if self._specials(ids) != self._specials(head) + sum(map(self._specials, more)):
            if len(more) != 1:
                raise ModelError(f"The chat template of {self.name} hides or repeats the user's text; mend it.")
            ids = [*head, *self.encode(prompt.user), *more[0]]
        return tuple(ids)

    def _specials(self, ids: Sequence[int]) -> int:
        return sum(i in self._special_ids for i in ids)

    def templated(self, system: str, user: str) -> str:
        """A prompt as the chat template writes it, up to where the answer begins.

        Raises:
            ModelError: If the template fails.
        """
        if not self.tokenizer.chat_template:
            return f"{system}\n\n{user}\n\n"
        apart = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        together = [{"role": "user", "content": f"{system}\n\n{user}"}]  # for templates that know no system role
        for messages in (apart, together):
            try:
                return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
            except TemplateError as error:
                reason = str(error)
        raise ModelError(f"The chat template of {self.name} fails ({reason}); mend it.")

    def encode(self, text: str) -> tuple[int, ...]:
        """Tokenizes a completion's text, without special tokens and without the end token.

        Special tokens that a stranger spells out in text stay text: they are split into ordinary pieces.
        """
        return tuple(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

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
            and all(0 <= i < len(self.tokenizer) for i in ids)
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
