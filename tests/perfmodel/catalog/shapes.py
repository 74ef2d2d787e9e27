"""Decoders that tests build by hand."""

from __future__ import annotations

from perfmodel.catalog.decoder import Block, Decoder, Experts, LatentAttention, Mlp, Norm, SelfAttention


def decoder(hidden_size: int, *blocks: Block) -> Decoder:
    """Some vocabulary around ``blocks``."""
    return Decoder(
        hidden_size=hidden_size, blocks=blocks, vocab_size=32_000, embedding_size=hidden_size, tied_embeddings=False,
        norm=Norm.RMSNORM, max_positions=4096, source="test",
    )  # fmt: skip


def deepseek_v3() -> Decoder:
    """Three dense layers, 58 with experts."""
    latent = LatentAttention(heads=128, query_rank=1536, rank=512, nope_dim=128, rope_dim=64, value_dim=128)
    experts = Experts(count=256, per_token=8, size=2048, gated=True, shared_size=2048)
    dense = Block(count=3, parts=(latent, Mlp(size=18432, gated=True)))
    return decoder(7168, dense, Block(count=58, parts=(latent, experts)))


def gpt_oss_20b() -> Decoder:
    """Grouped attention and 32 experts in every layer."""
    attention = SelfAttention(heads=64, kv_heads=8, head_dim=64, bias=True, output_bias=True, sinks=True)
    experts = Experts(count=32, per_token=4, size=2880, gated=True, bias=True)
    return decoder(2880, Block(count=24, parts=(attention, experts)))


def qwen3_moe() -> Decoder:
    """128 experts in every layer."""
    attention = SelfAttention(heads=32, kv_heads=4, head_dim=128, scales=256)
    return decoder(2048, Block(count=48, parts=(attention, Experts(count=128, per_token=8, size=768, gated=True))))
