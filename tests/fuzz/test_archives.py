"""Archives that would write elsewhere, fill the disk or the memory, or never end."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest

from fastdat.data.archive import ArchiveError, _Bounded, unpack
from tests.fuzz import wrapping


def unpacked(raw: bytes, tmp_path: Path) -> Path:
    packed, folder = tmp_path / "outer" / "archive", tmp_path / "outer" / "inner" / "unpacked"
    folder.mkdir(parents=True)
    packed.write_bytes(raw)
    unpack(packed, folder)
    return folder


def refusal(raw: bytes, tmp_path: Path) -> str:
    """The message; nothing lies outside of the folder, and nothing in it is a link."""
    with pytest.raises(ArchiveError) as caught:
        unpacked(raw, tmp_path)
    folder = tmp_path / "outer" / "inner" / "unpacked"
    outside = {path for path in tmp_path.rglob("*") if folder not in path.parents}
    assert outside == {tmp_path / "outer", tmp_path / "outer" / "archive", folder.parent, folder}
    assert not [path for path in folder.rglob("*") if path.is_symlink()]
    return str(caught.value)


def special(kind: bytes, name: str = "a/special", target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_good_archives_are_unpacked(tmp_path: Path) -> None:
    members = {"a/b/one": b"1" * 1000, "a/two": b"", "x" * 200: b"long name", "a/ünï": b"3"}
    for i, raw in enumerate(
        (wrapping.tar_of(members), wrapping.gzipped(wrapping.tar_of(members)), wrapping.zip_of(members))
    ):
        (tmp_path / str(i)).mkdir()
        folder = unpacked(raw, tmp_path / str(i))
        found = {
            str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }
        assert found == members


@pytest.mark.parametrize(
    "name",
    [
        "../escaped",
        "a/../../escaped",
        "/escaped",
        "a\\..\\..\\escaped",
        "//escaped",
        "a/b/../../../../../escaped",
    ],
)
@pytest.mark.parametrize("form", ["tar", "tar.gz", "zip"])
def test_members_outside_of_the_folder(name: str, form: str, tmp_path: Path) -> None:
    members = {"a/before": b"x", name: b"evil"}
    raw = wrapping.zip_of(members) if form == "zip" else wrapping.tar_of(members)
    assert "lies outside of the folder" in refusal(
        wrapping.gzipped(raw) if form == "tar.gz" else raw, tmp_path
    )


@pytest.mark.parametrize(
    "member",
    [
        special(tarfile.SYMTYPE, target="../../.."),
        special(tarfile.SYMTYPE, target="/"),
        special(tarfile.SYMTYPE, target="inside"),
        special(tarfile.LNKTYPE, target="../../archive"),
        special(tarfile.LNKTYPE, target="a/before"),
        special(tarfile.CHRTYPE),
        special(tarfile.BLKTYPE),
        special(tarfile.FIFOTYPE),
        special(b"Z"),
    ],
    ids=["link up", "link to /", "link inside", "hard link up", "hard link", "chr", "blk", "pipe", "unknown"],
)
def test_members_that_are_no_files(member: tarfile.TarInfo, tmp_path: Path) -> None:
    """Followed by a file that would be written through it."""
    raw = wrapping.tar_of({"a/before": b"x"}, member) + wrapping.tar_of({"a/special/evil": b"evil"})
    assert refusal(raw, tmp_path) == "its member 'a/special' is neither a file nor a folder"


def zip_with_a_link(name: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "../../..")
    return out.getvalue()


def test_a_link_in_a_zip_file(tmp_path: Path) -> None:
    message = "its member 'a/link' is neither a file nor a folder"
    assert refusal(zip_with_a_link("a/link"), tmp_path) == message


def test_long_names_are_shown_in_part(tmp_path: Path) -> None:
    name, link = "../" + "x" * 97 + "y", "x" * 100 + "y"
    for i, (raw, shown) in enumerate(
        [
            (wrapping.tar_of({name: b""}), f"its member '../{'x' * 97}' lies"),
            (wrapping.tar_of({}, special(tarfile.SYMTYPE, link)), f"its member '{'x' * 100}' is neither"),
            (zip_with_a_link(link), f"its member '{'x' * 100}' is neither"),
        ]
    ):
        (tmp_path / str(i)).mkdir()
        assert refusal(raw, tmp_path / str(i)).startswith(shown)


def test_names_that_come_twice_stay_inside(tmp_path: Path) -> None:
    """As some publishers' archives have them: the last one counts."""
    first = wrapping.tar_of({"a/one": b"1", "A/one": b"2"})[: 4 * 512]  # two headers, two contents, no end
    folder = unpacked(first + wrapping.tar_of({"a/one": b"3"}), tmp_path)
    assert (folder / "a" / "one").read_bytes() == b"3"
    assert (folder / "A" / "one").read_bytes() == b"2"


@pytest.mark.parametrize("form", ["tar.gz", "zip"])
def test_bombs(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """8 MB of zeros in 8 KB, with a limit of 1 MB beyond 20 times the archive."""
    monkeypatch.setattr("fastdat.data.archive.ALWAYS_ALLOWED", 1 << 20)
    members = {"a/before": b"x", "a/zeros": bytes(8 << 20)}
    raw = wrapping.zip_of(members) if form == "zip" else wrapping.gzipped(wrapping.tar_of(members))
    assert len(raw) < 40_000
    assert "it is a bomb" in refusal(raw, tmp_path)
    written = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert written < 100_000


def test_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastdat.data.archive.MOST_MEMBERS", 10)
    assert "more than 10 members" in refusal(wrapping.tar_of({f"a/{i}": b"" for i in range(11)}), tmp_path)


@pytest.mark.parametrize("pack", [wrapping.tar_of, wrapping.zip_of])
def test_limits_are_exact(pack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = {"a/one": b"1" * 1000, "a/two": b"2" * 30}
    raw = pack(members)
    allowed = 1000 + 30 + 2 * 512 - 20 * len(raw)
    for i, (most_members, beyond, message) in enumerate(
        [(2, allowed, None), (2, allowed - 1, "it is a bomb"), (1, allowed, "more than 1 members")]
    ):
        monkeypatch.setattr("fastdat.data.archive.MOST_MEMBERS", most_members)
        monkeypatch.setattr("fastdat.data.archive.ALWAYS_ALLOWED", beyond)
        (tmp_path / str(i)).mkdir()
        if message is None:
            assert (unpacked(raw, tmp_path / str(i)) / "a" / "one").read_bytes() == members["a/one"]
        else:
            assert message in refusal(raw, tmp_path / str(i))


class Endless(io.BytesIO):
    """Gives one megabyte again and again, and counts."""

    megabyte, count = bytes(1 << 20), 0

    def read(self, size: int | None = -1) -> bytes:
        assert size == len(self.megabyte)
        self.count += 1
        return self.megabyte


def test_what_is_read_at_once_and_after_the_last_member() -> None:
    bounded = _Bounded(io.BytesIO(bytes(3 << 20)))
    assert (bounded.read(0), len(bounded.read(1 << 20)), bounded.tell()) == (b"", 1 << 20, 1 << 20)
    for size in ((1 << 20) + 1, -1):
        with pytest.raises(ArchiveError, match=f"it has {size:,} bytes in one place"):
            bounded.read(size)
    with pytest.raises(ArchiveError, match="in one place"):
        bounded.read()
    bounded.read_rest()
    assert bounded.tell() == 3 << 20
    assert bounded.seek(0) == 0
    endless = Endless()
    with pytest.raises(ArchiveError, match="it goes on for 67,108,864 bytes after its last member"):
        _Bounded(endless).read_rest()
    assert endless.count == 64


def test_empty_members_take_memory_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header of zeros and an x costs 2 bytes when packed, and Python 1 KB or more when unpacked."""
    monkeypatch.setattr("fastdat.data.archive.ALWAYS_ALLOWED", 0)
    raw = wrapping.gzipped(tarfile.TarInfo("a").tobuf(tarfile.USTAR_FORMAT) * 2000 + bytes(1024))
    assert len(raw) < 30_000
    assert "it is a bomb" in refusal(raw, tmp_path)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_name_of_64_megabytes(kind: bytes, tmp_path: Path) -> None:
    """tarfile reads the whole name at once; 64 KB of gzip would take 64 MB, and 64 MB would take 64 GB."""
    info = special(kind)
    info.size = 64 << 20
    raw = wrapping.gzipped(info.tobuf(tarfile.GNU_FORMAT) + bytes(64 << 20))
    tracemalloc.start()
    assert "bytes in one place" in refusal(raw, tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


def test_a_negative_size(tmp_path: Path) -> None:
    """A reader that goes back by a negative size reads the same member again and again."""
    info = tarfile.TarInfo("a/b")
    info.size = -512
    raw = info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    with pytest.raises(ArchiveError):
        unpacked(raw, tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.99])
def test_cut_archives(share: float, tmp_path: Path) -> None:
    members = {f"a/{i}": bytes(range(256)) * 20 for i in range(8)}
    for i, raw in enumerate((wrapping.gzipped(wrapping.tar_of(members)), wrapping.zip_of(members))):
        with pytest.raises(ArchiveError):
            unpacked(raw[: int(len(raw) * share)], tmp_path / str(i))


def test_an_encrypted_zip_file(tmp_path: Path) -> None:
    raw = bytearray(wrapping.zip_of({"a": b"content"}))
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(mark) + place] |= 1
    assert "password" in refusal(bytes(raw), tmp_path)
