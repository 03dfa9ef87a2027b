"""One interface over folders and archives: the same files whatever the container, nothing outside it, no silent cut."""

import gzip
import io
import os
import tarfile
import zipfile

import pytest

from lra_bench.data.raw.archive import files
from lra_bench.errors import UserError

CONTENT = {
    "release/a/1.txt": b"one",
    "release/a/10.txt": b"",
    "release/b/2.txt": bytes(range(256)) * 40,
    "release/b/notes.md": b"not wanted",
}


def wanted(name):
    return name.endswith(".txt")


def everything(source, **options):
    return {name: content.read() for name, content in files(source, wanted, **options)}


def write_tar(path, mode="w:gz", content=CONTENT, prefix=""):
    with tarfile.open(path, mode) as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture(params=["folder", "tar", "tar.gz", "tar.bz2", "tar.xz", "gz", "dot-slash", "zip"])
def source(request, tmp_path):
    kind = request.param
    if kind == "folder":
        for name, data in CONTENT.items():
            (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "x" / name).write_bytes(data)
        return tmp_path / "x"
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.mkdir("release")
            for name, data in CONTENT.items():
                archive.writestr(name, data)
        return tmp_path / "x.zip"
    if kind == "gz":  # LRA's archive: a gzipped tar without .tar in its name
        return write_tar(tmp_path / "lra_release.gz")
    if kind == "dot-slash":
        return write_tar(tmp_path / "x.tgz", prefix="./")
    return write_tar(tmp_path / f"x.{kind}", {"tar": "w", "tar.gz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}[kind])


def test_same_files_from_every_container(source):
    assert everything(source) == {name: data for name, data in CONTENT.items() if wanted(name)}


def test_gunzipped_archive_without_an_ending(tmp_path):
    """What `gunzip lra_release.gz` leaves: a tar called lra_release."""
    path = write_tar(tmp_path / "lra_release", "w")
    assert len(everything(path)) == 3


def test_folders_are_sorted_and_pruned(tmp_path):
    for name in ("b/1.txt", "a/2.txt", "a/1.txt", "imgs/0.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [name for name, _ in files(tmp_path, wanted, skip=lambda folder: folder == "imgs")] == [
        "a/1.txt",
        "a/2.txt",
        "b/1.txt",
    ]


def test_folder_with_a_link_back_up_ends(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "1.txt").write_bytes(b"x")
    (tmp_path / "x" / "up").symlink_to(tmp_path)
    assert list(everything(tmp_path)) == ["x/1.txt"]


@pytest.mark.parametrize("name", ["/etc/1.txt", "../1.txt", "a/../../1.txt", "..\\1.txt", "C:\\1.txt"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_paths_that_lead_out_are_refused(tmp_path, name, kind):
    path = tmp_path / "x"
    if kind == "tar":
        write_tar(path, content={"good.txt": b"1", name: b"2"})
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("good.txt", b"1")
            archive.writestr(name, b"2")
    with pytest.raises(UserError, match=r"refused.*(absolute|out of)"):
        everything(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, "zip"])
def test_links_are_refused(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "zip":
        info = zipfile.ZipInfo("1.txt")
        info.external_attr = 0o120777 << 16
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(info, "/etc/passwd")
    else:
        with tarfile.open(path, "w:gz") as tar:
            info = tarfile.TarInfo("1.txt")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    with pytest.raises(UserError, match="is a link"):
        everything(path)


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_cut_archive_is_told(tmp_path, keep):
    random = os.urandom(200_000)
    path = write_tar(tmp_path / "x.gz", content={f"{i}.txt": random[i::20] for i in range(20)})
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(UserError, match="damaged or cut short"):
        everything(path)


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_cut_inside_a_large_member_is_told(tmp_path, kind):
    """Where the damage shows while the caller reads lines, as in the middle of a TSV file."""
    lines = b"".join(b"%d\t%s\n" % (i, os.urandom(50)) for i in range(20_000))
    path = tmp_path / "x"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("1.txt", lines)
        data = bytearray(path.read_bytes())
        data[500_000] ^= 1
    else:
        data = write_tar(path, content={"1.txt": lines}).read_bytes()[:500_000]
    path.write_bytes(data)
    with pytest.raises(UserError, match="damaged or cut short"):
        [line for _, content in files(path, wanted) for line in content]


def test_flipped_bit_is_told(tmp_path):
    path = tmp_path / "x.gz"
    plain = write_tar(tmp_path / "x.tar", "w").read_bytes()
    data = bytearray(gzip.compress(plain, compresslevel=0))
    data[data.index(b"one")] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="damaged or cut short"):
        everything(path)


def test_not_an_archive(tmp_path):
    (tmp_path / "page.gz").write_text("<html>403 Forbidden</html>")
    with pytest.raises(UserError, match="neither a tar"):
        everything(tmp_path / "page.gz")
    with pytest.raises(UserError, match="does not exist"):
        everything(tmp_path / "nothing")
