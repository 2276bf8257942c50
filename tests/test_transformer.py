"""Attention, blocks, encoder and decoder against torch's own, and what is written against a loop."""

import pytest
import torch
from torch import nn

import pruninglib as pl
from pruninglib.tasks.transformer import (
    BEGIN,
    END,
    PADDING,
    Block,
    EncoderDecoder,
    causal,
    write,
)

SOURCE = torch.tensor([[4, 5, 6, 7, 8], [9, 4, 0, 0, 0], [5, 5, 4, 0, 0]])
TARGET = torch.tensor([[BEGIN, 4, 5, 6], [BEGIN, 7, 4, 4], [BEGIN, 9, 8, 5]])


def model(copies: bool = False, seed: int = 0) -> EncoderDecoder:
    torch.manual_seed(seed)
    return EncoderDecoder((12, 12), (6, 7), 8, 2, 16, (2, 1), copies=copies).eval()


def as_torch(block: Block) -> nn.TransformerDecoderLayer:
    """The same weights in torch's decoder layer."""
    channels, heads = block.norm1.normalized_shape[0], block.attention.heads
    theirs = nn.TransformerDecoderLayer(
        channels, heads, block.up.out_features, 0.0, batch_first=True, norm_first=True
    ).eval()
    state = {}
    for name, attention in (("self_attn", block.attention), ("multihead_attn", block.cross)):
        parts = [attention.query, attention.key, attention.value]
        state[f"{name}.in_proj_weight"] = torch.cat([p.weight for p in parts])
        state[f"{name}.in_proj_bias"] = torch.cat([p.bias for p in parts])
        state |= {f"{name}.out_proj.{k}": v for k, v in attention.output.state_dict().items()}
    pairs = {"linear1": block.up, "linear2": block.down, "norm1": block.norm1}
    for name, module in (pairs | {"norm2": block.norm3, "norm3": block.norm2}).items():
        state |= {f"{name}.{k}": v for k, v in module.state_dict().items()}
    theirs.load_state_dict(state)
    return theirs


def test_a_block_with_cross_attention_is_torchs_decoder_layer():
    torch.manual_seed(0)
    block, x, text = Block(8, 2, 16, cross=True).eval(), torch.randn(3, 4, 8), torch.randn(3, 5, 8)
    for norm in (block.norm1, block.norm2, block.norm3):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    real = SOURCE != PADDING
    ours = block(x, causal(4), (text, real[:, None, None, :]))
    theirs = as_torch(block)(x, text, tgt_mask=~causal(4), memory_key_padding_mask=~real)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("copies", [False, True])
def test_nothing_is_seen_of_what_comes_later_and_of_padding(copies):
    network = model(copies)
    before = network(SOURCE, TARGET)
    later = TARGET.clone()
    later[:, 2:] = 11
    torch.testing.assert_close(network(SOURCE, later)[:, :2], before[:, :2])
    assert not network(SOURCE, later)[:, 2:].allclose(before[:, 2:])
    torch.testing.assert_close(network(SOURCE[1:2, :2], TARGET[1:2]), before[1:2])
    assert not network(SOURCE[1:2, :1], TARGET[1:2]).allclose(before[1:2])


def test_copying_mixes_the_vocabulary_with_the_tokens_of_the_source():
    network = model(copies=True)
    chances = network(SOURCE, TARGET).exp()
    torch.testing.assert_close(chances.sum(dim=-1), torch.ones(3, 4))
    nn.init.zeros_(network.gate.weight)
    nn.init.constant_(network.gate.bias, 30.0)  # all trust in the source
    nn.init.zeros_(network.query.weight)
    nn.init.zeros_(network.query.bias)  # which is seen alike everywhere
    chances = network(SOURCE, TARGET).exp()
    expected = torch.zeros(12).index_fill(0, torch.tensor([4, 5]), 1 / 3)
    expected[5] = 2 / 3
    torch.testing.assert_close(chances[2], expected.expand(4, 12), atol=1e-6, rtol=0)


@pytest.mark.parametrize("copies", [False, True])
def test_what_is_written_is_the_likeliest_token_after_token(copies):
    network = model(copies, seed=2)
    nn.init.normal_(network.output.weight, std=3.0)
    network.output.bias.data[END] = 5.0
    written = write(network, SOURCE, 6)
    assert written.shape == (3, 6)
    assert write(network, SOURCE, 2).equal(written[:, :2])
    ends = set()
    for source, found in zip(SOURCE, written, strict=True):
        text = [BEGIN]
        with torch.no_grad():
            while text[-1] != END and len(text) < 7:
                logits = network(source[None, source != PADDING], torch.tensor([text]))
                text.append(int(logits[0, -1].argmax()))
        ends.add(len(text))
        assert found.tolist() == [*text[1:], *[PADDING] * (7 - len(text))]
    assert len(ends) > 1  # some end sooner than others


def test_heads_and_units_can_be_removed_from_all_parts():
    network, example = model(), (SOURCE, TARGET)
    groups = pl.coupled(network, example)
    wanted = {"encoder.0.attention.query.weight", "decoder.0.attention.query.weight",
              "decoder.0.cross.query.weight", "decoder.0.up.weight", "encoder.1.up.weight"}  # fmt: skip
    assert wanted <= groups.keys()
    kept = pl.select(pl.pool(pl.magnitude(network), groups), 0.5, budget=pl.uniform)
    masks = pl.spread(kept, groups)
    small = pl.shrink(network, masks, example)
    assert (small.decoder[0].cross.heads, small.encoder[1].up.out_features) == (1, 8)
    pl.apply(network, masks)
    torch.testing.assert_close(small(*example), network(*example))
