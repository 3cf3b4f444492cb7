"""The draw of the swarm as a ``transformers`` logits processor, for anybody's generation loop."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LogitsProcessor

from hailproof.policies.sampling import draw
from hailproof.protocols import Sampling


class SlotNoise(LogitsProcessor):
    """Makes a generation loop draw what a verifier repeats: the one token of each row that its public key draws.

    Pass it alone, and let the loop be greedy, since all that sampling does is done here::

        noise = SlotNoise(keys, sampling, codec.barred(columns), input_ids.shape[1])
        model.generate(input_ids, do_sample=False, logits_processor=[noise], max_new_tokens=sampling.max_new_tokens)

    Args:
        keys: One key per row, in the order of the batch; a loop that returns several sequences for a prompt repeats
            the prompt in place.
        sampling: Temperature and limits.
        barred: Ids that no completion may hold (``codec.barred(columns)``).
        prompt_tokens: Width of the prompts, padding included.
    """

    def __init__(self, keys: Sequence[int], sampling: Sampling, barred: Sequence[int], prompt_tokens: int) -> None:
        self.keys = torch.tensor(keys)
        self.sampling = sampling
        self.barred = torch.tensor(barred, dtype=torch.long)
        self.prompt_tokens = prompt_tokens

    def __call__(self, input_ids: Int[Tensor, "N L"], scores: Float[Tensor, "N V"]) -> Float[Tensor, "N V"]:
        """Leaves each row the token that is drawn, and rules out all others.

        Args:
            input_ids: What the rows hold so far.
            scores: Logits of the next token.

        Returns:
            0 for the token that is drawn, ``-inf`` for all others.
        """
        keys = self.keys.to(scores.device)
        logits = scores.float().index_fill(-1, self.barred.to(scores.device), -torch.inf)
        position = torch.full_like(keys, input_ids.shape[1] - self.prompt_tokens)
        drawn = draw(logits, keys, position, self.sampling)
        return torch.full_like(scores, -torch.inf).scatter(-1, drawn[:, None], 0.0)
