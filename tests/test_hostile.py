"""Archives and files made to harm: one sentence, memory within limits, no waiting for what never comes."""

import gzip
import io
import lzma
import os
import random
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile

import pytest

from lra_bench.data.prepare import prepare
from lra_bench.data.raw import archive, streams
from lra_bench.data.raw.archive import files, lines, whole, without_mark
from lra_bench.errors import UserError

NAME = "aclImdb/train/neg/0_1.txt"
CONTENT = {f"{number}.txt": b"%d" % number * 300 for number in range(30)}


def tar_of(content=CONTENT, **options):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def header(name, kind, size=0, **fields):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def everything(path):
    return {name: content.read() for name, content in files(path, lambda name: name.endswith(".txt"))}


def refused(path, data, match):
    path.write_bytes(data)
    with pytest.raises(UserError, match=match) as error:
        everything(path)
    assert "\n" not in str(error.value)


def test_xz_gets_no_more_memory_than_the_limit(tmp_path, monkeypatch):
    """The preset 6 has a dictionary of 8 MiB."""
    (tmp_path / "x").write_bytes(lzma.compress(tar_of(), preset=6))
    assert everything(tmp_path / "x") == CONTENT
    monkeypatch.setattr(streams, "MEMORY", 4 << 20)
    refused(tmp_path / "x", lzma.compress(tar_of(), preset=6), "Memory usage limit exceeded")


def test_xz_of_several_streams_and_padding(tmp_path):
    data = tar_of()
    packed = [lzma.compress(data[start : start + 5_000]) for start in range(0, len(data), 5_000)]
    (tmp_path / "x").write_bytes(bytes(8).join(packed) + bytes(400))
    assert everything(tmp_path / "x") == CONTENT
    refused(tmp_path / "x", b"".join(packed)[:-20], "damaged or cut short")
    refused(tmp_path / "x", b"".join(packed) + b"junk" * 9, "damaged or cut short")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_headers_of_a_tar_have_a_limit(tmp_path, kind):
    """tarfile would read the whole header, here 64 MiB of it, into memory."""
    data = header("x", kind, 64 << 20) + b"a" * (64 << 20) + tar_of()
    refused(tmp_path / "x", gzip.compress(data, 1), "headers are too long")


def test_chains_and_heaps_of_headers(tmp_path):
    record = b"12 a=bcdefg\n"
    chain = (header("p", tarfile.XHDTYPE, len(record)) + record.ljust(512, b"\0")) * 2_000
    refused(tmp_path / "x", gzip.compress(chain + tar_of()), "damaged")
    heap = b""
    for number in range(archive.GLOBALS + 1):
        record = b"%d k%03d=v\n" % (len(b"NN k000=v\n"), number)
        heap += header("g", tarfile.XGLTYPE, len(record)) + record.ljust(512, b"\0")
        heap += header(f"{number}.md", tarfile.REGTYPE)
    refused(tmp_path / "x", gzip.compress(heap + tar_of()), "global headers are too long")


def test_damage_in_the_middle_is_not_the_end(tmp_path):
    """tarfile stops quietly at a damaged header, and where the end mark is missing."""
    data = tar_of()
    refused(tmp_path / "x", data[: 10 * 1_024] + b"Z" * 512 + data[10 * 1_024 + 512 :], "damaged or cut short")
    refused(tmp_path / "x", data[: 20 * 1_024], "damaged or cut short")


def test_what_follows_the_end_has_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "TAIL", 1 << 20)
    (tmp_path / "x").write_bytes(gzip.compress(tar_of() + bytes(1 << 19)))
    assert everything(tmp_path / "x") == CONTENT
    refused(tmp_path / "x", gzip.compress(tar_of() + bytes(4 << 20)), "damaged")


def sparse():
    block = bytearray(header("1.txt", tarfile.GNUTYPE_SPARSE))
    block[386:410] = b"00000000000\0" * 2
    block[483:495] = b"77777777777\0"  # eight gigabytes of nothing
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (header("1.txt", tarfile.FIFOTYPE), "is no plain file"),
        (header("1.txt", tarfile.CHRTYPE), "is no plain file"),
        (header("1.txt", tarfile.SYMTYPE, linkname="/etc/passwd"), "is a link"),
        (sparse(), "is no plain file"),
        (tar_of({"\x1b[31m/1.txt": b""}), "name that cannot be printed"),
        (tar_of({"\udcff/1.txt": b""}, errors="surrogateescape", encoding="utf-8"), "name that cannot be printed"),
    ],
)
def test_members_that_are_no_plain_files(tmp_path, data, message):
    refused(tmp_path / "x", data + tar_of(), message)


def zip_of(method=zipfile.ZIP_DEFLATED, mode=0):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        info = zipfile.ZipInfo("1.txt")
        info.external_attr, info.compress_type = mode << 16, method
        packed.writestr(info, b"one" * 100)
    return bytearray(buffer.getvalue())


def changed(offset, value):
    """A zip with two bytes changed in the header of its member and in the directory, which has them two bytes later."""
    data = zip_of()
    for at in (data.index(b"PK\x03\x04") + offset, data.index(b"PK\x01\x02") + offset + 2):
        data[at : at + 2] = struct.pack("<H", value)
    return data


def directory(offset, value):
    data = zip_of()
    at = data.index(b"PK\x01\x02") + offset
    data[at : at + len(value)] = value
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (changed(6, 1), "is encrypted"),
        *((changed(8, method), f"method {method} of zip, which is not read") for method in (1, 9, 93, 97, 99)),
        (zip_of(zipfile.ZIP_BZIP2), "method 12 of zip"),
        (zip_of(zipfile.ZIP_LZMA), "method 14 of zip"),
        (zip_of(mode=stat.S_IFIFO), "is no plain file"),
        (directory(16, b"\0\0\0\0"), "damaged"),  # the checksum
        (zip_of()[:60], "damaged"),
        (b"PK\x03\x04" + random.Random(0).randbytes(400), "damaged"),
        (b"PK\x07\x08" + random.Random(0).randbytes(400), "damaged"),
    ],
)
def test_odd_zips(tmp_path, data, message):
    refused(tmp_path / "x.zip", data, message)


def test_a_zip_without_members_holds_nothing(tmp_path):
    zipfile.ZipFile(tmp_path / "x.zip", "w").close()
    assert everything(tmp_path / "x.zip") == {}
    with pytest.raises(UserError, match="holds no train reviews"):
        prepare("text", source_path=tmp_path / "x.zip", size=10, tfds=False)


@pytest.mark.parametrize("seed", range(60))
def test_flipped_bytes_never_show_a_traceback(tmp_path, seed):
    """Any damage to a small archive is a sentence, or leaves what is read as it was."""
    rng = random.Random(seed)
    kind = rng.choice(["tar", "gz", "xz", "zip"])
    data = bytearray({"tar": bytes, "gz": gzip.compress, "xz": lzma.compress, "zip": zip_data}[kind](tar_of()))
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(min(len(data), 30_000))] = rng.randrange(256)
    (tmp_path / "x").write_bytes(data)
    try:
        found = everything(tmp_path / "x")
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    if kind != "tar":  # a tar has no checksum of its contents
        assert set(found.items()) <= set(CONTENT.items())


def zip_data(_):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in CONTENT.items():
            packed.writestr(name, data)
    return buffer.getvalue()


def test_whole_and_lines_have_limits():
    assert whole(io.BytesIO(b"12345"), 5, "x") == b"12345"
    with pytest.raises(UserError, match=r"^x has more than 4 bytes"):
        whole(io.BytesIO(b"12345"), 4, "x")
    assert list(lines(io.BytesIO(b"123\r\n\n45"), 5, "x")) == [b"123\r\n", b"\n", b"45"]
    with pytest.raises(UserError, match=r"^x, line 3, has more than 2 bytes"):
        list(lines(io.BytesIO(b"1\n2\n345\n"), 2, "x"))


def test_byte_order_marks():
    assert list(lines(io.BytesIO(b"\xef\xbb\xbf1\n\xef\xbb\xbf2\n"), 9, "x")) == [b"1\n", b"\xef\xbb\xbf2\n"]
    for encoding in ("utf-16", "utf-32"):
        with pytest.raises(UserError, match=r"^x is UTF-16 text"):
            without_mark("one".encode(encoding), "x")


# --- what a task does with them ---


def fifo(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)


def text_folder(root):
    for split in ("train", "test"):
        for label, stars in (("neg", 1), ("pos", 9)):
            for number in range(20):
                path = root / split / label / f"{number}_{stars}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{split} {label} {number}")
    return root


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("text", ["x"]),
        ("listops", [f"basic_{split}.tsv" for split in ("train", "val", "test")]),
        ("retrieval", [f"new_aan_pairs.{split}.tsv" for split in ("train", "eval", "test")]),
        ("image", [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]),
        ("image", ["train-00000-of-00001.parquet", "test-00000-of-00001.parquet"]),
        ("pathfinder", ["x"]),
    ],
)
def test_named_pipes_are_not_waited_for(tmp_path, task, names):
    for name in names:
        fifo(tmp_path / name)
    path = tmp_path / "x" if names == ["x"] else tmp_path
    with pytest.raises(UserError, match=r"neither a file nor a folder|holds n"):
        prepare(task, source_path=path, size=10, tfds=False)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [fifo, lambda path: path.symlink_to("nowhere")])
def test_a_review_that_is_no_file(tmp_path, make):
    text_folder(tmp_path)
    make(tmp_path / "train" / "neg" / "99_1.txt")
    with pytest.raises(UserError, match=r"99_1\.txt (is neither a file|does not exist)"):
        prepare("text", source_path=tmp_path, size=10, tfds=False)


def test_devices_are_no_archives(tmp_path):
    (tmp_path / "x").symlink_to("/dev/zero")
    with pytest.raises(UserError, match="neither a file nor a folder"):
        prepare("text", source_path=tmp_path / "x", size=10, tfds=False)


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("text", NAME),
        ("listops", "listops-1000/basic_train.tsv"),
        ("retrieval", "tsv_data/new_aan_pairs.train.tsv"),
        ("image", "cifar-10-batches-bin/data_batch_1.bin"),
        ("pathfinder", "pathfinder32/curv_contour_length_14/metadata/0.npy"),
    ],
)
def test_a_member_that_is_far_too_long(tmp_path, task, name):
    """Every task has a limit for each kind of file; 70 MiB exceed all of them."""
    packed = lzma.compress(tar_of({name: b"a" * (70 << 20)}), preset=0)
    (tmp_path / "x").write_bytes(packed)
    with pytest.raises(UserError, match=r"has more than [\d,]+ bytes"):
        prepare(task, source_path=tmp_path / "x", size=10, tfds=False)


def test_too_many_reviews(tmp_path, monkeypatch):
    monkeypatch.setattr("lra_bench.tasks.text.MOST_REVIEWS", 30)
    with pytest.raises(UserError, match="more than 30 reviews"):
        prepare("text", source_path=text_folder(tmp_path), size=10, tfds=False)


def test_a_number_of_five_thousand_digits_is_no_review(tmp_path):
    (tmp_path / "x").write_bytes(tar_of({f"train/neg/{'9' * 5_000}_1.txt": b"x"}))
    with pytest.raises(UserError, match="holds no train reviews"):
        prepare("text", source_path=tmp_path / "x", size=10, tfds=False)


def test_memory_of_a_real_bomb(tmp_path):
    """A review of 256 MiB, packed to 40 kB, takes less than 100 MiB of a process of its own."""
    with lzma.open(tmp_path / "x", "wb", preset=0) as out:
        out.write(header(NAME, tarfile.REGTYPE, 256 << 20))
        for _ in range(256):
            out.write(b"a" * (1 << 20))
        out.write(tar_of())
    program = """
import resource, sys
from pathlib import Path
from lra_bench.errors import UserError
from lra_bench.tasks.text import reviews
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    list(reviews(Path(sys.argv[1])))
except UserError as error:
    print("has more than" in str(error), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    told = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "x")], capture_output=True, text=True, check=True
    )
    refused_it, grown = told.stdout.split()
    assert refused_it == "True"
    assert int(grown) < 100 * (1 if sys.platform == "linux" else 1024)
