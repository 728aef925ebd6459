"""The store against a real HTTP server: what arrives whole is kept, and nothing else is."""

import base64
import errno
import gzip
import hashlib
import io
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.zoo import registry, store, transfer
from tfod_zoo.zoo.progress import TransferProgress

NAME = "centernet_mobilenetv2fpn_512x512_coco17_od"
TOP = "centernet_mobilenetv2_fpn_od"
PATH = f"/20210210/{NAME}.tar.gz"
# Google Cloud Storage's answer for an object that does not exist.
NOT_THERE = (403, {"Content-Type": "application/xml"}, b"<Error><Code>AccessDenied</Code></Error>")
STATE = b'model_checkpoint_path: "/cns/train/ckpt-301"\nall_model_checkpoint_paths: "/cns/train/ckpt-295"\n'
FILES = {
    "pipeline.config": b"model { center_net { num_classes: 90 } }\n",
    "checkpoint/checkpoint": STATE,
    "checkpoint/ckpt-301.index": b"index",
    "checkpoint/ckpt-301.data-00000-of-00001": bytes(range(256)) * 400,
}


def make_archive(files=None, top=TOP, extra=()):
    """A .tar.gz of `files` below `top`, then the TarInfos of `extra`."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as archive:
        for name, content in (FILES if files is None else files).items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in extra:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    return raw.getvalue()


def goog_hash(body):
    return f"crc32c=AAAAAA==,md5={base64.b64encode(hashlib.md5(body).digest()).decode()}"


@pytest.fixture
def host():
    """A server that answers each path with (status, headers, body), an exact reply; its `asked` lists the requests."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.asked.append(self.path)
            status, headers, body = server.replies.get(self.path, NOT_THERE)
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.replies, server.asked = {}, []
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def zoo(host, monkeypatch):
    """The host in place of the zoo's; `serve(body)` gives NAME's archive the headers that Google's host sends."""
    monkeypatch.setattr(registry, "ARCHIVE_BASES", (f"{host.url}/",))

    def serve(body, status=200, **headers):
        sent = {"Content-Length": str(len(body)), "x-goog-hash": goog_hash(body), "Content-Type": "application/x-tar"}
        sent.update({key.replace("_", "-"): value for key, value in headers.items()})
        host.replies[PATH] = (status, {key: value for key, value in sent.items() if value is not None}, body)

    host.serve = serve
    return host


def assert_nothing_kept(folder):
    assert not folder.exists() or list(folder.iterdir()) == []


def test_download_brings_a_verified_folder(zoo, tmp_path):
    zoo.serve(make_archive())
    assert not store.is_downloaded(NAME, tmp_path)
    folder = store.download(NAME, tmp_path)
    assert folder == tmp_path / TOP == store.model_folder(NAME, tmp_path)
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert store.is_downloaded(NAME, tmp_path)
    assert store.checkpoint_prefix(NAME, tmp_path) == folder / "checkpoint" / "ckpt-301"
    assert list(tmp_path.iterdir()) == [folder]


def test_what_is_there_is_not_fetched_again(zoo, tmp_path):
    zoo.serve(make_archive())
    store.download(NAME, tmp_path)
    store.download(NAME, tmp_path)
    assert zoo.asked == [PATH]


def test_second_address_serves_when_the_first_does_not(host, tmp_path):
    body = make_archive()
    host.replies["/b"] = (200, {"x-goog-hash": goog_hash(body)}, body)
    assert transfer.fetch([f"{host.url}/a", f"{host.url}/b"], tmp_path / "file", "x") == len(body)
    assert host.asked == ["/a", "/b"]


def test_first_address_explains_when_none_serves(host, tmp_path):
    with pytest.raises(ZooError, match="/a is not there or was renamed"):
        transfer.fetch([f"{host.url}/a", f"{host.url}/b"], tmp_path / "file", "x")


def test_missing_object_is_not_there_or_renamed(zoo, tmp_path):
    with pytest.raises(ZooError, match="not there or was renamed .*403"):
        store.download(NAME, tmp_path)
    assert_nothing_kept(tmp_path)


def test_no_host(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "ARCHIVE_BASES", ("http://127.0.0.1:9/",))
    with pytest.raises(ZooError, match="Cannot reach .*refused.*check the network"):
        store.download(NAME, tmp_path)
    assert_nothing_kept(tmp_path)


def test_wrong_md5(zoo, tmp_path):
    zoo.serve(make_archive(), x_goog_hash=goog_hash(b"another"))
    with pytest.raises(ZooError, match="md5"):
        store.download(NAME, tmp_path)
    assert_nothing_kept(tmp_path)


def test_plain_http_without_md5_is_refused(zoo, tmp_path):
    zoo.serve(make_archive(), x_goog_hash="crc32c=AAAAAA==")
    with pytest.raises(ZooError, match="cannot be verified"):
        store.download(NAME, tmp_path)
    assert_nothing_kept(tmp_path)


def test_connection_that_breaks_off(zoo, tmp_path):
    body = make_archive()
    zoo.serve(body[:1000], Content_Length=str(len(body)))
    with pytest.raises(ZooError, match="broke off"):
        store.download(NAME, tmp_path)
    assert_nothing_kept(tmp_path)


def test_length_need_not_be_stated(zoo, tmp_path):
    zoo.serve(make_archive(), Content_Length=None)
    assert store.download(NAME, tmp_path).is_dir()


def test_archive_stored_as_gzip_encoded_tar_arrives_as_stored(zoo, tmp_path):
    zoo.serve(make_archive(), Content_Encoding="gzip")
    assert store.download(NAME, tmp_path).is_dir()


def test_web_page_in_place_of_an_archive(zoo, tmp_path):
    zoo.serve(b"<html>log in</html>", Content_Type="text/html")
    with pytest.raises(ZooError, match="sent text/html, not an archive"):
        store.download(NAME, tmp_path)
    assert_nothing_kept(tmp_path)


def damaged_bodies():
    whole = make_archive()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    bad_checksum = whole[:-8] + b"\0\0\0\0" + whole[-4:]
    return {"cut": whole[: len(whole) // 2], "flipped": bytes(flipped), "checksum": bad_checksum,
            "not a tar": gzip.compress(b"plain text, plain text" * 100)}


@pytest.mark.parametrize("kind", ["cut", "flipped", "checksum", "not a tar"])
def test_damaged_archive(zoo, tmp_path, kind):
    zoo.serve(damaged_bodies()[kind])
    with pytest.raises(ZooError, match="archive is damaged"):
        store.download(NAME, tmp_path)
    assert_nothing_kept(tmp_path)


def member(name, kind=tarfile.REGTYPE, link="", size=0):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


@pytest.mark.parametrize(
    "evil",
    [
        member("../outside", size=3),
        member(f"{TOP}/../../outside", size=3),
        member("/tmp/tfod_zoo_outside", size=3),
        member(f"{TOP}/..\\outside", size=3),
        member(f"{TOP}/link", tarfile.SYMTYPE, "/etc/passwd"),
        member(f"{TOP}/hard", tarfile.LNKTYPE, f"{TOP}/pipeline.config"),
        member(f"{TOP}/pipe", tarfile.FIFOTYPE),
        member(f"{TOP}/device", tarfile.CHRTYPE),
    ],
    ids=lambda info: f"{info.name}-{info.type.decode()}",
)
def test_member_that_leads_out_is_refused(zoo, tmp_path, evil):
    zoo.serve(make_archive(extra=[evil]))
    inner = tmp_path / "a" / "store"
    with pytest.raises(ZooError, match="refused"):
        store.download(NAME, inner)
    assert_nothing_kept(inner)
    assert not list(tmp_path.rglob("*outside")) and not Path("/tmp/tfod_zoo_outside").exists()


@pytest.mark.parametrize("lacking", list(FILES)[:1] + list(FILES)[2:])
def test_archive_that_lacks_a_part(zoo, tmp_path, lacking):
    zoo.serve(make_archive({name: content for name, content in FILES.items() if name != lacking}))
    with pytest.raises(ZooError, match="has no|not all data files"):
        store.download(NAME, tmp_path)
    assert_nothing_kept(tmp_path)


def test_other_top_folder_is_kept_under_the_registrys_name(zoo, tmp_path, caplog):
    zoo.serve(make_archive(top="./renamed"))
    assert store.download(NAME, tmp_path) == tmp_path / TOP
    assert "top folder renamed" in caplog.text


def test_other_checkpoint_than_the_registrys_is_found_by_the_state_file(zoo, tmp_path):
    files = {name.replace("301", "7"): content.replace(b"301", b"7") for name, content in FILES.items()}
    zoo.serve(make_archive(files))
    store.download(NAME, tmp_path)
    assert store.checkpoint_prefix(NAME, tmp_path).name == "ckpt-7"


def test_size_far_from_the_hint_is_only_a_warning(zoo, tmp_path, caplog):
    zoo.serve(make_archive())
    store.download(NAME, tmp_path)
    assert "44016454 were expected" in caplog.text


def test_users_folder_in_the_way_is_left_alone(zoo, tmp_path):
    zoo.serve(make_archive())
    mine = tmp_path / TOP / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("keep")
    with pytest.raises(ZooError, match="move it away"):
        store.download(NAME, tmp_path)
    assert mine.read_text() == "keep" and zoo.asked == []


def test_another_process_that_was_faster(zoo, tmp_path, monkeypatch):
    zoo.serve(make_archive())
    unpack = store.unpack

    def unpack_while_another_finishes(archive, target):
        unpack(archive, target)
        unpack(archive, tmp_path)

    monkeypatch.setattr(store, "unpack", unpack_while_another_finishes)
    assert store.download(NAME, tmp_path) == tmp_path / TOP
    assert list(tmp_path.iterdir()) == [tmp_path / TOP]


@pytest.mark.parametrize("when", ["transfer", "unpacking"])
def test_full_disk_leaves_nothing(zoo, tmp_path, monkeypatch, when):
    zoo.serve(make_archive())

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    module, function = {"transfer": (transfer, "_write"), "unpacking": (store.shutil, "copyfileobj")}[when]
    monkeypatch.setattr(module, function, full)
    with pytest.raises(ZooError, match="is full.*--store"):
        store.download(NAME, tmp_path)
    assert_nothing_kept(tmp_path)


def test_interruption_leaves_nothing(zoo, tmp_path, monkeypatch):
    zoo.serve(make_archive())

    def interrupted(self, received):
        raise KeyboardInterrupt

    monkeypatch.setattr(TransferProgress, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.download(NAME, tmp_path)
    assert_nothing_kept(tmp_path)


def test_store_that_cannot_be_made(zoo, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ZooError, match="Cannot write .*--store"):
        store.download(NAME, tmp_path / "file" / "store")


def test_model_without_archive(tmp_path):
    name = "faster_rcnn_resnet50_v1_fpn_640x640_coco17_tpu-8"
    assert not store.is_downloaded(name, tmp_path)
    with pytest.raises(UsageError, match="No archive .* was ever published"):
        store.download(name, tmp_path)


def test_store_path_prefers_argument_then_variable_then_checkout(tmp_path, monkeypatch):
    monkeypatch.setenv("TFOD_ZOO_STORE", str(tmp_path / "variable"))
    assert store.store_path(tmp_path / "argument") == tmp_path / "argument"
    assert store.store_path() == tmp_path / "variable"
    monkeypatch.delenv("TFOD_ZOO_STORE")
    monkeypatch.setattr(store, "__file__", str(tmp_path / "site-packages" / "tfod_zoo" / "zoo" / "store.py"))
    monkeypatch.chdir(tmp_path)
    assert store.store_path() == tmp_path / "checkpoints"


def test_plain_progress_says_what_is_left():
    line = TransferProgress("model", 40_000_000).line(10_000_000, seconds=2.0)
    assert line == "model: 10.0 of 40.0 MB, 5.0 MB/s, about 6 s left"
    assert TransferProgress("model", None).line(10_000_000, seconds=2.0) == "model: 10.0 MB, 5.0 MB/s"


def test_bar_on_a_terminal(zoo, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich's word for "take this for a terminal"
    zoo.serve(make_archive())
    store.download(NAME, tmp_path)
    assert NAME in capsys.readouterr().err
