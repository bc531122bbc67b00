"""Writes a model of half a megabyte with random weights, in the format of llama.cpp: ``python tiny_gguf.py PATH``.

The script needs nothing of this project: it runs where the engines are installed, with ``gguf`` and ``numpy``.
"""

from __future__ import annotations

import string
import sys
from collections.abc import Iterator

import gguf
import numpy as np

CONTEXT, WIDTH, LAYERS, HEADS, INNER = 512, 64, 2, 4, 128
UNKNOWN, NORMAL, CONTROL, BYTE = 2, 1, 3, 6
"""Kinds of tokens, as the format numbers them."""

SPECIAL = (("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL))
CHARACTERS = "▁" + string.ascii_letters + string.digits + ".,!?'-:;{}[]\"_éß中😀"
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
END = 2
END_IS_LIKELIER = 1.4
"""Makes some answers end on their own within their first hundred tokens."""


def vocabulary() -> Iterator[tuple[str, int]]:
    """Yield each token with its kind: a text of these characters has only one tokenization."""
    yield from SPECIAL
    yield from ((f"<0x{byte:02X}>", BYTE) for byte in range(256))
    yield from ((one, NORMAL) for one in CHARACTERS)


def write(path: str, seed: int = 0) -> None:
    """Write the model; the same seed writes the same bytes."""
    tokens = list(vocabulary())
    chance = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_file_type(0)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([token for token, _ in tokens])
    writer.add_token_types([kind for _, kind in tokens])
    writer.add_token_scores([-float(place) if kind == NORMAL else 0.0 for place, (_, kind) in enumerate(tokens)])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(END)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(TEMPLATE)

    def weights(rows: int, columns: int, scale: float = 0.5) -> np.ndarray:
        return (chance.standard_normal((rows, columns)) * scale / np.sqrt(columns)).astype(np.float32)

    ones = np.ones(WIDTH, np.float32)
    out = weights(len(tokens), WIDTH, 0.6)
    out[END] *= END_IS_LIKELIER
    out[[place for place, (_, kind) in enumerate(tokens) if kind in (UNKNOWN, BYTE)]] = 0  # never the likeliest
    writer.add_tensor("token_embd.weight", weights(len(tokens), WIDTH, 4))
    writer.add_tensor("output_norm.weight", ones)
    writer.add_tensor("output.weight", out)
    for layer in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", weights(WIDTH, WIDTH))
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", ones)
        writer.add_tensor(f"blk.{layer}.ffn_gate.weight", weights(INNER, WIDTH))
        writer.add_tensor(f"blk.{layer}.ffn_up.weight", weights(INNER, WIDTH))
        writer.add_tensor(f"blk.{layer}.ffn_down.weight", weights(WIDTH, INNER))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    write(sys.argv[1])
