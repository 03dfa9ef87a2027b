"""Downloads from a server that misbehaves: the right bytes or one clear error, and nothing a later run would trust."""

import hashlib
import json
import multiprocessing
import os
import random
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lra_bench.data import download
from lra_bench.data.download import fetch
from lra_bench.datasource import RemoteFile
from lra_bench.errors import WorkError

BODY = random.Random(0).randbytes(3_000_000)
SHA = hashlib.sha256(BODY).hexdigest()
ETAG = '"v1"'


class Server(ThreadingHTTPServer):
    """Answers each request with the next function of `script`, the last one for ever; keeps the requests' headers."""

    daemon_threads = True

    def __init__(self):
        self.seen = []
        self.script = [whole]
        super().__init__(("127.0.0.1", 0), Handler)

    def remote(self, **changes):
        url = f"http://127.0.0.1:{self.server_port}/x.bin"
        return RemoteFile(**({"url": url, "name": "x.bin", "size": len(BODY), "sha256": SHA} | changes))


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.seen.append(dict(self.headers))
        move = self.server.script[min(len(self.server.seen), len(self.server.script)) - 1]
        move(self)
        self.close_connection = True

    def log_message(self, *_):
        pass

    def answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in ({"Content_Length": len(body)} | headers).items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)


def start_of(request, etag=ETAG):
    """First byte wanted, by Range if the version asked for is still `etag`."""
    same = request.headers.get("If-Range") == etag
    if "Range" not in request.headers or not same:
        return 0
    return int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))


def whole(request, stop=None, body=BODY, etag=ETAG):
    """A correct server, but for closing the connection at byte `stop`."""
    start = start_of(request, etag)
    headers = {"ETag": etag, "Content_Length": len(body) - start}
    if start:
        headers["Content_Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
    request.answer(206 if start else 200, body[start:stop], **headers)


def cut(stop):
    return lambda request: whole(request, stop)


def no_ranges(stop=None):
    return lambda request: request.answer(200, BODY[:stop], Content_Length=len(BODY))


def status(code, body=b"<html>sorry</html>", **headers):
    return lambda request: request.answer(code, body, Content_Type="text/html", **headers)


@pytest.fixture
def server():
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


def get(file, folder):
    return fetch(file, folder, backoff=0.001)


def refused(file, folder, match):
    """One sentence, and nothing at the final name."""
    with pytest.raises(WorkError, match=match) as error:
        get(file, folder)
    assert "\n" not in str(error.value)
    assert not (folder / "x.bin").exists()


def test_whole_file_is_fetched_once(server, tmp_path):
    have = get(server.remote(), tmp_path)
    assert (have.path.read_bytes(), have.size, have.sha256) == (BODY, len(BODY), SHA)
    assert get(server.remote(), tmp_path) == have
    assert len(server.seen) == 1
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock") == ["x.bin", "x.bin.json"]


@pytest.mark.parametrize("pinned", [SHA, None])
def test_a_kept_file_is_read_before_it_is_trusted(server, tmp_path, capfd, pinned):
    """Same name, same size, same record, other bytes: as a failing disk leaves it."""
    have = get(server.remote(sha256=pinned), tmp_path)
    have.path.write_bytes(BODY[:-1] + bytes([BODY[-1] ^ 1]))
    assert get(server.remote(sha256=pinned), tmp_path).path.read_bytes() == BODY
    assert len(server.seen) == 2
    told = " ".join(capfd.readouterr().err.split())
    assert "x.bin is not what was downloaded; it is fetched again." in told


def test_unknown_size_and_hash(server, tmp_path):
    assert get(server.remote(size=None, sha256=None), tmp_path).sha256 == SHA


def test_cut_connection_continues_where_it_stopped(server, tmp_path):
    server.script = [cut(1_000_000), cut(1_000_001), cut(2_500_000), whole]
    assert get(server.remote(), tmp_path).path.read_bytes() == BODY
    starts = [seen.get("Range") for seen in server.seen]
    assert starts == [None, "bytes=1000000-", "bytes=1000001-", "bytes=2500000-"]
    assert all(seen["If-Range"] == ETAG for seen in server.seen[1:])


def test_second_call_continues_after_giving_up(server, tmp_path):
    server.script = [cut(1_000_000), status(503)]
    refused(server.remote(), tmp_path, "503.*gave up")
    server.script = [whole]
    server.seen.clear()
    assert get(server.remote(), tmp_path).path.read_bytes() == BODY
    assert server.seen[0]["Range"] == "bytes=1000000-"


def test_server_that_ignores_ranges(server, tmp_path):
    server.script = [no_ranges(1_000_000), no_ranges(2_000_000), no_ranges()]
    assert get(server.remote(), tmp_path).path.read_bytes() == BODY


def test_server_that_never_gets_further_is_given_up(server, tmp_path):
    server.script = [no_ranges(1_000_000)]
    refused(server.remote(), tmp_path, "times in a row")
    assert len(server.seen) == download.ATTEMPTS


def test_file_that_changes_between_two_tries_is_not_glued(server, tmp_path):
    other = BODY[::-1]
    server.script = [cut(1_000_000), lambda request: whole(request, body=other, etag='"v2"')]
    assert get(server.remote(sha256=None), tmp_path).path.read_bytes() == other


def test_part_of_another_url_is_not_continued(server, tmp_path):
    server.script = [cut(1_000_000), status(404)]
    refused(server.remote(), tmp_path, "404")
    server.script = [whole]
    server.seen.clear()
    assert get(server.remote(url=server.remote().url + "?mirror"), tmp_path).path.read_bytes() == BODY
    assert "Range" not in server.seen[0]


def test_500_twice_then_the_file(server, tmp_path):
    server.script = [status(500), status(500), whole]
    assert get(server.remote(), tmp_path).path.read_bytes() == BODY


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_refusal_is_not_retried(server, tmp_path, code):
    server.script = [status(code)]
    refused(server.remote(), tmp_path, f"answered {code}")
    assert len(server.seen) == 1


def test_redirect_is_followed(server, tmp_path):
    server.script = [lambda request: request.answer(302, b"", Location="/elsewhere"), whole]
    assert get(server.remote(), tmp_path).path.read_bytes() == BODY


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_web_page_with_status_200(server, tmp_path, kind):
    page = b"\n<!DOCTYPE html><html>log in</html>"
    server.script = [lambda request: request.answer(200, page, Content_Type=kind)]
    refused(server.remote(size=None, sha256=None), tmp_path, "web page")
    assert not list(tmp_path.glob("*.part"))


def test_wrong_length(server, tmp_path):
    server.script = [lambda request: request.answer(200, BODY[:-1])]
    refused(server.remote(), tmp_path, "2,999,999 bytes where 3,000,000 are expected")


def test_shorter_than_the_server_said(server, tmp_path):
    server.script = [lambda request: request.answer(200, BODY[:-1], Content_Length=len(BODY), ETag=None)]
    refused(server.remote(size=None, sha256=None), tmp_path, "times in a row")


def test_longer_than_expected_without_a_length(server, tmp_path):
    server.script = [lambda request: request.answer(200, BODY + b"x", Content_Length=None)]
    refused(server.remote(sha256=None), tmp_path, "3,000,001 bytes where 3,000,000")
    refused(server.remote(size=None, sha256=None), tmp_path, "does not say how long")


def test_wrong_hash_is_removed(server, tmp_path):
    server.script = [lambda request: whole(request, body=BODY[::-1])]
    refused(server.remote(), tmp_path, "SHA-256 .* is expected")
    assert not list(tmp_path.glob("*.part*"))


def test_rotten_part_is_fetched_anew(server, tmp_path):
    """Bytes on disk that went bad between two calls cost one more transfer, not the user's patience."""
    server.script = [cut(1_000_000), status(404)]
    refused(server.remote(), tmp_path, "404")
    part = tmp_path / "x.bin.part"
    part.write_bytes(bytes(part.stat().st_size))
    server.script = [whole]
    assert get(server.remote(), tmp_path).path.read_bytes() == BODY


def test_part_longer_than_the_file(server, tmp_path):
    server.script = [cut(1_000_000), status(404)]
    refused(server.remote(), tmp_path, "404")
    (tmp_path / "x.bin.part").write_bytes(BODY + b"tail")
    server.script = [lambda request: request.answer(416, b"") if "Range" in request.headers else whole(request)]
    server.seen.clear()
    assert get(server.remote(), tmp_path).path.read_bytes() == BODY


def test_a_whole_part_is_named_without_a_request(server, tmp_path):
    """The process was killed after the last byte, while it computed the hash."""
    server.script = [cut(1_000_000), status(404)]
    refused(server.remote(), tmp_path, "404")
    (tmp_path / "x.bin.part").write_bytes(BODY)
    server.seen.clear()
    assert get(server.remote(), tmp_path).path.read_bytes() == BODY
    assert not server.seen


def test_compressed_content_is_kept_as_it_is(server, tmp_path):
    """A server that labels an archive `Content-Encoding: gzip` must not have it unpacked on the way."""
    server.script = [lambda request: request.answer(200, BODY, Content_Encoding="gzip")]
    assert get(server.remote(), tmp_path).path.read_bytes() == BODY


def test_file_changed_after_the_download_is_fetched_again(server, tmp_path):
    path = get(server.remote(), tmp_path).path
    path.write_bytes(b"short")
    assert get(server.remote(), tmp_path).path.read_bytes() == BODY
    assert len(server.seen) == 2


def test_record_without_file_or_file_without_record_is_not_trusted(server, tmp_path):
    (tmp_path / "x.bin").write_bytes(b"from somewhere")
    assert get(server.remote(), tmp_path).path.read_bytes() == BODY
    (tmp_path / "x.bin").unlink()
    assert get(server.remote(), tmp_path).path.read_bytes() == BODY


def test_full_disk(server, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(download.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
        refused(server.remote(), tmp_path, "needs .* more .* free")
    if Path("/dev/full").exists():
        part = tmp_path / "x.bin.part"
        part.unlink(missing_ok=True)
        part.symlink_to("/dev/full")
        with monkeypatch.context() as patch:
            patch.setattr(download, "_start_over", lambda _: None)
            refused(server.remote(), tmp_path, "the disk is full at .*part")
        part.unlink()
    assert get(server.remote(), tmp_path).path.read_bytes() == BODY


def test_nobody_listens(tmp_path):
    file = RemoteFile("http://127.0.0.1:9/x.bin", "x.bin", len(BODY), SHA)
    refused(file, tmp_path, "connection was refused")


def _fetch_in_process(file, folder):
    get(file, folder)


@pytest.mark.parametrize("text", ["[" * 100_000, "null", '{"url": NaN}'])
def test_a_damaged_description_is_fetched_anew(server, tmp_path, text):
    for name in ("x.bin", "x.bin.json", "x.bin.part", "x.bin.part.json"):
        (tmp_path / name).write_text(text)
    assert get(server.remote(), tmp_path).path.read_bytes() == BODY


def test_two_processes_fetch_once(server, tmp_path):
    def slowly(request):
        time.sleep(0.3)
        whole(request)

    server.script = [slowly]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_fetch_in_process, args=(server.remote(), tmp_path)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(server.seen) == 1
    assert (tmp_path / "x.bin").read_bytes() == BODY


def test_killed_and_continued(server, tmp_path):
    def slowly(request):
        start = start_of(request)
        headers = {"Content_Range": f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"} if start else {}
        request.answer(206 if start else 200, b"", ETag=ETAG, Content_Length=len(BODY) - start, **headers)
        for i in range(start, len(BODY), 50_000):
            request.wfile.write(BODY[i : i + 50_000])
            time.sleep(0.002)

    server.script = [slowly]
    context = multiprocessing.get_context("spawn")
    part = tmp_path / "x.bin.part"
    for size in (1, 900_000, 2_000_000):
        process = context.Process(target=_fetch_in_process, args=(server.remote(), tmp_path))
        process.start()
        while process.is_alive() and not (part.exists() and part.stat().st_size >= size):
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert not (tmp_path / "x.bin").exists()
    assert get(server.remote(), tmp_path).path.read_bytes() == BODY
    assert any("Range" in seen for seen in server.seen)
    assert json.loads((tmp_path / "x.bin.json").read_text())["sha256"] == SHA
