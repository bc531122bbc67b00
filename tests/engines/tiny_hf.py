"""Writes the same kind of model in the format of Hugging Face's libraries: ``python tiny_hf.py FOLDER``.

The script needs nothing of this project: it runs where the engines are installed, with ``numpy``, ``safetensors`` and
``tokenizers``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

CONTEXT, WIDTH, LAYERS, HEADS, INNER = 512, 64, 2, 2, 128
SPECIAL = ["<pad>", "<s>", "</s>"]
PAD, BEGIN, END = range(3)
END_IS_LIKELIER = 1.6
"""Makes some answers end on their own within their first hundred tokens."""

WORDS = "the price of a token is in the menu and the usage of it is for the tier that a model has "
TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def tokenizer() -> Tokenizer:
    """Return a tokenizer of bytes, and of some words."""
    weights = Tokenizer(models.BPE())
    weights.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    weights.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    weights.train_from_iterator([WORDS * 20], trainer)
    return weights


def weights(vocabulary: int, seed: int = 0) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(seed)

    def random(rows: int, columns: int, scale: float = 0.5) -> np.ndarray:
        return (chance.standard_normal((rows, columns)) * scale / np.sqrt(columns)).astype(np.float32)

    ones = np.ones(WIDTH, np.float32)
    out = random(vocabulary, WIDTH, 0.6)
    out[END] *= END_IS_LIKELIER
    weights = {
        "model.embed_tokens.weight": random(vocabulary, WIDTH, 4),
        "model.norm.weight": ones,
        "lm_head.weight": out,
    }
    for layer in range(LAYERS):
        begin = f"model.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            weights[f"{begin}.self_attn.{name}.weight"] = random(WIDTH, WIDTH)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{begin}.{name}.weight"] = ones
        weights[f"{begin}.mlp.gate_proj.weight"] = random(INNER, WIDTH)
        weights[f"{begin}.mlp.up_proj.weight"] = random(INNER, WIDTH)
        weights[f"{begin}.mlp.down_proj.weight"] = random(WIDTH, INNER)
    return weights


def write(folder: Path) -> None:
    """Write the model; its weights are the same each time."""
    folder.mkdir(parents=True, exist_ok=True)
    words = tokenizer()
    words.save(str(folder / "tokenizer.json"))
    ids = {"bos_token_id": BEGIN, "eos_token_id": END, "pad_token_id": PAD}
    files = {
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **dict(zip(("pad_token", "bos_token", "eos_token"), SPECIAL, strict=True)),
            "model_max_length": CONTEXT,
            "chat_template": TEMPLATE,
        },
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": words.get_vocab_size(),
            "hidden_size": WIDTH,
            "intermediate_size": INNER,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": HEADS,
            "head_dim": WIDTH // HEADS,
            "max_position_embeddings": CONTEXT,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10_000.0,
            "tie_word_embeddings": False,
            "hidden_act": "silu",
            "torch_dtype": "float32",
            **ids,
        },
        "generation_config.json": ids,
    }
    for name, shown in files.items():
        (folder / name).write_text(json.dumps(shown), "utf-8")
    save_file(weights(words.get_vocab_size()), str(folder / "model.safetensors"), metadata={"format": "pt"})


if __name__ == "__main__":
    write(Path(sys.argv[1]))
