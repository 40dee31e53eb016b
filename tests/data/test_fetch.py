"""Fetching from a server on this machine: whole, continued, damaged, absent."""

import hashlib
import http.server
import pathlib
import threading

import pytest

from jaxehr.cli import main
from jaxehr.core.checks import InputError
from jaxehr.data import fetch as module
from jaxehr.data.fetch import SETS, fetch

FILES = {
    "set-a.tar.gz": bytes(range(256)) * 4000,
    "Outcomes-a.txt": b"RecordID\n1\n",
    "set-c.tar.gz": b"not wanted",
}


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `files`; `cut` = bytes after which an answer stops, once."""

    files: dict[str, bytes]
    log: list[tuple[str, str]]
    cut = 0

    def do_GET(self):
        name = self.path.removeprefix("/set/")
        asked = self.headers.get("Range", "")
        self.log.append((name, asked))
        if name not in self.files:
            self.send_error(404)
            return
        body = self.files[name]
        start = int(asked[6:-1]) if asked else 0
        if asked and start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        cut = type(self).cut if len(body) > 1000 else 0
        type(self).cut = 0 if cut else type(self).cut
        self.wfile.write(body[start : start + cut] if cut else body[start:])

    def log_message(self, *_):
        pass


def sums(files):
    lines = [f"{hashlib.sha256(x).hexdigest()} {name}\n" for name, x in files.items()]
    return "".join(lines).encode()


@pytest.fixture
def server():
    handler = type("Served", (Handler,), {"files": dict(FILES), "log": []})
    handler.files["SHA256SUMS.txt"] = sums(FILES)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        thread = threading.Thread(
            target=found.serve_forever, kwargs={"poll_interval": 0.02}
        )
        thread.start()
        handler.url = f"http://127.0.0.1:{found.server_port}/set/"
        yield handler
        found.shutdown()
        thread.join()


def read(folder):
    return {
        p.name: p.read_bytes() for p in pathlib.Path(folder).rglob("*") if p.is_file()
    }


def fetched(tmp_path, server, capsys):
    words = ["fetch", "physionet2012", "--out", str(tmp_path), "--source", server.url]
    code = main(words)
    return code, capsys.readouterr()


WANTED = {name: FILES[name] for name in ("set-a.tar.gz", "Outcomes-a.txt")}


def test_files_come_checked_and_only_once(tmp_path, server, capsys):
    code, said = fetched(tmp_path, server, capsys)
    assert code == 0
    assert read(tmp_path) == WANTED
    assert "licence ODC-By 1.0; from http://127.0.0.1" in said.out
    assert "2 files, 2 fetched now, all checksums right" in said.out
    assert f"jaxehr prepare physionet2012 {tmp_path}/set-a.tar.gz" in said.out
    server.log.clear()
    assert "2 files, 0 fetched now" in fetched(tmp_path, server, capsys)[1].out
    assert server.log == [("SHA256SUMS.txt", "")]


def test_an_answer_that_stops_is_continued(tmp_path, server, capsys):
    server.cut = 300_000
    assert fetched(tmp_path, server, capsys)[0] == 0
    assert ("set-a.tar.gz", "bytes=300000-") in server.log
    assert read(tmp_path) == WANTED


@pytest.mark.parametrize("kept", [b"\0\1\2", FILES["set-a.tar.gz"], b"other" * 9**6])
def test_a_part_that_was_left_is_continued_or_replaced(tmp_path, server, capsys, kept):
    (tmp_path / "set-a.tar.gz.part").write_bytes(kept)
    assert fetched(tmp_path, server, capsys)[0] == 0
    assert read(tmp_path) == WANTED


def test_damage_absence_and_silence_are_told(tmp_path, server, capsys):
    server.files["Outcomes-a.txt"] = b"RecordID\n2\n"
    code, said = fetched(tmp_path, server, capsys)
    assert code == 2
    assert (
        "Outcomes-a.txt could not be fetched in 3 tries (its SHA-256 is not" in said.err
    )
    assert not (tmp_path / "Outcomes-a.txt").exists()
    del server.files["Outcomes-a.txt"]
    assert "Outcomes-a.txt: 404" in fetched(tmp_path, server, capsys)[1].err
    server.files["SHA256SUMS.txt"] = sums({"other.txt": b""})
    code, said = fetched(tmp_path, server, capsys)
    assert code == 2
    assert "lists no file like" in said.err
    with pytest.raises(InputError, match=r"SHA256SUMS.txt cannot be read \(.*--source"):
        fetch(SETS["physionet2012"], tmp_path, "http://127.0.0.1:1/", None)
    (tmp_path / "file").write_text("")
    server.files["SHA256SUMS.txt"] = sums(FILES)
    with pytest.raises(InputError, match="file: cannot be written"):
        fetch(SETS["physionet2012"], tmp_path / "file", server.url, None)


def test_a_local_copy_serves_without_network(tmp_path, capsys):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, data in (FILES | {"SHA256SUMS.txt": sums(FILES)}).items():
        (copy / name).write_bytes(data)
    out = tmp_path / "out"
    words = ["fetch", "physionet2012", "--out", str(out), "--source", str(copy)]
    assert main(words) == 0
    assert read(out) == WANTED
    (copy / "set-a.tar.gz").unlink()
    (out / "set-a.tar.gz").unlink()
    assert main(words) == 2
    assert "no such file there" in capsys.readouterr().err


def test_many_small_files(tmp_path, server, monkeypatch):
    files = {f"training/training_setA/p{n:06}.psv": b"x" * n for n in range(20)}
    server.files.update(files, **{"SHA256SUMS.txt": sums(files)})
    monkeypatch.setattr(module, "MANY", 10)
    done = []

    class Bar:
        __enter__ = lambda self: self
        __exit__ = lambda self, *_: None
        update = lambda self, count: done.append(count)

    found = fetch(SETS["physionet2019"], tmp_path, server.url, lambda *_: Bar())
    assert found == (20, 20)
    assert done[-1] == 20
    assert len(read(tmp_path)) == 20
    del server.files["training/training_setA/p000003.psv"]
    (tmp_path / "training/training_setA/p000003.psv").unlink()
    monkeypatch.setattr(module, "MANY", 0)
    with pytest.raises(InputError, match=r"p000003.psv could not be fetched"):
        fetch(SETS["physionet2019"], tmp_path, server.url, lambda *_: Bar())


def test_sets_name_the_publisher_and_a_licence():
    for found in SETS.values():
        assert found.url.startswith("https://physionet.org/files/")
        assert found.licence
