"""nano-a as a GGUF file."""

import json
from pathlib import Path

import gguf
import numpy as np
from damaged import NANO

from hailproof.policies.causal_lm import CausalLM

LLAMA_PARTS = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def gguf_name(name: str) -> str:
    """A Llama tensor's name in a GGUF file."""
    outer = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    if name in outer:
        return outer[name]
    _, _, layer, part = name.split(".", 3)
    return f"blk.{layer}.{LLAMA_PARTS[part.removesuffix('.weight')]}.weight"


def write_gguf(policy: CausalLM, path: Path) -> None:
    """Writes nano-a as GGUF, whose queries and keys hold the halves of each rotated pair side by side."""
    config, tokenizer = policy.model.config, policy.codec.tokenizer
    merges = json.loads((NANO / "tokenizer.json").read_text())["model"]["merges"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])])
    added = {id: 3 if token.special else 4 for id, token in tokenizer.added_tokens_decoder.items()}
    writer.add_token_types([added.get(id, 1) for id in range(config.vocab_size)])
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_eos_token_id(0)
    writer.add_pad_token_id(1)
    writer.add_chat_template(str(tokenizer.chat_template))
    for name, tensor in policy.model.state_dict().items():
        if name == "lm_head.weight":  # tied
            continue
        values = tensor.numpy()
        if "q_proj" in name or "k_proj" in name:
            heads = config.num_attention_heads
            values = values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        writer.add_tensor(gguf_name(name), np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
