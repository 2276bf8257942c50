"""Tasks and their data, bundled and full; downloads from a server on this machine alone."""

import dataclasses
import gzip
import hashlib
import http.server
import io
import json
import os
import re
import runpy
import shutil
import socket
import struct
import threading
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from torchvision.datasets import FashionMNIST

import pruninglib as pl
from pruninglib.tasks import datasets
from pruninglib.tasks.digits import cnn, mlp, resnet

BODY = bytes(range(256)) * 40
MD5 = hashlib.md5(BODY).hexdigest()

# ---- the bundled tier ----


@pytest.fixture(scope="module", params=["mlp", "cnn", "resnet"])
def task(request):
    return pl.digits(model=request.param)


def rows(split):
    return {tuple(image.flatten().tolist()) for image in split[0]}


def test_splits_partition_the_digits(task):
    assert {k: len(y) for k, (_, y) in task.splits.items()} == {
        "train": 1000, "valid": 297, "test": 500,
    }  # fmt: skip
    images, classes = datasets.handwritten_digits()
    assert images.shape == (1797, 1, 8, 8) and images.dtype == torch.float32
    assert images.min() == 0 and images.max() == 1 and classes.dtype == torch.int64
    train, valid, test = (rows(split) for split in task.splits.values())
    assert not (train & valid or train & test or valid & test), "an image is in two splits"
    assert train | valid | test == rows((images, classes))
    for _, y in task.splits.values():  # stratified
        shares = torch.bincount(y, minlength=10) / len(y)
        assert (shares - torch.bincount(classes) / len(classes)).abs().max() < 0.005
    # images with their classes
    pairs = {(tuple(i.flatten().tolist()), int(c)) for i, c in zip(images, classes, strict=True)}
    for x, y in task.splits.values():
        assert {(tuple(i.flatten().tolist()), int(c)) for i, c in zip(x, y, strict=True)} <= pairs


def test_splits_are_the_same_every_time(task):
    torch.manual_seed(9)
    again = pl.digits().splits
    for name, (x, y) in task.splits.items():
        assert again[name][0].equal(x) and again[name][1].equal(y)


def test_building_depends_on_its_seed_alone(task):
    state = torch.get_rng_state()
    one, same, other = (task.build(seed).state_dict() for seed in (1, 1, 2))
    assert torch.get_rng_state().equal(state)
    assert all(one[n].equal(same[n]) for n in one)
    assert any((one[n] != other[n]).any() for n in one)


@pytest.mark.parametrize("pixels", [8, 28])
@pytest.mark.parametrize("build", [mlp, cnn, resnet])
def test_models_of_every_width(build, pixels):
    images, sizes = torch.rand(3, 1, pixels, pixels), []
    for width in (0.001, 0.5, 1.0, 2.0):
        model = build(pixels, 0, width)
        assert model(images).shape == (3, 10) and all(len(p) for p in model.parameters())
        sizes.append(sum(p.numel() for p in model.parameters()))
    assert sizes == sorted(set(sizes))
    assert (
        pl.prunable(build(pixels, 0))
        == {
            mlp: ["hidden1.weight", "hidden2.weight", "output.weight"],
            cnn: ["conv1.weight", "conv2.weight", "conv3.weight", "output.weight"],
            resnet: [
                "conv.weight",
                "block1.conv1.weight",
                "block1.conv2.weight",
                "block2.conv1.weight",
                "block2.conv2.weight",
                "block2.shortcut.conv.weight",
                "block3.conv1.weight",
                "block3.conv2.weight",
                "block3.shortcut.conv.weight",
                "output.weight",
            ],
        }[build]
    )


def test_training_is_repeatable_and_learns(task):
    torch.manual_seed(1)
    first, second = task.build(0), task.build(0)
    chance = task.score(first, "valid")
    task.train(first, seed=0, epochs=4)
    torch.manual_seed(2)
    task.train(second, seed=0, epochs=4)
    assert all(p.equal(q) for p, q in zip(first.parameters(), second.parameters(), strict=True))
    other = task.build(0)
    task.train(other, seed=1, epochs=4)
    assert any(p.ne(q).any() for p, q in zip(first.parameters(), other.parameters(), strict=True))
    assert chance < 0.3 and task.score(first, "valid") > 0.8
    metrics = task.metrics(first, "test")
    assert set(metrics) == {"loss", "accuracy", "precision", "recall"}
    assert task.metrics(first, "test") == metrics
    assert task.score(first, "test") == metrics[task.primary] == metrics["accuracy"]
    x, y = task.splits["test"]
    assert metrics["accuracy"] == pytest.approx((first(x).argmax(1) == y).float().mean().item())


def test_training_for_no_epochs_changes_nothing(task):
    model = task.build(0)
    assert task.train(model, seed=0, epochs=0) == []
    assert all(
        p.equal(q) for p, q in zip(model.parameters(), task.build(0).parameters(), strict=True)
    )


def test_a_cooling_task_ends_at_a_rate_of_zero():
    task, rates = pl.digits(model="resnet"), []

    def watched(parameters):
        optimizer = pl.digits(model="resnet").optimizer(parameters)
        optimizer.register_step_pre_hook(lambda *_: rates.append(optimizer.param_groups[0]["lr"]))
        return optimizer

    assert task.cooling and not pl.digits().cooling
    task = dataclasses.replace(task, optimizer=watched)
    for epochs in (2, 1):  # each training its own half cosine
        rates.clear()
        task.train(task.build(0), seed=0, epochs=epochs)
        steps = torch.arange(20.0 * epochs)
        due = 0.05 * (1 + torch.cos(torch.pi * steps / len(steps))) / 2
        assert rates == pytest.approx(due.tolist(), abs=1e-6)


@pytest.mark.parametrize("pixels, size", [(8, 8), (16, 16), (28, 14)])
def test_the_residual_network_halves_large_images_at_its_entrance(pixels, size):
    model, images = resnet(pixels, 0), torch.rand(2, 1, pixels, pixels)
    assert model.conv(images).shape[-1] == size
    first = model[:3](images)  # an identity, where sizes agree, and a block that is added to it
    inside = model.block1.norm2(
        model.block1.conv2(model.block1.norm1(model.block1.conv1(first)).relu())
    )
    assert torch.allclose(model.block1(first), (first + inside).relu(), atol=1e-6)


def test_batches_of_a_task(task):
    assert len(task.batches("train")) == 20 and len(task.batches("valid", size=100)) == 3
    x, _ = next(iter(task.batches("valid")))
    assert x.equal(task.splits["valid"][0][:50])
    assert not next(iter(task.batches("valid", seed=0)))[0].equal(x)


def test_every_task_has_a_name_of_its_own():
    assert {pl.digits(model=m).name for m in ("mlp", "cnn", "resnet")} == {
        "digits-mlp-bundled", "digits-cnn-bundled", "digits-resnet-bundled",
    }  # fmt: skip


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"data": "fulll"}, "data is 'fulll', but must be 'bundled' or 'full'"),
        ({"model": "vgg"}, "model is 'vgg', but must be 'mlp', 'cnn' or 'resnet'"),
    ],
)
def test_a_task_that_does_not_exist(arguments, message):
    with pytest.raises(ValueError, match=message):
        pl.digits(**arguments)


def test_sizes_that_do_not_add_up():
    with pytest.raises(ValueError, match="sizes add up to 9, but there are 10"):
        datasets.split(torch.rand(10, 2), torch.arange(10) % 2, {"train": 5, "test": 4})


# ---- generated sets ----

SCRIPT = Path(pl.__file__).parents[1] / "data" / "generate.py"
GENERATE = runpy.run_path(str(SCRIPT))


def test_the_script_writes_the_same_files_again(tmp_path):
    runpy.run_path(shutil.copy(SCRIPT, tmp_path), run_name="__main__")
    for name in GENERATE["FILES"]:
        assert (tmp_path / name).read_bytes() == SCRIPT.with_name(name).read_bytes(), name


def test_a_clone_without_its_data(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "HERE", tmp_path)
    readers = (
        datasets.generated_reviews,
        datasets.generated_ratings,
        datasets.generated_translations,
        datasets.generated_reports,
    )
    for read in readers:
        with pytest.raises(FileNotFoundError, match=r"is missing: bring it back with `git checkou"):
            read()


NEGATION = r"\b(?:not|never|nothing|far from)\b"
STRENGTHS = {
    word: strength
    for part in (GENERATE["COMMON"], GENERATE["RARE"])
    for strength, words in part.items()
    for word in words
}


def value(clause):
    """What a clause says, from its words alone."""
    (strength,) = [STRENGTHS[word] for word in clause.split() if word in STRENGTHS] or [0]
    if re.search(NEGATION, clause):
        return -strength
    weak, strong = (re.search(p, clause) for p in ("slightly|somewhat", "very|utterly"))
    return strength * (1 if weak else 3 if strong else 2)


def test_generated_reviews_say_what_their_labels_say():
    reviews = datasets.generated_reviews()
    assert reviews["label"].value_counts().to_dict() == {0: 5000, 1: 5000}
    assert reviews["text"].is_unique and 0.02 < reviews["flipped"].mean() < 0.03
    main = (
        reviews["text"]
        .str.replace(r"although .*? , ", "", regex=True)
        .str.replace(r" , even though .*? \.", " .", regex=True)
        .str.replace(r"(^| \. )[^.]*(?: , but | ; still , )", r"\1", regex=True)
    )
    values = main.str.split(r" \. | and ").map(lambda clauses: sum(map(value, clauses)))
    assert ((values > 0) == (reviews["label"] == 1)).eq(~reviews["flipped"]).all()
    assert (values != 0).all() and (main != reviews["text"]).eq(reviews["contrast"]).all()
    assert reviews["text"].str.contains(NEGATION).eq(reviews["negation"]).all()
    counts = reviews["text"].str.split().explode().value_counts()
    rare = {word for words in GENERATE["RARE"].values() for word in words}
    assert 5 * counts[list(rare)].max() < counts[list(set(STRENGTHS) - rare)].min()
    assert reviews["text"].map(lambda t: not rare.isdisjoint(t.split())).eq(reviews["rare"]).all()
    assert set(reviews.select_dtypes("bool")) == {"flipped", "negation", "contrast", "rare"}
    assert reviews["words"][0] == reviews["text"][0].count(" ") + 1


def test_a_bag_of_words_cannot_read_the_reviews():
    reviews = datasets.generated_reviews()
    train, test = reviews[:8000], reviews[8000:]
    right = {}
    for longest in (1, 3):
        bag = CountVectorizer(token_pattern=r"\S+", ngram_range=(1, longest))
        counts = bag.fit_transform(train["text"])
        model = LogisticRegression(max_iter=500).fit(counts, train["label"])
        right[longest] = model.predict(bag.transform(test["text"])) == test["label"]
    hard = test["negation"] | test["contrast"]
    assert right[1][~hard].mean() > 0.9 and right[1][hard].mean() < 0.5
    assert right[1].mean() + 0.05 < right[3].mean() < 0.85


def test_generated_ratings_have_taste_beyond_popularity():
    ratings = datasets.generated_ratings()
    assert not ratings.duplicated(["user", "item"]).any()
    assert (ratings["user"].unique() == np.arange(800)).all()
    assert set(ratings["item"]) == set(range(400))
    assert ratings.groupby("user")["time"].is_monotonic_increasing.all()
    assert not ratings.duplicated(["user", "time"]).any()
    counts = ratings["item"].value_counts()
    assert 0.25 < counts[:40].sum() / len(ratings) < 0.35 and counts.min() >= 10
    taken = ratings["user"].value_counts()
    assert taken.min() == 10 and taken.max() > 5 * taken.median()

    parts = datasets.leave_last_out(ratings)
    train, test = np.zeros((800, 400)), np.zeros((800, 400), dtype=bool)
    test[parts["test"]["user"], parts["test"]["item"]] = True
    train[parts["train"]["user"], parts["train"]["item"]] = 1
    train_or_valid = train.copy()
    train_or_valid[parts["valid"]["user"], parts["valid"]["item"]] = 1

    def recall(scores):
        order = np.argsort(np.where(train_or_valid, np.inf, -scores), axis=1)
        return np.take_along_axis(test, order[:, :20], axis=1).sum() / test.sum()

    popularity = np.broadcast_to(train.sum(0), train.shape)
    left, sizes, right = np.linalg.svd(train, full_matrices=False)
    factors = left[:, :8] * sizes[:8] @ right[:8]
    assert 0.2 < recall(popularity) < 0.26 and recall(factors) > recall(popularity) + 0.1


def test_leaving_the_last_out():
    rows = pd.DataFrame(
        [
            (3, "e", 5), (1, "a", 20), (2, "x", 1), (1, "b", 10), (3, "f", 5), (3, "g", 4),
            (1, "c", 30), (2, "y", 2), (1, "d", 10),
        ],
        columns=["user", "item", "time"],
    )  # fmt: skip
    parts = datasets.leave_last_out(rows)
    found = {name: list(zip(p["user"], p["item"], strict=True)) for name, p in parts.items()}
    assert found == {
        "train": [(1, "b"), (1, "d"), (3, "g")],
        "valid": [(1, "a"), (3, "e")],
        "test": [(1, "c"), (3, "f")],
    }
    with pytest.raises(ValueError, match="most is 0, but each user needs a row for valid and one"):
        datasets.leave_last_out(rows, most=0)


@pytest.mark.parametrize(
    ("count", "most", "left"), [(14, 20, (11, 1, 2)), (20, 20, (14, 2, 4)), (300, 20, (260, 20, 20)), (20, 3, (15, 2, 3))]
)  # fmt: skip
def test_the_last_fifth_and_the_tenth_before_it(count, most, left):
    parts = datasets.leave_last_out(pd.DataFrame({"user": 0, "time": range(count)}), most)
    assert tuple(len(part) for part in parts.values()) == left
    assert pd.concat(parts)["time"].tolist() == list(range(count))


# ---- downloads ----


@pytest.fixture
def server(monkeypatch):
    """A web server whose answers the test sets: path -> (status, body, announced length).

    It hangs after each body while `flows` is clear.
    """
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "*")
    answers, asked, flows = {}, [], threading.Event()
    flows.set()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            status, body, length = answers.get(self.path, (404, b"not here", 8))
            self.send_response(status)
            if length is not None:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()
            flows.wait(10)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        running.answers, running.asked, running.flows = answers, asked, flows
        running.url = f"http://127.0.0.1:{running.server_port}/"
        yield running
        flows.set()
        running.shutdown()
        thread.join()


def files_in(folder):
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file())


def test_a_download_is_made_once_with_progress(server, tmp_path, capsys):
    server.answers["/set.gz"] = (200, BODY, len(BODY))
    path = tmp_path / "new" / "folder" / "set.gz"
    for _ in range(2):
        assert datasets.fetch(server.url + "set.gz", path, MD5) == path
    assert path.read_bytes() == BODY and server.asked == ["/set.gz"]
    assert "100%" in capsys.readouterr().err and files_in(tmp_path) == ["new/folder/set.gz"]


ALTERED = BODY[:-1] + b"!"


@pytest.mark.parametrize(
    "body, length",
    [(BODY[:5000], 5000), (BODY[:5000], None), (ALTERED, len(BODY)), (b"", 0)],
    ids=["truncated", "truncated-unannounced", "altered", "empty"],
)
def test_a_download_of_something_else(body, length, server, tmp_path):
    server.answers["/set.gz"] = (200, body, length)
    found = hashlib.md5(body).hexdigest()
    message = f"download of set.gz is not the published file (md5 is {found}, published {MD5})"
    with pytest.raises(ValueError, match=re.escape(message)):
        datasets.fetch(server.url + "set.gz", tmp_path / "set.gz", MD5)
    assert files_in(tmp_path) == []
    server.answers["/set.gz"] = (200, BODY, len(BODY))  # and the next try starts clean
    assert datasets.fetch(server.url + "set.gz", tmp_path / "set.gz", MD5).read_bytes() == BODY


@pytest.mark.parametrize(
    "answer, flows, reason",
    [
        ((404, b"gone", 4), True, "HTTPError"),
        ((200, BODY[:5000], len(BODY)), True, "ChunkedEncodingError"),
        ((200, BODY[:5000], len(BODY)), False, "ConnectionError"),
    ],
    ids=["404", "connection-lost", "stalled"],
)
def test_a_download_that_fails(answer, flows, reason, server, tmp_path, monkeypatch):
    server.answers["/set.gz"] = answer
    if not flows:
        server.flows.clear()
        monkeypatch.setattr(datasets, "TIMEOUT", 0.5)
    path = tmp_path / "set.gz"
    message = (
        f"set.gz could not be downloaded ({reason}): "
        f"put the file of {server.url}set.gz at {path} by hand"
    )
    with pytest.raises(OSError, match=re.escape(message)):
        datasets.fetch(server.url + "set.gz", path, MD5)
    assert files_in(tmp_path) == []
    server.flows.set()
    server.answers["/set.gz"] = (200, BODY, len(BODY))
    assert datasets.fetch(server.url + "set.gz", path, MD5).read_bytes() == BODY


def test_no_network(server, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/set.gz"
        with pytest.raises(OSError, match=r"\(ConnectionError\): put the file .* by hand"):
            datasets.fetch(url, tmp_path / "set.gz", MD5)
    assert files_in(tmp_path) == []


def test_an_altered_file_in_the_data_folder(server, tmp_path):
    path = tmp_path / "set.gz"
    path.write_bytes(ALTERED)
    with pytest.raises(ValueError, match=r"set\.gz is not the published file: delete it.*md5 is"):
        datasets.fetch(server.url + "set.gz", path, MD5)
    assert path.read_bytes() == ALTERED and not server.asked


def test_a_data_folder_that_cannot_be_written(server, tmp_path):
    server.answers["/set.gz"] = (200, BODY, len(BODY))
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"set\.gz is missing and .*file.* can't be written.*by hand"):
        datasets.fetch(server.url + "set.gz", tmp_path / "file" / "set.gz", MD5)
    assert files_in(tmp_path) == ["file"]


# ---- the full tier ----


def idx(values):
    """A tensor of bytes in the format of MNIST's files."""
    return struct.pack(f">I{values.dim()}I", 0x800 + values.dim(), *values.shape) + bytes(
        values.flatten().tolist()
    )


def test_fashion_mnist_is_downloaded_verified_and_read(server, tmp_path, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    made, resources = {}, []
    for part, count in (("train", 6), ("t10k", 4)):
        images = torch.randint(256, (count, 28, 28), generator=generator)
        classes = torch.randint(10, (count,), generator=generator)
        made["train" if part == "train" else "test"] = images, classes
        for kind, values in (("images-idx3", images), ("labels-idx1", classes)):
            name, body = f"{part}-{kind}-ubyte.gz", gzip.compress(idx(values))
            server.answers["/" + name] = (200, body, len(body))
            resources.append((name, hashlib.md5(body).hexdigest()))
    monkeypatch.setenv("PRUNINGLIB_DATA", str(tmp_path))
    monkeypatch.setattr(FashionMNIST, "mirrors", [server.url])
    monkeypatch.setattr(FashionMNIST, "resources", resources)
    assert not datasets.available()["FashionMNIST"]
    for _ in range(2):
        for name, (images, classes) in datasets.fashion_mnist().items():
            expected, labels = made[name]
            assert images.equal(expected.float().div(255).unsqueeze(1)) and classes.equal(labels)
    assert len(server.asked) == 4 and datasets.available()["FashionMNIST"]
    # nothing but the published files, where torchvision keeps them
    assert files_in(tmp_path) == sorted(f"FashionMNIST/raw/{name}" for name, _ in resources)
    path = tmp_path / "FashionMNIST" / "raw" / resources[0][0]
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match=f"{path.name} is not the published file"):
        datasets.fashion_mnist()


def zipped(files):
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return body.getvalue()


ARCHIVED = {  # name: what its archive holds, what is read from it
    "rt-polarity": (
        {
            "sentence_polarity/rt-polarity.neg": "dull , dull\x85 \nna\xefve \x96 at best . \n",
            "sentence_polarity/rt-polarity.pos": "a \x91treat\u2019 . \n",
        },
        lambda: [list(part) for part in datasets.film_reviews()],
        [["dull , dull", "naïve – at best .", "a ‘treat’ ."], [0, 0, 1]],
    ),
    "movielens": (
        {
            "ml-latest-small/ratings.csv": "userId,movieId,rating,timestamp\r\n7,30,0.5,99\r\n7,4,5.0,1\r\n",
            "ml-latest-small/movies.csv": 'movieId,title,genres\r\n4,"Wait, the (1901) (1995)",Comedy|War\r\n'
            "30,Soon,(no genres listed)\r\n",
        },
        lambda: [datasets.movielens().to_dict("list"), datasets.films().to_dict("list")],
        [
            {"user": [7, 7], "item": [30, 4], "rating": [0.5, 5.0], "time": [99, 1]},
            {
                "item": [4, 30],
                "year": [1995, 0],
                "genres": [["Comedy", "War"], ["(no genres listed)"]],
            },
        ],
    ),
}


@pytest.mark.parametrize("name", ARCHIVED)
def test_archives_are_downloaded_verified_and_read(name, server, tmp_path, monkeypatch):
    monkeypatch.setenv("PRUNINGLIB_DATA", str(tmp_path / "data"))
    files, read, expected = ARCHIVED[name]
    body = zipped(files | {"../out": "no", "../../out": "no", "/out": "no"})
    url = server.url + "folder/set.zip"
    monkeypatch.setitem(datasets.ARCHIVES, name, (url, hashlib.md5(body).hexdigest()))
    altered = body.replace(b"rt-polarity.pos", b"rt-polarity.txt").replace(b"0.5", b"0.6")
    for answer in [
        (404, b"gone", 4),
        (200, body[:-9], len(body)),
        (200, body[:-9], len(body) - 9),
        (200, altered, len(body)),
    ]:
        server.answers["/folder/set.zip"] = answer
        with pytest.raises((OSError, ValueError), match=r"set\.zip"):
            read()
        assert files_in(tmp_path) == [] and not datasets.available()[name]
    server.answers["/folder/set.zip"] = (200, body, len(body))
    assert read() == read() == expected
    assert len(server.asked) == 5 and datasets.available()[name]
    assert files_in(tmp_path) == [f"data/{name}/set.zip"], "unpacked, or led out of the folder"
    (tmp_path / "data" / name / "set.zip").write_bytes(altered)
    with pytest.raises(ValueError, match=r"set\.zip is not the published file: delete it"):
        read()


def test_papers_are_downloaded_verified_and_read(server, tmp_path, monkeypatch):
    monkeypatch.setenv("PRUNINGLIB_DATA", str(tmp_path))
    monkeypatch.setattr(datasets, "SCITLDR", dict(datasets.SCITLDR))
    expected = {}
    for split, (url, _) in datasets.SCITLDR.items():
        assert url.startswith("https://raw.githubusercontent.com/allenai/scitldr/")
        name = url.rpartition("/")[2]
        paper = [f"The first of {split}, na\xefve."], ["A summary."]
        line = json.dumps(dict(zip(("source", "target"), paper, strict=True)), ensure_ascii=False)
        body = line.encode()
        server.answers["/" + name] = (200, body, len(body))
        address = server.url + name, hashlib.md5(body).hexdigest()
        monkeypatch.setitem(datasets.SCITLDR, split, address)
        expected[split] = [paper]
    assert not datasets.available()["scitldr"]
    assert datasets.scitldr() == datasets.scitldr() == expected
    assert len(server.asked) == 3 and datasets.available()["scitldr"]
    assert files_in(tmp_path) == [f"scitldr/{n}.jsonl" for n in ("dev", "test", "train")]


def test_no_tier_falls_back_to_the_other(server, tmp_path, monkeypatch):
    monkeypatch.setenv("PRUNINGLIB_DATA", str(tmp_path))
    monkeypatch.setattr(FashionMNIST, "mirrors", [server.url])
    with pytest.raises(OSError, match="could not be downloaded"):
        pl.digits(data="full")
    pl.digits(data="bundled")
    assert len(server.asked) == 1, "the bundled tier asked the network"


def test_the_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("PRUNINGLIB_DATA", str(tmp_path))
    assert datasets.data_home() == tmp_path
    for unset in (lambda: monkeypatch.setenv("PRUNINGLIB_DATA", ""),
                  lambda: monkeypatch.delenv("PRUNINGLIB_DATA")):  # fmt: skip
        unset()
        monkeypatch.chdir(tmp_path)
        assert datasets.data_home() == Path(pl.__file__).parents[1] / "data" / "cache"


RAW = Path(os.environ.get("PRUNINGLIB_DATA", "nowhere")) / "FashionMNIST" / "raw"


@pytest.mark.skipif(len([*RAW.glob("*.gz")]) < 4, reason="PRUNINGLIB_DATA has no FashionMNIST/raw")
def test_the_published_fashion_mnist():
    before = {f: f.stat().st_mtime_ns for f in RAW.parents[1].rglob("*")}
    task = pl.digits("full", "cnn")
    assert {f: f.stat().st_mtime_ns for f in RAW.parents[1].rglob("*")} == before
    counts = {name: torch.bincount(y).tolist() for name, (_, y) in task.splits.items()}
    assert counts == {"train": [5500] * 10, "valid": [500] * 10, "test": [1000] * 10}
    x = torch.cat([task.splits[s][0] for s in ("train", "valid")])
    assert x.shape == (60_000, 1, 28, 28) and x.min() == 0 and x.max() == 1
    # the mean and deviation that are published with the set
    assert x.mean().item() == pytest.approx(0.2860, abs=1e-4)
    assert x.std().item() == pytest.approx(0.3530, abs=1e-4)
    assert task.build(0)(x[:2]).shape == (2, 10) and task.name != pl.digits("bundled", "cnn").name
    assert task.score(task.build(0), "valid") < 0.3


def published(name):
    there = datasets.available()[name]
    return pytest.mark.skipif(not there, reason=f"{datasets.data_home()} has no {name}")


@published("rt-polarity")
def test_the_published_film_reviews():
    sentences, labels = datasets.film_reviews()
    assert labels.bincount().tolist() == [5331, 5331] and len(set(sentences)) == 10_662
    assert labels[0] == 0 and sentences[0] == "simplistic , silly and tedious ."
    assert labels[-1] == 1 and sentences[5331].startswith("the rock is destined to be the 21st")
    characters = set("".join(sentences))
    assert (
        not any(0x7F <= ord(c) < 0xA0 or c == "\n" for c in characters) and {"é", "–"} <= characters
    )


@published("movielens")
def test_the_published_ratings():
    ratings = datasets.movielens()
    assert len(ratings) == 100_836 and not ratings.duplicated(["user", "item"]).any()
    assert ratings["user"].nunique() == 610 and ratings["item"].nunique() == 9724
    assert sorted(ratings["rating"].unique()) == [i / 2 for i in range(1, 11)]
    years = pd.to_datetime(ratings["time"], unit="s").dt.year
    assert (years.min(), years.max()) == (1996, 2018)


# ---- wrong labels


@pytest.mark.parametrize("share", [0.2, 0.4, 0.999])
def test_a_share_of_the_labels_is_wrong_and_test_keeps_the_truth(share):
    clean, noisy, again = pl.digits(), *(pl.digits(label_noise=share) for _ in range(2))
    for split, (images, labels) in noisy.splits.items():
        true = clean.splits[split][1]
        wrong = int((labels != true).sum())
        assert wrong == (0 if split == "test" else round(share * len(true)))
        assert images.equal(clean.splits[split][0]) and labels.equal(again.splits[split][1])
        assert labels.min() == 0 and labels.max() == 9
    # anywhere, and any class: the changes of both splits are not the same ones
    first, second = (noisy.splits[s][1] - clean.splits[s][1] for s in ("train", "valid"))
    assert (first[: len(second)] != second).any() and len(first.unique()) > 9
    assert noisy.name != clean.name  # rows of a comparison do not mix


@pytest.mark.parametrize("share", [-0.1, 1, float("nan")])
def test_a_share_of_wrong_labels_that_is_none(share):
    with pytest.raises(ValueError, match=r"label_noise is .*, but must lie in \[0, 1\)"):
        pl.digits(label_noise=share)


def archive_of(**files):
    """A zip file of these files, by the path with __ for /, as bytes."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "/"), text)
    return body.getvalue()


FOLDER = archive_of(master__CELLS__a="one", master__CELLS__b__c="two", master__readme="three")


@pytest.fixture
def content(tmp_path):
    """The checksum of the folder CELLS in that archive."""
    lines = [f"{hashlib.md5(t).hexdigest()}  {n}\n" for n, t in (("a", b"one"), ("b/c", b"two"))]
    return hashlib.md5("".join(lines).encode()).hexdigest()


def test_a_folder_of_an_archive_is_downloaded_once(server, tmp_path, content):
    server.answers["/master.zip"] = (200, FOLDER, len(FOLDER))
    path = tmp_path / "cells" / "CELLS"
    for _ in range(2):
        assert datasets.fetch_folder(server.url + "master.zip", path, content) == path
    assert server.asked == ["/master.zip"]
    assert files_in(tmp_path) == ["cells/CELLS/a", "cells/CELLS/b/c"]


@pytest.mark.parametrize(
    "body, message",
    [
        (archive_of(master__CELLS__a="one"), "CELLS of .* is not the published folder"),
        (archive_of(master__CELLS__a="one", master__CELLS__b__d="two"), "not the published folder"),
        (archive_of(master__readme="three"), "no archive with a folder CELLS in it"),
        (b"<html>Please accept our terms</html>", "no archive with a folder CELLS in it"),
        (FOLDER[:100], "no archive with a folder CELLS in it"),
    ],
    ids=["a file is missing", "another name", "no such folder", "a page", "truncated"],
)
def test_an_archive_of_something_else(body, message, server, tmp_path, content):
    server.answers["/master.zip"] = (200, body, len(body))
    with pytest.raises(ValueError, match=message):
        datasets.fetch_folder(server.url + "master.zip", tmp_path / "CELLS", content)
    assert files_in(tmp_path) == []


def test_a_folder_without_a_network(server, tmp_path, content):
    server.answers["/master.zip"] = (404, b"gone", 4)
    with pytest.raises(
        OSError, match=r"CELLS could not be downloaded.*put the folder of .* by hand"
    ):
        datasets.fetch_folder(server.url + "master.zip", tmp_path / "CELLS", content)
