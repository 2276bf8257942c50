"""Where the data come from: bundled with a package, or downloaded once and verified."""

import gzip
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree
from zipfile import BadZipFile, ZipFile

import numpy as np
import pandas as pd
import requests
import torch
from PIL import Image
from scipy.io import loadmat
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torchvision.datasets import FashionMNIST

HERE = Path(__file__).resolve().parents[2] / "data"  # of the course
FASHION_MNIST = Path("FashionMNIST") / "raw"  # torchvision's own layout
ARCHIVES = {  # folder: address of the archive in it, md5 that its publisher states
    "rt-polarity": (
        "https://raw.githubusercontent.com/nltk/nltk_data/gh-pages/packages/corpora/sentence_polarity.zip",
        "5cdc0cae7f558040d050c90eb2b72e97",
    ),
    "movielens": (
        "https://files.grouplens.org/datasets/movielens/ml-latest-small.zip",
        "31a303aabbc519bd33d025e44d6c2570",
    ),
}
BLOOD_CELLS = (  # its folder BCCD, and the checksum of what is in it
    "https://github.com/Shenggan/BCCD_Dataset/archive/refs/heads/master.zip",
    "866ea2f4804ad700c9b658bc76962fdb",
)
CELLS = ("RBC", "WBC", "Platelets")
KITTI = (  # and the checksum of what is in its folder label_02: its publisher states none
    "https://s3.eu-central-1.amazonaws.com/avg-kitti/data_tracking_label_2.zip",
    "15ebe55e5d2bbe710a3ba13ee471c3ba",
)
CLOTHING = (  # the files of it that `_clothing_files` names, and the checksum of what is in them
    "https://github.com/bearpaw/clothing-co-parsing/archive/fe34fb77721a9973fbae92c05f7f12b664d10110.zip",
    "c06e3d62e4b2f7c0f7c5afa82e017b3d",
)
SCITLDR_FOLDER = "SciTLDR-Data/SciTLDR-A"
SCITLDR = {  # address, md5: its publisher states none, so the commits are named
    split: (f"https://raw.githubusercontent.com/allenai/scitldr/{commit}/{SCITLDR_FOLDER}/{file}", md5)
    for split, file, commit, md5 in (
        ("train", "train.jsonl", "1ab65db149b641766154436f0f3860ad586f869d", "a73103de10a30941947972e707481a89"),
        ("valid", "dev.jsonl", "335d4cb6dab71adce37b091ef5767d76d736d36c", "4f4986b13431148fa303c65ad110a4af"),
        ("test", "test.jsonl", "335d4cb6dab71adce37b091ef5767d76d736d36c", "fdb1e3a7b4afc69a2cee14b9e96fcdeb"),
    )
}  # fmt: skip
# What of the 59 labels is which class; all others are 0, "background".
CLOTHES = {
    "skin": "skin",
    "hair": "hair",
    "upper": "blazer blouse bra cape cardigan coat hoodie jacket jumper shirt sweater sweatshirt t-shirt top vest",
    "lower": "jeans leggings panties pants shorts skirt socks stockings tights",
    "whole": "bodysuit dress intimate romper suit swimwear",
    "shoes": "boots clogs flats heels loafers pumps sandals shoes sneakers wedges",
    "bags": "bag purse wallet",
    "accessories": "accessories belt bracelet earrings glasses gloves hat necklace ring scarf sunglasses tie watch",
}
PIXELS = Path("annotations") / "pixel-level"
PHOTOGRAPHS = {"train": 704, "valid": 150, "test": 150}  # in the order of their numbers
# Left by a conversion that took windows-1252 for latin-1: ‘ – —
QUOTE_AND_DASHES = {code: bytes([code]).decode("cp1252") for code in (0x91, 0x96, 0x97)}
TIMEOUT = 30  # seconds without an answer


def data_home() -> Path:
    """The folder of downloaded sets: `PRUNINGLIB_DATA`, or else `data/cache` of the course."""
    return Path(os.environ.get("PRUNINGLIB_DATA") or HERE / "cache")


def available() -> dict[str, bool]:
    """Which sets of the full tier are in the data folder (by presence, not verified)."""
    files = [name for name, _ in FashionMNIST.resources]
    return {
        "FashionMNIST": all((data_home() / FASHION_MNIST / f).exists() for f in files),
        **{name: _archive(name).exists() for name in ARCHIVES},
        "bccd": _blood_cells().exists(),
        "kitti-tracking": _kitti().exists(),
        "ccp": (data_home() / "ccp").exists(),
        "scitldr": all(_scitldr(split).exists() for split in SCITLDR),
    }


def handwritten_digits() -> tuple[Tensor, Tensor]:
    """The 1,797 handwritten digits that scikit-learn ships, from the UCI repository.

    Returns images, float32 of shape (1797, 1, 8, 8) in [0, 1], and classes, int64 in 0..9.
    """
    images, classes = load_digits(return_X_y=True)
    images = torch.tensor(images, dtype=torch.float32).div(16).reshape(-1, 1, 8, 8)
    return images, torch.tensor(classes)


def generated_reviews() -> pd.DataFrame:
    """10,000 short film reviews that `data/generate.py` made up: nobody wrote them.

    Columns: text, words separated by spaces; label, 1 for good and 0 for bad; words, how many;
    and true or false: flipped, whether the label was made wrong; negation, contrast, rare,
    whether the text has a negated opinion, one conceded to another, a rare word of opinion.
    """
    reviews = pd.read_csv(_bundled("reviews.tsv"), sep="\t")
    flags = ["flipped", "negation", "contrast", "rare"]
    return reviews.astype(dict.fromkeys(flags, bool)).assign(
        words=reviews["text"].str.split().str.len()
    )


def generated_ratings() -> pd.DataFrame:
    """Who took what when, made up by `data/generate.py`: 800 users, 400 items, 22,771 choices.

    Columns: user and item, numbers from 0 without gaps; time, in hours. A choice is all that is
    known of a pair of user and item (implicit feedback), and no pair comes twice.
    """
    return pd.read_csv(_bundled("ratings.csv"))


def generated_translations() -> pd.DataFrame:
    """20,000 sentences in English and French that `data/generate.py` made up by a grammar.

    Columns: english and french, lists of words, punctuation and elided words apart; marks, of each
    French word the phenomena that it shows, a letter each (`translation.PHENOMENA`). No sentence of
    either language comes twice.
    """
    rows = pd.read_csv(_bundled("translations.tsv"), sep="\t", keep_default_na=False)
    parts = {"english": " ", "french": " ", "marks": ","}
    return rows.assign(**{name: rows[name].str.split(by) for name, by in parts.items()})


def generated_reports() -> pd.DataFrame:
    """7,000 reports of matches that `data/generate.py` made up: no team and no player exists.

    Columns: report, words separated by spaces. Places of words in it, from 0: hosts, guests and
    scorer, names of two words, of the first; day; goals and against, of hosts and of guests. And
    true or false: favourite, whether the guests were; cancelled, whether a goal was that did not
    count; rare, whether the scorer's second name is a made-up one.
    """
    reports = pd.read_csv(_bundled("reports.tsv"), sep="\t")
    return reports.astype(dict.fromkeys(["favourite", "cancelled", "rare"], bool))


def _bundled(name: str) -> Path:
    path = HERE / name
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing: bring it back with `git checkout data/{name}` in the clone of "
            "the course, or make it again with `python data/generate.py`"
        )
    return path


def fashion_mnist() -> dict[str, tuple[Tensor, Tensor]]:
    """Fashion-MNIST (Xiao et al., 2017) by its published split, "train" and "test".

    Images float32 of shape (60000 or 10000, 1, 28, 28) in [0, 1], classes int64 in 0..9. The
    files are looked for in the data folder, downloaded if they are missing, and verified each time.
    """
    folder = data_home() / FASHION_MNIST
    for name, md5 in FashionMNIST.resources:
        fetch(FashionMNIST.mirrors[0] + name, folder / name, md5)
    # torchvision reads unpacked files; the data folder may be read-only, so not there
    with tempfile.TemporaryDirectory() as root:
        unpacked = Path(root) / FASHION_MNIST
        unpacked.mkdir(parents=True)
        for name, _ in FashionMNIST.resources:
            with gzip.open(folder / name) as packed, open(unpacked / name[:-3], "wb") as plain:
                shutil.copyfileobj(packed, plain)
        parts = {"train": FashionMNIST(root, train=True), "test": FashionMNIST(root, train=False)}
        return {k: (p.data.float().div(255).unsqueeze(1), p.targets) for k, p in parts.items()}


def film_reviews() -> tuple[list[str], Tensor]:
    """10,662 sentences from film reviews (Pang and Lee, 2005) and their classes.

    Sentences are in lower case, with a space before each punctuation mark; the first half is
    negative. Classes are int64, 0 negative and 1 positive.
    """
    sentences, labels = [], []
    with _open("rt-polarity") as archive:
        for label, kind in enumerate(("neg", "pos")):
            text = archive.read(f"sentence_polarity/rt-polarity.{kind}").decode("utf-8")
            lines = text.translate(QUOTE_AND_DASHES).strip().split("\n")
            sentences += [line.strip() for line in lines]
            labels += [label] * len(lines)
    return sentences, torch.tensor(labels)


def movielens() -> pd.DataFrame:
    """100,836 ratings of films, MovieLens latest-small (Harper and Konstan, 2015).

    Columns: user and item, numbers with gaps as published; rating, 0.5 to 5 by halves; time,
    seconds since 1970. One row for each pair of user and item.
    """
    with _open("movielens") as archive, archive.open("ml-latest-small/ratings.csv") as file:
        ratings = pd.read_csv(file)
    return ratings.set_axis(["user", "item", "rating", "time"], axis="columns")


def films() -> pd.DataFrame:
    """The 9,742 films of MovieLens latest-small, of the same archive as `movielens`.

    Columns: item, number as in the ratings; year, of the title, 0 where it names none; genres, a
    list of names, ["(no genres listed)"] where none is known.
    """
    with _open("movielens") as archive, archive.open("ml-latest-small/movies.csv") as file:
        rows = pd.read_csv(file)
    year = rows["title"].str.extract(r"\((\d{4})\)\s*$")[0].fillna("0").astype(int)
    return pd.DataFrame(
        {"item": rows["movieId"], "year": year, "genres": rows["genres"].str.split("|")}
    )


def scitldr() -> dict[str, list[tuple[list[str], list[str]]]]:
    """SciTLDR-A (Cachola et al., EMNLP Findings 2020): abstracts of papers, each with summaries of one sentence.

    By the published split, "train" (1,992 papers), "valid" (619) and "test" (618), of each paper the
    sentences of its abstract, as published, and its summaries: in train one, by an author; in the
    others mostly two to four, that of an author first, then such that were made of reviews. The files
    are looked for in the data folder, downloaded if they are missing, and verified.
    """
    parts = {}
    for split, (url, md5) in SCITLDR.items():
        lines = fetch(url, _scitldr(split), md5).read_text(encoding="utf-8").split("\n")
        papers = [json.loads(line) for line in lines if line]
        parts[split] = [(paper["source"], paper["target"]) for paper in papers]
    return parts


def _scitldr(split: str) -> Path:
    return data_home() / "scitldr" / SCITLDR[split][0].rpartition("/")[2]


def blood_cells() -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """BCCD (shenggan, 2017): 364 photographs of stained blood with a box around each cell.

    By the published split, "train", "valid" and "test": images uint8 (205, 87 or 72, 3, 120, 160),
    each pixel the mean of 16 published ones; classes int64 (n, 30): 0 a red cell, 1 a white one, 2 a
    platelet, -1 none; boxes float32 (n, 30, 4), x0, y0, x1, y1 in these pixels. Two boxes without area
    are left out. The folder is looked for in the data folder, downloaded if it is missing, verified.
    """
    folder, parts = fetch_folder(BLOOD_CELLS[0], _blood_cells(), BLOOD_CELLS[1]), {}
    for split, published in (("train", "train"), ("valid", "val"), ("test", "test")):
        names = (folder / "ImageSets" / "Main" / f"{published}.txt").read_text().split()
        images = []
        for name in names:
            with Image.open(folder / "JPEGImages" / f"{name}.jpg") as photograph:
                images.append(np.asarray(photograph.reduce(4)))
        classes, boxes = torch.full((len(names), 30), -1), torch.zeros(len(names), 30, 4)
        for row, name in enumerate(names):
            cells = _cells(folder / "Annotations" / f"{name}.xml")
            for place, (kind, box) in enumerate(cells):
                classes[row, place], boxes[row, place] = CELLS.index(kind), torch.tensor(box) / 4
        parts[split] = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), classes, boxes
    return parts


def _cells(path: Path) -> list[tuple[str, list[float]]]:
    """Class and box of each cell in a file of annotations, but of those without area."""
    cells = []
    for cell in ElementTree.parse(path).getroot().iter("object"):
        box = [float(cell.findtext(f"bndbox/{end}")) for end in ("xmin", "ymin", "xmax", "ymax")]
        if box[0] < box[2] and box[1] < box[3]:
            cells.append((cell.findtext("name"), box))
    return cells


def _blood_cells() -> Path:
    return data_home() / "bccd" / "BCCD"


def kitti_tracks() -> pd.DataFrame:
    """KITTI's tracks (Geiger et al., 2012): boxes that people drew in 21 films from a car; no pictures.

    One row for each object in a frame, 47,262 in all, without the regions that KITTI marks as not
    labelled. Columns: sequence, 0..20; frame; identity, that of its sequence; kind, "Car",
    "Pedestrian", ...; x0, y0, x1, y1 in pixels of a picture of about 1242×375; depth in metres. The
    archive is looked for in the data folder, downloaded if it is missing, and verified.
    """
    path = fetch(KITTI[0], _kitti(), KITTI[1], checksum=lambda path: _inside(path, "label_02"))
    columns = {
        0: "frame",
        1: "identity",
        2: "kind",
        6: "x0",
        7: "y0",
        8: "x1",
        9: "y1",
        15: "depth",
    }
    parts = []
    with ZipFile(path) as archive:
        for name in sorted(n for n in archive.namelist() if "label_02/" in n and n[-1] != "/"):
            with archive.open(name) as file:
                rows = pd.read_csv(file, sep=" ", header=None, usecols=list(columns))
            parts.append(rows.assign(sequence=int(Path(name).stem)))
    rows = pd.concat(parts, ignore_index=True).rename(columns=columns)
    return rows[rows.kind != "DontCare"].reset_index(drop=True)[["sequence", *columns.values()]]


def _kitti() -> Path:
    return data_home() / "kitti-tracking" / "label_02.zip"


def clothing() -> dict[str, tuple[Tensor, Tensor]]:
    """Clothing Co-Parsing (Yang et al., CVPR 2014): 1,004 photographs with the label of each pixel.

    By the order of their numbers, for no split is published, 704 "train", 150 "valid", 150 "test":
    images uint8 (n, 3, 96, 64), each pixel the mean of some 70 published ones; labels uint8
    (n, 96, 64), that of the published pixel in its middle: 0 background, or the place in `CLOTHES`,
    from 1. The folder is looked for in the data folder, downloaded if it is missing, verified.
    """
    folder = fetch_folder(CLOTHING[0], data_home() / "ccp", CLOTHING[1], _clothing_files)
    names = [str(name[0]) for name in loadmat(folder / "label_list.mat")["label_list"][0]]
    groups = np.zeros(len(names), dtype=np.uint8)
    for group, members in enumerate(CLOTHES.values(), 1):
        groups[[names.index(name) for name in members.split()]] = group
    images, labels = [], []
    for path in sorted((folder / PIXELS).glob("*.mat")):
        with Image.open(folder / "photos" / f"{path.stem}.jpg") as photograph:
            small = photograph.convert("RGB").resize((64, 96), Image.Resampling.BOX)
        images.append(np.asarray(small))
        published = Image.fromarray(groups[loadmat(path)["groundtruth"]])
        labels.append(np.asarray(published.resize((64, 96), Image.Resampling.NEAREST)))
    images = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    parts = zip(
        *(t.split([*PHOTOGRAPHS.values()]) for t in (images, torch.from_numpy(np.stack(labels)))),
        strict=True,
    )
    return dict(zip(PHOTOGRAPHS, parts, strict=True))


def _clothing_files(folder: Path) -> list[Path]:
    """Those that are read: masks, their photographs, the names of the labels."""
    masks = sorted((folder / PIXELS).glob("*.mat"))
    photographs = [folder / "photos" / f"{path.stem}.jpg" for path in masks]
    return [path for path in (*masks, *photographs, folder / "label_list.mat") if path.exists()]


def _archive(name: str) -> Path:
    return data_home() / name / ARCHIVES[name][0].rpartition("/")[2]


def _open(name: str) -> ZipFile:
    """A verified archive. Its files are read where they are: nothing is unpacked."""
    url, md5 = ARCHIVES[name]
    return ZipFile(fetch(url, _archive(name), md5))


def fetch(url: str, path: Path, md5: str, checksum: Callable[[Path], str] | None = None) -> Path:
    """The verified file at `path`, downloaded from `url` if it is not there.

    A download shows its progress and appears under its name only when it is whole and its
    checksum right. Raises ValueError for a wrong checksum, OSError if it can't be downloaded.

    checksum: of a file; if it is not given, the md5 of its bytes.
    """
    checksum = checksum or _md5
    if not path.exists():
        with _downloaded(url, path) as part:
            _verify(checksum(part), md5, f"the download of {path.name} is not the published file")
            os.replace(part, path)
        return path
    _verify(
        checksum(path), md5, f"{path} is not the published file: delete it to download it again"
    )
    return path


def fetch_folder(
    url: str, path: Path, md5: str, wanted: Callable[[Path], list[Path]] | None = None
) -> Path:
    """The same for a folder of that name inside an archive whose own checksum does not last.

    wanted(folder): the files that count, of the archive's only folder whatever its name; the others
        are not kept. md5: of the names and contents of the files (`_content`).
    """
    if not path.exists():
        with _downloaded(url, path) as part:
            unpacked = part.parent / "unpacked"
            try:
                shutil.unpack_archive(part, unpacked, "zip")
                found = next(unpacked.glob("*" if wanted else f"*/{path.name}"))
            except (shutil.ReadError, StopIteration) as error:  # the page of a network that asks
                raise ValueError(f"{url} is no archive with a folder {path.name} in it") from error
            files = wanted(found) if wanted else None
            problem = f"{path.name} of {url} is not the published folder"
            _verify(_content(found, files), md5, problem)
            if wanted:
                for file in {f for f in found.rglob("*") if f.is_file()} - set(files):
                    file.unlink()
            os.replace(found, path)
        return path
    problem = f"{path} is not the published folder: delete it to have it again"
    _verify(_content(path, wanted(path) if wanted else None), md5, problem)
    return path


@contextmanager
def _downloaded(url: str, path: Path) -> Iterator[Path]:
    """A download, in a folder beside `path` that is gone afterwards."""
    import pooch  # here, for it warns in notebooks without widgets, and few ever download

    by_hand = f"put the {'file' if path.suffix else 'folder'} of {url} at {path} by hand"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            part = Path(folder) / path.name
            pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT)(url, str(part), None)
            yield part
    except requests.RequestException as error:
        reason = type(error).__name__
        raise OSError(f"{path.name} could not be downloaded ({reason}): {by_hand}") from error
    except OSError as error:  # no permission, a read-only disk, a full one, a file in the way
        raise OSError(
            f"{path.name} is missing and {path.parent} can't be written ({error.strerror}): "
            f"{by_hand}, or set PRUNINGLIB_DATA to a folder that can"
        ) from error


def _verify(found: str, md5: str, problem: str) -> None:
    if found != md5:
        raise ValueError(f"{problem} (md5 is {found}, published {md5})")


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _content(folder: Path, files: list[Path] | None = None) -> str:
    """One checksum of all files in a folder, or of these: of the lines "md5  path", as md5sum prints
    them."""
    files = [p for p in folder.rglob("*") if p.is_file()] if files is None else files
    files = sorted(p.relative_to(folder).as_posix() for p in files)
    return hashlib.md5("".join(f"{_md5(folder / f)}  {f}\n" for f in files).encode()).hexdigest()


def _inside(path: Path, folder: str) -> str:
    """The same for a folder in an archive, wherever in it the folder lies."""
    try:
        with ZipFile(path) as archive:
            names = [n for n in archive.namelist() if not n.endswith("/")]
            inside = {n.split(f"{folder}/", 1)[1]: n for n in names if f"{folder}/" in n}
            sums = {n: hashlib.md5(archive.read(inside[n])).hexdigest() for n in sorted(inside)}
    except BadZipFile:
        return "that of no archive"
    return hashlib.md5("".join(f"{md5}  {n}\n" for n, md5 in sums.items()).encode()).hexdigest()


def split(
    inputs: Tensor, targets: Tensor, sizes: dict[str, int]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Cut a set into stratified parts of the given sizes, the same ones every time."""
    if sum(sizes.values()) != len(targets):
        raise ValueError(f"sizes add up to {sum(sizes.values())}, but there are {len(targets)}")
    rest, parts = torch.arange(len(targets)), {}
    *firsts, last = sizes
    for name in firsts:
        picked, rest = train_test_split(
            rest.numpy(), train_size=sizes[name], stratify=targets[rest], random_state=0
        )
        parts[name] = (inputs[picked], targets[picked])
        rest = torch.from_numpy(rest)
    parts[last] = (inputs[rest], targets[rest])
    return parts


def leave_last_out(rows: pd.DataFrame, most: int = 20) -> dict[str, pd.DataFrame]:
    """Cut interactions by time: each user's last fifth for test, the tenth before it for valid.

    Both rounded down, but at least one row and at most `most`: of no user more than a list of that
    length can show. Users with fewer than three rows are dropped.

    rows: columns user and time, and any others. Of equal times, the later row is the later.
    Returns "train", "valid" and "test", sorted by user and then by time. Items may be in valid or
    test that are not in train.
    """
    if most < 1:
        raise ValueError(f"most is {most}, but each user needs a row for valid and one for test")
    rows = rows.sort_values("time", kind="stable").sort_values("user", kind="stable")
    users = rows.groupby("user")["user"]
    rows, count, left = (
        part[users.transform("size") >= 3]
        for part in (rows, users.transform("size"), users.cumcount(ascending=False))
    )
    test = (count // 5).clip(1, most)
    valid = test + (count // 10).clip(1, most)
    return {
        "train": rows[left >= valid],
        "valid": rows[(left >= test) & (left < valid)],
        "test": rows[left < test],
    }
