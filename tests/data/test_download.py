"""Downloads from a local server: whatever goes wrong, nothing is left behind."""

import gzip
import hashlib
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from fastdat.data import Archive, DataError, fetch
from fastdat.data.download import Files
from fastdat.util import files
from tests.fuzz.wrapping import tar_of

FOLDER = "cifar-10-batches-py"


def packed(members: dict[str, bytes]) -> bytes:
    return gzip.compress(tar_of(members))


BODY = packed({f"{FOLDER}/batches.meta": b"meta", f"{FOLDER}/test_batch": bytes(range(256)) * 9000})


class Handler(BaseHTTPRequestHandler):
    """Sends ``bodies[path]``, unless the path asks for an error."""

    bodies: ClassVar[dict[str, bytes]] = {"/good": BODY}

    def do_GET(self) -> None:
        body = self.bodies.get(self.path, BODY)
        if self.path == "/gone":
            self.send_error(404)
            return
        self.send_response(200)
        if self.path != "/no-length":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        # An interrupted transfer: half of the promised bytes, then the end.
        self.wfile.write(body[: len(body) // 2] if self.path == "/cut" else body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def archive(url: str, body: bytes = BODY, **changes: str) -> Archive:
    sums = {"sha256": hashlib.sha256(body).hexdigest(), "md5": hashlib.md5(body).hexdigest()}
    return Archive(url=url, folder=FOLDER, **(sums | changes))


def serve(server: str, name: str, body: bytes) -> Archive:
    """An archive with this content, on the server."""
    Handler.bodies[f"/{name}"] = body
    return archive(f"{server}/{name}", body)


def test_download(server: str, tmp_path: Path) -> None:
    calls: list[tuple[int, int | None]] = []
    dest = tmp_path / "new" / "folder"
    folder = fetch(archive(f"{server}/good"), dest, lambda done, total: calls.append((done, total)))
    assert folder == dest / FOLDER
    assert (folder / "batches.meta").read_bytes() == b"meta"
    assert [path.name for path in dest.iterdir()] == [FOLDER]
    assert calls[-1] == (len(BODY), len(BODY))
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_an_existing_folder_is_not_downloaded_again(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    assert fetch(archive("http://127.0.0.1:1/nothing-listens-here"), tmp_path) == tmp_path / FOLDER


def test_a_server_that_does_not_send_the_length(server: str, tmp_path: Path) -> None:
    calls: list[tuple[int, int | None]] = []
    fetch(archive(f"{server}/no-length"), tmp_path, lambda done, total: calls.append((done, total)))
    assert calls[-1] == (len(BODY), None)


def test_single_files(server: str, tmp_path: Path) -> None:
    bodies = {"a.gz": b"first", "b.gz": b"the second"}
    Handler.bodies |= {f"/of/{name}": body for name, body in bodies.items()}
    urls = {f"{server}/of/{name}": hashlib.md5(body).hexdigest() for name, body in bodies.items()}
    calls: list[tuple[int, int | None]] = []
    folder = fetch(Files("SET/of/files", urls), tmp_path, lambda done, total: calls.append((done, total)))
    assert folder == tmp_path / "SET" / "of" / "files"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == bodies
    assert [path.name for path in tmp_path.iterdir()] == ["SET"]
    assert calls == [(5, 5), (10, 10)]
    assert_fails(
        Files("OTHER", urls | {f"{server}/of/a.gz": "0" * 32}), tmp_path / "dest", "its md5 is .* not 0000"
    )


def assert_fails(source: Archive | Files, dest: Path, message: str) -> None:
    """The download fails with this message (a regular expression) and leaves nothing behind."""
    with pytest.raises(DataError, match=message):
        fetch(source, dest)
    assert list(dest.iterdir()) == []


def test_wrong_checksums(server: str, tmp_path: Path) -> None:
    assert_fails(
        archive(f"{server}/good", sha256="0" * 64), tmp_path, f"its sha256 is [0-9a-f]{{64}}, not {'0' * 64}"
    )
    assert_fails(archive(f"{server}/good", md5="0" * 32), tmp_path, "its md5 is .*nothing of it was kept")


def test_an_interrupted_transfer(server: str, tmp_path: Path) -> None:
    assert_fails(
        archive(f"{server}/cut"),
        tmp_path,
        rf"interrupted at {len(BODY) // 2} of {len(BODY)} bytes\. Run again",
    )


def test_not_found(server: str, tmp_path: Path) -> None:
    assert_fails(archive(f"{server}/gone"), tmp_path, "answered 404 Not Found")


def test_no_connection(tmp_path: Path) -> None:
    assert_fails(
        archive("http://127.0.0.1:1/x"), tmp_path, r"cannot download http://127\.0\.0\.1:1/x: .*refused"
    )


def test_not_an_archive(server: str, tmp_path: Path) -> None:
    assert_fails(serve(server, "text", b"<html>log in first</html>"), tmp_path, "cannot be unpacked")


def test_a_truncated_archive_with_the_right_checksum(server: str, tmp_path: Path) -> None:
    assert_fails(serve(server, "short", BODY[:-200]), tmp_path, "cannot be unpacked")


def test_an_archive_of_something_else(server: str, tmp_path: Path) -> None:
    assert_fails(serve(server, "other", packed({"readme": b"hello"})), tmp_path, f"holds no folder {FOLDER}")


def test_an_archive_that_would_write_elsewhere(server: str, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    dest.mkdir()
    assert_fails(
        serve(server, "evil", packed({"../../escaped": b"x", f"{FOLDER}/a": b"y"})),
        dest,
        "cannot be unpacked",
    )
    assert not list(tmp_path.rglob("escaped"))


def test_leftovers_of_killed_downloads_are_removed(server: str, tmp_path: Path) -> None:
    left, young, used = (tmp_path / f".download-{name}" for name in ("left", "young", "used"))
    for folder in (left, young, used):
        folder.mkdir()
        (folder / "archive").write_bytes(b"half")
    for folder in (left, used):
        os.utime(folder, (0, 0))
    descriptor = os.open(used, os.O_RDONLY)
    assert files.lock(descriptor)
    fetch(archive(f"{server}/good"), tmp_path)
    os.close(descriptor)
    assert not left.exists()
    assert young.exists(), "its download may not have locked it yet"
    assert used.exists()


def test_a_destination_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write to .*sub: Not a directory"):
        fetch(archive("http://127.0.0.1:1/x"), tmp_path / "file" / "sub")
