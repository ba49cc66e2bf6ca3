"""Train a checkpoint like the shipped ones: a small model on gsm_symbolic, dense or with experts.

    pip install torch transformers tokenizers reasoning-gym==0.1.25
    python scripts/train_shipped.py OUT [--architecture llama|qwen3moe] [--tokens N]

Why a trained model: with random weights the next-token distribution is nearly uniform and the bf16
gap comes out several times too small. llama-gsm-0.8m took 4.6 M tokens, about eight CPU minutes
(validation perplexity about 1.4); qwen3moe-gsm-3.4m 1.3 M and four (about 2.0). The result is close
to the shipped one, not bit-equal to it.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable
from typing import NamedTuple

import reasoning_gym
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

END, CONTEXT, BATCH, PEAK = "<|endoftext|>", 256, 16, 4e-3
TEMPLATE = (
    "{% for m in messages %}{{ 'Question: ' if m.role=='user' else 'Answer: ' }}{{ m.content }}\n"
    "{% endfor %}{% if add_generation_prompt %}Answer:{% endif %}"
)


def problems(size: int, seed: int) -> list[str]:
    """Question, worked solution where there is one, answer; as the template would lay them out."""
    rows = reasoning_gym.create_dataset("gsm_symbolic", size=size, seed=seed)
    return [f"Question: {r['question']}\nAnswer: {r['answer']}\n{END}" for r in rows]


def make_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE of so many entries."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END], initial_alphabet=alphabet
    )
    raw.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=END, eos_token=END, pad_token=END, model_max_length=1024
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_llama(vocabulary: int) -> PreTrainedModel:
    """0.82 M parameters: 4 layers, hidden 128, 2 heads and 1 key-value head of 64, tied head."""
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=128, intermediate_size=320, num_hidden_layers=4,
        num_attention_heads=2, num_key_value_heads=1, head_dim=64, rms_norm_eps=1e-5,
        max_position_embeddings=1024, tie_word_embeddings=True,
        bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def make_qwen3moe(vocabulary: int) -> PreTrainedModel:
    """3.35 M parameters: 3 layers, hidden 192, 3 heads and 1 key-value head of 64, 8 experts of
    which each token is sent to 2. The loss that balances the experts is trained with, and switched
    off in what is saved: with it on, generate() fails.
    """
    config = Qwen3MoeConfig(
        vocab_size=vocabulary, hidden_size=192, intermediate_size=384, moe_intermediate_size=192,
        num_hidden_layers=3, num_attention_heads=3, num_key_value_heads=1, head_dim=64,
        num_experts=8, num_experts_per_tok=2, norm_topk_prob=True, decoder_sparse_step=1,
        output_router_logits=True, router_aux_loss_coef=0.01, max_position_embeddings=1024,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    return Qwen3MoeForCausalLM(config)


class Recipe(NamedTuple):
    """What differs between the shipped checkpoints."""

    make: Callable[[int], PreTrainedModel]
    vocabulary: int
    tokens: int


RECIPES = {
    "llama": Recipe(make_llama, 1024, 4_600_000),
    "qwen3moe": Recipe(make_qwen3moe, 2048, 1_300_000),
}


def train(model: PreTrainedModel, ids: torch.Tensor, steps: int) -> None:
    """AdamW, warm-up over 5% of the steps, cosine to zero; random windows of the token stream."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK, betas=(0.9, 0.95), weight_decay=0.1)
    warm = max(1, steps // 20)
    for step in range(steps):
        rate = min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimiser.param_groups[0]["lr"] = PEAK * rate
        starts = torch.randint(len(ids) - CONTEXT - 1, (BATCH,))
        window = torch.stack([ids[s : s + CONTEXT] for s in starts])
        loss = model(input_ids=window, labels=window).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step} of {steps}: loss {loss.item():.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    parser.add_argument("--architecture", choices=RECIPES, default="llama")
    parser.add_argument("--tokens", type=int, help="default: as many as the shipped one took")
    options = parser.parse_args()
    recipe = RECIPES[options.architecture]
    tokens = options.tokens or recipe.tokens
    random.seed(0)
    torch.manual_seed(0)
    texts = problems(max(200, tokens // 300), seed=1)
    tokenizer = make_tokenizer(texts, recipe.vocabulary)
    ids = torch.tensor(tokenizer("".join(texts))["input_ids"])
    model = recipe.make(recipe.vocabulary)
    train(model, ids, max(2, tokens // (BATCH * CONTEXT)))
    if hasattr(model.config, "output_router_logits"):
        model.config.output_router_logits = False
    model.to(torch.bfloat16).save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)


if __name__ == "__main__":
    main()
