"""Published language models and WikiText-2. Those of transformers are made here, tiny and untrained."""

import hashlib
import io
import math
import zipfile

import pytest
import torch
from torch import nn

import pruninglib as pl
from pruninglib.tasks import datasets, llm
from pruninglib.tasks.llm import LENGTH, block_influence, blocks_of, matrices_of, without_blocks

# ---- WikiText-2 ----

TEXT = """\x20
 = Du Fu = \x20
\x20
 He was a poet . (T\x20
 = 712 ; m = \x20
 3 ) .\x20
\x20
 = = Life = = \x20
\x20
 He wrote .\x20
 = = = Youth = = = \x20
\x20
 = Kiss You ( song ) = \x20
\x20
 A @-@ song .\x20
"""
ARTICLES = [
    ["= Du Fu =", "He was a poet . (T", "= 712 ; m =", "3 ) .", "= = Life = =", "He wrote .", "= = = Youth = = ="],
    ["= Kiss You ( song ) =", "A @-@ song ."],
]  # fmt: skip


def test_an_article_begins_at_its_title_and_not_at_a_torn_formula():
    assert datasets._articles(TEXT) == ARTICLES


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data folder whose wikitext-2 has what `TEXT` says, and is the published one."""
    monkeypatch.setenv("PRUNINGLIB_DATA", str(tmp_path))
    (tmp_path / "wikitext-2").mkdir()
    monkeypatch.setattr(datasets, "WIKITEXT_2", dict(datasets.WIKITEXT_2))
    for split, (url, _) in datasets.WIKITEXT_2.items():
        body = f"{TEXT} In {split} .\n".encode()
        assert url.startswith("https://raw.githubusercontent.com/pytorch/examples/")
        monkeypatch.setitem(datasets.WIKITEXT_2, split, (url, hashlib.md5(body).hexdigest()))
        (tmp_path / "wikitext-2" / f"{split}.txt").write_bytes(body)
    return tmp_path / "wikitext-2"


def test_articles_are_read_by_split_and_verified(folder):
    assert datasets.available()["wikitext-2"]
    assert datasets.wikitext_2() == {
        split: [ARTICLES[0], [*ARTICLES[1], f"In {split} ."]]
        for split in ("train", "valid", "test")
    }
    (folder / "valid.txt").write_text("something else")
    with pytest.raises(ValueError, match=r"valid\.txt is not the published file: delete it"):
        datasets.wikitext_2()
    (folder / "valid.txt").unlink()
    assert not datasets.available()["wikitext-2"]


def test_the_archive_does_as_well_and_is_verified(folder):
    expected, packed = datasets.wikitext_2(), {}
    for split in expected:
        packed[f"wikitext-2/wiki.{split}.tokens"] = (folder / f"{split}.txt").read_bytes()
        (folder / f"{split}.txt").unlink()
    for wrong in (False, True):
        body = io.BytesIO()
        with zipfile.ZipFile(body, "w") as archive:
            for name, text in packed.items():
                archive.writestr(name, text + b"more" * (wrong and "test" in name))
        (folder / "wikitext-2-v1.zip").write_bytes(body.getvalue())
        assert datasets.available()["wikitext-2"]
        if not wrong:
            assert datasets.wikitext_2() == expected
    with pytest.raises(ValueError, match=r"wiki\.test\.tokens in .* is not the published file"):
        datasets.wikitext_2()


def test_a_missing_file_is_downloaded(folder, monkeypatch):
    asked = []

    def fetch(url, path, md5):
        asked.append((url, path.name, md5))
        return path

    monkeypatch.setattr(datasets, "fetch", fetch)
    datasets.wikitext_2()
    assert asked == [(url, f"{s}.txt", md5) for s, (url, md5) in datasets.WIKITEXT_2.items()]


there = datasets.available()["wikitext-2"]


@pytest.mark.skipif(not there, reason=f"{datasets.data_home()} has no wikitext-2")
def test_the_published_wikitext():
    found = datasets.wikitext_2()
    assert {s: len(a) for s, a in found.items()} == {"train": 600, "valid": 60, "test": 60}
    assert found["test"][1][0] == "= Du Fu ="
    assert min(len(" ".join(a).split()) for part in found.values() for a in part) > LENGTH


# ---- sentences ----


def test_what_data_may_be_is_said():
    with pytest.raises(ValueError, match="data is 'pile', but must be 'bundled' or 'full'"):
        pl.language_model("pile")


@pytest.mark.parametrize(
    ("source", "missing", "said"),
    [
        ("HuggingFaceTB/SmolLM2-135M", {"transformers"}, "without transformers, which"),
        ("a/model.gguf", {"gguf", "accelerate"}, "without gguf and accelerate, which"),
    ],
)
def test_packages_that_are_missing_are_named(source, missing, said, monkeypatch):
    monkeypatch.setattr(llm, "find_spec", lambda name: None if name in missing else name)
    with pytest.raises(ModuleNotFoundError) as error:
        pl.language_model("full", source)
    assert str(error.value).startswith(f"{source} can't be read {said}")
    assert 'pip install -e ".[llm]"' in str(error.value)


def test_files_and_folders_that_hold_no_model(tmp_path, monkeypatch):
    monkeypatch.setattr(llm, "find_spec", lambda name: name)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*model\.gguf"):
        llm.load(tmp_path / "model.gguf")
    with pytest.raises(
        FileNotFoundError, match=r"the folder .* has no config\.json: name a folder"
    ):
        llm.load(tmp_path)


# ---- the bundled tier ----


def test_bundled_is_the_courses_own_network_and_the_beginning_of_each_document(monkeypatch):
    whole = pl.language()
    monkeypatch.setattr(llm, "language", lambda: whole)  # once is enough
    task, own = pl.language_model(), pl.pretrained(whole, 0)
    for split, (tokens, document) in task.splits.items():
        assert document.tolist() == list(range(len(whole.texts[split])))
        before, of = whole.splits[split]
        assert all(tokens[i].equal(before[of == i][0]) for i in (0, 1, len(tokens) - 1))
    first, again = task.build(0), task.build(7)
    assert all(a.equal(b) for a, b in zip(first.parameters(), own.parameters(), strict=True))
    assert all(a.equal(b) for a, b in zip(again.parameters(), own.parameters(), strict=True))
    assert len(task.by_document(first, "valid")[0]) == len(whole.texts["valid"])
    assert blocks_of(first)[0] == "blocks"
    assert matrices_of(first) == [n for n in pl.prunable(first) if n.startswith("blocks")]


# ---- parts of a model ----


class Block(nn.Module):
    """Turns the vector that passes through it by an angle."""

    def __init__(self, degrees):
        super().__init__()
        self.linear = nn.Linear(2, 2, bias=False)
        c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        self.linear.weight = nn.Parameter(torch.tensor([[c, -s], [s, c]]))
        self.experts = nn.ModuleList(nn.Identity() for _ in range(9))

    def forward(self, hidden_states):
        return self.linear(hidden_states)


class Small(nn.Module):
    def __init__(self, by_name=False, pair=False):
        super().__init__()
        self.others = nn.ModuleList([nn.Linear(2, 2)])
        self.layers = nn.ModuleList(map(Block, (10, 60, 0)))
        self.head = nn.Linear(2, 2)
        self.by_name, self.pair = by_name, pair

    def forward(self, x):
        for layer in self.layers:
            x = layer(hidden_states=x) if self.by_name else layer(x)
        return x


def test_blocks_are_the_longest_list_that_is_in_no_other():
    name, blocks = blocks_of(Small())
    assert name == "layers" and len(blocks) == 3
    assert matrices_of(Small()) == [f"layers.{i}.linear.weight" for i in range(3)]
    with pytest.raises(ValueError, match=r"Linear has no nn\.ModuleList"):
        blocks_of(nn.Linear(2, 2))


@pytest.mark.parametrize("by_name", [False, True])
def test_influence_is_one_minus_the_cosine(by_name):
    model = Small(by_name).train()
    batches = [(torch.randn(n, 4, 2, generator=torch.Generator().manual_seed(n)),) for n in (3, 1)]
    found = block_influence(model, lambda model, batch: model(batch[0]).sum(), batches)
    assert found == pytest.approx([1 - math.cos(math.radians(a)) for a in (10, 60, 0)], abs=1e-6)
    assert model.training and not any(block._forward_hooks for block in model.layers)


def test_influence_counts_places_and_not_batches():
    model = Small()
    model.layers[0].linear.weight.data = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    along, across = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]]).repeat(1, 3, 1)
    found = block_influence(model, lambda m, batch: m(batch), [along, across])
    assert found[0] == pytest.approx(0.75)


def test_blocks_are_removed_from_a_copy():
    model, x = Small(), torch.randn(1, 2)
    short = without_blocks(model, [1])
    assert len(model.layers) == 3 and len(short.layers) == 2
    assert short(x).equal(model.layers[2](model.layers[0](x)))
    for wrong in ([3], [-1], [0, 1, 2]):
        with pytest.raises(
            ValueError, match=r"can't be removed: they are numbered 0 to 2, and one"
        ):
            without_blocks(model, wrong)


def test_experts_in_one_tensor_are_said():
    model = Small()
    model.layers[1].all_experts = nn.Parameter(torch.zeros(4, 2, 2))
    with pytest.raises(
        ValueError, match=r"57% of the weights in Small's blocks, such as 1\.all_exp"
    ):
        llm.check(model)


# ---- models of transformers ----

VOCABULARY = 300
SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 512, "head_dim": 8, "bos_token_id": None, "eos_token_id": 0, "pad_token_id": None,
}  # fmt: skip
FAMILIES = {
    "LlamaConfig": SHAPE | {"tie_word_embeddings": True},
    "Qwen2Config": SHAPE | {"tie_word_embeddings": False},
    "GPTNeoXConfig": {k: v for k, v in SHAPE.items() if k not in ("num_key_value_heads", "head_dim")},
    "Gemma3TextConfig": SHAPE | {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "OPTConfig": {"vocab_size": VOCABULARY, "hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
                  "max_position_embeddings": 512, "word_embed_proj_dim": 16},
    "GPT2Config": {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 512, "bos_token_id": 0, "eos_token_id": 0},
}  # fmt: skip

OTHERS = {
    "BertConfig": {"vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2},
}  # fmt: skip
END = 256


def made(family):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = getattr(transformers, family)(**(FAMILIES | OTHERS)[family])
    network = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in network.parameters():  # as they begin, attention would do next to nothing
        nn.init.normal_(parameter, std=0.3)
    return network


@pytest.fixture
def saved(request, tmp_path):
    """A folder with a network of a family and a tokenizer of bytes, as save_pretrained writes it."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    made(request.param).save_pretrained(tmp_path / "model")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet(), key="w".__ne__)  # token 0 is in use
    pieces = {letter: i for i, letter in enumerate([*letters, "<end>"])}
    tokenizer = Tokenizer(models.BPE(vocab=pieces, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_block_removed_is_a_block_passed_by(family):
    model = llm.Logits(llm.with_linear(made(family)))
    tokens = torch.randint(VOCABULARY, (2, 20), generator=torch.Generator().manual_seed(0))
    blocks = blocks_of(model)[1]

    def pass_by(block, args, kwargs, output):
        before = args[0] if args else kwargs["hidden_states"]
        return (before, *output[1:]) if isinstance(output, tuple) else before

    with torch.no_grad():
        dense, short = model(tokens), without_blocks(model, [1])(tokens)
        blocks[1].register_forward_hook(pass_by, with_kwargs=True)
        assert short.allclose(model(tokens), atol=1e-5)
        assert not short.allclose(dense, atol=1e-2)
    influence = block_influence(model, lambda m, batch: m(batch), [tokens])
    assert influence[1] == pytest.approx(0, abs=1e-6) and min(influence[0], influence[2]) > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_matrices_are_all_of_the_blocks_and_nothing_else(family):
    model = llm.Logits(llm.with_linear(made(family)))
    llm.check(model)
    blocks = blocks_of(model)[1]
    assert {id(model.get_parameter(n)) for n in matrices_of(model)} == {
        id(p) for p in blocks.parameters() if p.dim() == 2
    }


def test_layers_of_gpt2_become_linear_and_give_the_same():
    network = made("GPT2Config")
    tokens = torch.randint(VOCABULARY, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = network(tokens).logits
        after = llm.with_linear(network)(tokens).logits
    assert after.allclose(before, atol=1e-5)
    assert not any(type(m).__name__ == "Conv1D" for m in network.modules())
    assert network.transformer.h[0].mlp.c_fc.weight.shape == (64, 16)
    assert network.lm_head.weight is network.transformer.wte.weight


@pytest.mark.parametrize("saved", ["LlamaConfig", "GPT2Config"], indirect=True)
def test_a_task_on_a_folder(saved, folder, monkeypatch):
    long = {s: [[f"= {s} {i} =", f"word {i} " * 99] for i in range(3)] for s in ("train", "valid", "test")}  # fmt: skip
    monkeypatch.setattr(datasets, "wikitext_2", lambda: long)
    task = pl.language_model("full", saved)
    assert task.name == "language-model" and list(task.texts["test"])[1] == "1 test 1"
    tokens, document = task.splits["test"]
    assert tokens.shape == (3, LENGTH + 1) and document.tolist() == [0, 1, 2]
    assert tokens[:, 0].tolist() == [END] * 3  # the end of a text, for its beginning has no token
    assert (tokens == 0).any()
    assert task.tokenizer.decode(tokens[2, 1:]) == "\n".join(long["test"][2])[:LENGTH]
    model = task.build(0)
    assert not model.training and model is not task.build(0)
    total, count = task.by_document(model, "test")
    assert count.tolist() == [LENGTH] * 3
    with torch.no_grad():
        by_hand = -model(tokens[:, :-1]).log_softmax(2).gather(2, tokens[:, 1:, None]).sum((1, 2))
        assert total == pytest.approx(by_hand.numpy(), rel=1e-4)
        batch = next(iter(task.batches("test", size=3)))
        assert task.loss(model, batch).item() == pytest.approx(total.sum() / count.sum(), rel=1e-4)
    assert task.metrics(model, "test")["perplexity"] == pytest.approx(
        math.exp(total.sum() / count.sum())
    )
    names, text = matrices_of(model), list(task.batches("train", size=2))
    masks = pl.select(pl.wanda(model, task.loss, text, names=names), 0.5, grain=pl.in_rows)
    pl.reconstruct(model, task.loss, text, 0.5, grain=pl.n_of_m(2, 4), names=names)
    weights = pl.weights_of(model, names)
    assert all((w == 0).float().mean() == 0.5 for w in weights.values())
    assert all(m.float().mean() == 0.5 for m in masks.values())
    fresh = pl.weights_of(task.build(0), names)
    assert not any((w == 0).any() for w in fresh.values())
    start = task.write(model, "the word", 5, seed=1)
    assert start.startswith("the word") and start == task.write(model, "the word", 5, seed=1)


@pytest.mark.parametrize("saved", ["LlamaConfig"], indirect=True)
def test_windows_of_a_text(saved):
    _, tokenizer = llm.load(saved)
    text = ["abc" * LENGTH]
    cut = llm._windows(tokenizer, [END], text, None)
    assert cut.shape == (3, LENGTH + 1) and (cut[:, 0] == END).all()
    assert tokenizer.decode(cut[:, 1:].flatten()) == text[0]
    bare = llm._windows(tokenizer, [], text, 1)
    assert bare.shape == (1, LENGTH + 1) and tokenizer.decode(bare[0]) == text[0][: LENGTH + 1]
    assert llm._windows(tokenizer, [END], ["short"], None).shape == (0, LENGTH + 1)


@pytest.mark.parametrize("saved", ["LlamaConfig"], indirect=True)
def test_a_folder_that_is_no_language_model_is_said(saved, monkeypatch):
    (saved / "config.json").write_text('{"model_type": "no_such"}')
    with pytest.raises(OSError, match=r"model could not be read: .*no_such"):
        llm.load(saved)


def test_a_name_that_is_not_to_be_had(monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        OSError, match=r"nobody/none could not be read: .* it was asked for by name"
    ):
        llm.load("nobody/none")


@pytest.mark.parametrize("saved", ["BertConfig"], indirect=True)
def test_a_network_that_sees_what_comes_is_said(saved):
    with pytest.raises(
        ValueError, match="BertLMHeadModel sees what comes later, so it is no causal"
    ):
        llm.load(saved)
