"""Each hazard of a transfer by name: a verified model, or one clear sentence and a store as it was before."""

import errno
import gzip
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest
from fault_server import ACCESS_DENIED, Reply
from zoo_archives import CONFIG, NAME, OTHER, TOP, checkpoint, make_archive, model_tensors

from tfod_zoo.errors import ZooError
from tfod_zoo.zoo import archive as unpacking
from tfod_zoo.zoo import registry, store, transfer
from tfod_zoo.zoo.origin import Origin

DATA = "checkpoint/ckpt-301.data-00000-of-00001"
INDEX = "checkpoint/ckpt-301.index"


def assert_model(folder, files):
    assert all((folder / name).read_bytes() == content for name, content in files.items())
    assert not any(finding.result == "failed" for finding in Origin.read(folder).findings)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["archives.lock", TOP]


def assert_nothing_kept(folder):
    assert not folder.exists() or list(folder.iterdir()) == []


def refused(folder, match):
    """The sentence that ends the download; nothing else may remain of it."""
    with pytest.raises(ZooError, match=match) as caught:
        store.download(NAME, folder)
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text and ".;" not in text
    assert_nothing_kept(folder)
    return text


class TestConnection:
    @pytest.mark.parametrize("tenth", range(10))
    def test_dropped_at_a_tenth_of_the_stream(self, zoo, tmp_path, archive, files, tenth):
        at = len(archive) * tenth // 10
        zoo.serve(Reply(archive, drop_after=at), archive)
        assert_model(store.download(NAME, tmp_path), files)
        # What came is not asked for again.
        assert zoo.asked[1][1] == (f"bytes={at}-" if at else None)

    def test_what_is_tried_again_is_said(self, zoo, tmp_path, archive, capsys):
        zoo.serve(Reply(archive, drop_after=200_000), archive)
        store.download(NAME, tmp_path)
        said = capsys.readouterr().err
        assert "; trying again\n" in said and f"{NAME}: going on after 0.2 MB\n" in said

    def test_dropped_at_every_tenth_of_the_stream_in_turn(self, zoo, tmp_path, archive, files):
        zoo.serve(*[Reply(archive, drop_after=len(archive) // 10 + transfer._CHUNK_BYTES)] * 9, archive)
        assert_model(store.download(NAME, tmp_path), files)
        assert zoo.sent < 3 * len(archive)

    def test_stalled(self, zoo, tmp_path, archive, files, monkeypatch):
        monkeypatch.setattr(transfer, "_SILENCE_SECONDS", 0.2)
        zoo.serve(Reply(archive, stall_after=len(archive) // 2), archive)
        assert_model(store.download(NAME, tmp_path), files)

    def test_stalled_for_ever_keeps_what_came_and_goes_on_next_time(self, zoo, tmp_path, archive, files, monkeypatch):
        monkeypatch.setattr(transfer, "_SILENCE_SECONDS", 0.1)
        half = len(archive) // 2
        zoo.serve(Reply(archive, stall_after=half), Reply(archive, stall_after=0))
        with pytest.raises(ZooError, match="broke off.*timed out.*0.. MB are kept, run again to go on"):
            store.download(NAME, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [".tfod-zoo"]
        zoo.serve(archive)
        asked = len(zoo.asked)
        assert_model(store.download(NAME, tmp_path), files)
        assert zoo.asked[asked][1].startswith("bytes=")

    def test_slow(self, zoo, tmp_path, archive, files):
        zoo.serve(Reply(archive, bytes_per_second=5e5))
        assert_model(store.download(NAME, tmp_path), files)

    def test_no_host(self, zoo, tmp_path, monkeypatch):
        monkeypatch.setattr(registry, "ARCHIVE_BASES", ("http://127.0.0.1:9/",))
        refused(tmp_path, "cannot reach .*refused.*check the network")

    def test_every_address_explains_itself(self, zoo, tmp_path, monkeypatch):
        monkeypatch.setattr(registry, "ARCHIVE_BASES", (f"{zoo.url}/a/", "http://127.0.0.1:9/"))
        refused(tmp_path, r"/a/.* is not there or was renamed \(its host answers 403\); cannot reach http://127.0.0.1:9")


class TestLength:
    def test_wrong_length_too_long(self, zoo, tmp_path, archive):
        zoo.serve(Reply(archive, headers={"Content-Length": str(len(archive) + 5)}))
        with pytest.raises(ZooError, match="broke off.*kept, run again"):
            store.download(NAME, tmp_path)
        assert not (tmp_path / TOP).exists()

    def test_wrong_length_too_short(self, zoo, tmp_path, archive):
        zoo.serve(Reply(archive, headers={"Content-Length": str(len(archive) - 5)}))
        refused(tmp_path, "has md5 .* where its host states")
        assert len(zoo.asked) == 2  # one more transfer from the start, no more

    def test_no_length(self, zoo, tmp_path, archive, files):
        zoo.serve(Reply(archive, headers={"Content-Length": None}))
        assert_model(store.download(NAME, tmp_path), files)

    def test_no_length_and_dropped(self, zoo, tmp_path, archive, files):
        zoo.serve(Reply(archive, headers={"Content-Length": None}, drop_after=200_000), archive)
        assert_model(store.download(NAME, tmp_path), files)

    def test_no_length_no_hash_and_dropped(self, zoo, tmp_path, archive, files, monkeypatch):
        bare = {"Content-Length": None, "x-goog-hash": None}
        zoo.plan[f"/m/{NAME}.tar.gz"] = [
            Reply(archive, headers=bare, drop_after=200_000), Reply(archive, headers=bare)]  # fmt: skip
        assert_model(store.download(NAME, tmp_path, mirror=f"{zoo.url}/m"), files)


class TestRange:
    def test_range_ignored_restarts_cleanly(self, zoo, tmp_path, archive, files):
        zoo.serve(Reply(archive, drop_after=200_000), Reply(archive, ranges="ignored"))
        assert_model(store.download(NAME, tmp_path), files)

    def test_range_answered_with_another_part(self, zoo, tmp_path, archive, files):
        zoo.serve(Reply(archive, drop_after=200_000), Reply(archive, ranges="shifted"))
        assert_model(store.download(NAME, tmp_path), files)
        assert zoo.asked[-1][1] is None

    def test_range_of_a_shorter_object(self, zoo, tmp_path, archive, files):
        zoo.serve(Reply(archive + b"\0" * 9_000, drop_after=len(archive) + 8000), Reply(archive))
        assert_model(store.download(NAME, tmp_path), files)

    @pytest.mark.parametrize("lost", [(), ("x-goog-hash",), ("ETag",)])
    def test_object_replaced_between_two_attempts(self, zoo, tmp_path, archive, files, lost):
        # The same length, so that only a hash or the ETag can tell.
        flipped = bytearray(archive)
        flipped[len(archive) // 3] ^= 1
        headers = {name: None for name in lost}
        zoo.serve(Reply(bytes(flipped), headers=headers, drop_after=200_000), Reply(archive, headers=headers))
        if "x-goog-hash" in lost:
            zoo.plan[f"/m/{NAME}.tar.gz"] = zoo.plan[zoo.path]
        assert_model(store.download(NAME, tmp_path, mirror=f"{zoo.url}/m" if "x-goog-hash" in lost else None), files)

    def test_part_of_one_address_goes_on_at_another_with_the_same_hash(self, zoo, tmp_path, archive, files):
        zoo.plan[f"/m/{NAME}.tar.gz"] = [Reply(archive, drop_after=200_000), Reply(b"", 503)]
        zoo.serve(archive)
        assert_model(store.download(NAME, tmp_path, mirror=f"{zoo.url}/m"), files)


class TestAnswers:
    def test_redirect(self, zoo, tmp_path, archive, files):
        zoo.serve(Reply(status=302, headers={"Location": "/elsewhere"}))
        zoo.plan["/elsewhere"] = [Reply(archive)]
        assert_model(store.download(NAME, tmp_path), files)

    def test_redirect_loop(self, zoo, tmp_path):
        zoo.serve(Reply(status=302, headers={"Location": zoo.path}))
        refused(tmp_path, "redirects without end")

    def test_redirect_to_nowhere(self, zoo, tmp_path):
        zoo.serve(Reply(status=302, headers={"Location": "ftp://nowhere/x"}))
        refused(tmp_path, "no address that can be fetched")

    def test_403_with_an_xml_page_is_not_there_or_renamed(self, zoo, tmp_path):
        zoo.serve(Reply(ACCESS_DENIED, 403, {"Content-Type": "application/xml"}))
        refused(tmp_path, "not there or was renamed .*403")
        assert len(zoo.asked) == 1

    def test_html_page_with_status_200(self, zoo, tmp_path):
        zoo.serve(Reply(b"<html>log in</html>", headers={"Content-Type": "text/html"}))
        refused(tmp_path, "sent text/html, not an archive")

    def test_empty_body_with_status_200(self, zoo, tmp_path):
        zoo.serve(b"")
        refused(tmp_path, "the archive from .* is damaged")

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_5xx_then_success(self, zoo, tmp_path, archive, files, status):
        zoo.serve(Reply(b"", status, {"Retry-After": "0"}), Reply(b"", status), archive)
        assert_model(store.download(NAME, tmp_path), files)

    def test_5xx_for_ever(self, zoo, tmp_path):
        zoo.serve(Reply(b"", 503))
        refused(tmp_path, "its host answers 503 Service Unavailable")
        assert len(zoo.asked) == transfer._FRUITLESS_ATTEMPTS

    def test_plain_http_that_states_no_hash(self, zoo, tmp_path, archive):
        zoo.serve(Reply(archive, headers={"x-goog-hash": None}))
        refused(tmp_path, "plain http and states no hash.*cannot be verified")

    @pytest.mark.parametrize("stated", ["md5=AAAAAAAAAAAAAAAAAAAAAA==", "crc32c=AAAAAA==", "crc32c=AAAAAA==,md5=zzz"])
    def test_wrong_hash(self, zoo, tmp_path, archive, stated):
        zoo.serve(Reply(archive, headers={"x-goog-hash": stated}))
        refused(tmp_path, "has (md5|crc32c) [0-9a-f]+ where its host states 0+")


class TestArchive:
    def damaged(self, zoo, folder, body):
        zoo.serve(body)
        return refused(folder, "the archive from .* is damaged")

    def test_truncated_gzip(self, zoo, tmp_path, archive):
        self.damaged(zoo, tmp_path, archive[: len(archive) // 2])

    def test_one_flipped_bit_in_the_stream(self, zoo, tmp_path, archive):
        flipped = bytearray(archive)
        flipped[len(archive) // 2] ^= 1
        self.damaged(zoo, tmp_path, bytes(flipped))

    def test_one_flipped_bit_on_the_way_is_fetched_again(self, zoo, tmp_path, archive, files):
        from fault_server import goog_hash

        flipped = bytearray(archive)
        flipped[len(archive) // 2] ^= 1
        zoo.serve(Reply(bytes(flipped), headers={"x-goog-hash": goog_hash(archive)}), archive)
        assert_model(store.download(NAME, tmp_path), files)

    def test_wrong_checksum_of_gzip(self, zoo, tmp_path, archive):
        self.damaged(zoo, tmp_path, archive[:-8] + b"\0\0\0\0" + archive[-4:])

    def test_gzip_of_no_tar(self, zoo, tmp_path):
        self.damaged(zoo, tmp_path, gzip.compress(b"plain text, plain text" * 100))

    def test_something_behind_the_last_member(self, zoo, tmp_path, files):
        self.damaged(zoo, tmp_path, gzip.compress(make_archive(files, packed=False) + b"more" * 200, 1))

    def test_two_gzip_members_and_padding_are_one_archive(self, zoo, tmp_path, files):
        plain = make_archive(files, packed=False)
        zoo.serve(gzip.compress(plain[:5000], 1) + gzip.compress(plain[5000:], 1) + b"\0" * 700)
        assert_model(store.download(NAME, tmp_path), files)

    def test_wrong_top_folder_without_a_model(self, zoo, tmp_path):
        zoo.serve(make_archive({"readme.txt": b"nothing"}, top="elsewhere"))
        refused(tmp_path, "has no pipeline.config, so it is not a zoo model's")

    @pytest.mark.parametrize("lacking", ["pipeline.config", INDEX, DATA])
    def test_missing_file(self, zoo, tmp_path, files, lacking):
        zoo.serve(make_archive({name: content for name, content in files.items() if name != lacking}))
        refused(tmp_path, "has no|not all data files")

    def with_checkpoint(self, files, index, data):
        return make_archive({**files, INDEX: index, DATA: data})

    def test_one_flipped_bit_in_a_tensor(self, zoo, tmp_path, files):
        for at in (0, len(files[DATA]) // 2, len(files[DATA]) - 1):
            data = bytearray(files[DATA])
            data[at] ^= 1
            zoo.serve(self.with_checkpoint(files, files[INDEX], bytes(data)))
            refused(tmp_path, "1 of 305 tensors of checkpoint/ckpt-301 are damaged")

    def test_data_file_cut_short(self, zoo, tmp_path, files):
        zoo.serve(self.with_checkpoint(files, files[INDEX], files[DATA][:-100]))
        refused(tmp_path, "tensors of checkpoint/ckpt-301 are damaged")

    def test_one_flipped_bit_in_the_index(self, zoo, tmp_path, files):
        index = bytearray(files[INDEX])
        index[len(index) // 2] ^= 1
        zoo.serve(self.with_checkpoint(files, bytes(index), files[DATA]))
        refused(tmp_path, "ckpt-301.index is not a whole checkpoint index: the block at .* has a wrong checksum")

    def test_damaged_variables_of_the_saved_model(self, zoo, tmp_path, files):
        index, data = checkpoint(model_tensors(NAME, random_bytes=1000))
        variables = {"saved_model/variables/variables.index": index,
                     "saved_model/variables/variables.data-00000-of-00001": b"x" + data[1:]}  # fmt: skip
        zoo.serve(make_archive({**files, **variables}))
        refused(tmp_path, "tensors of saved_model/variables/variables are damaged")

    def test_valid_archive_of_another_model(self, zoo, tmp_path, files):
        zoo.serve(self.with_checkpoint(files, *checkpoint(model_tensors(OTHER))))
        refused(tmp_path, f"it is {OTHER}, not {NAME}")

    def test_archive_of_no_zoo_model(self, zoo, tmp_path, files):
        tensors = model_tensors(NAME)
        key = sorted(tensors)[10]
        zoo.serve(self.with_checkpoint(files, *checkpoint({k: v for k, v in tensors.items() if k != key})))
        refused(tmp_path, f"it is not {NAME}: 1 of its 304 variables are not there")
        tensors[key] = tensors[key][..., :-1]
        zoo.serve(self.with_checkpoint(files, *checkpoint(tensors)))
        refused(tmp_path, f"it is not {NAME}: .* has shape .* where the model has")

    def test_model_of_another_input_size_is_told_by_its_config(self, zoo, tmp_path, files):
        mine, other = "centernet_hg104_512x512_coco17_tpu-8", "centernet_hg104_1024x1024_coco17_tpu-32"
        from tfod_zoo.zoo.variables import expected_variables, identify

        shapes = expected_variables(mine)
        assert identify(shapes, CONFIG.decode()) == [mine]
        assert identify(shapes, CONFIG.decode().replace("512", "1024")) == [other]
        assert identify(shapes, "") == [mine, other]


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
        member(f"{TOP}/line\nbreak", size=3),
        member(f"{TOP}/" + "a/" * 300 + "deep", size=3),
        member(f"{TOP}/" + "a" * 300, size=3),
        member(f"{TOP}/link", tarfile.SYMTYPE, "/etc/passwd"),
        member(f"{TOP}/hard", tarfile.LNKTYPE, f"{TOP}/pipeline.config"),
        member(f"{TOP}/pipe", tarfile.FIFOTYPE),
        member(f"{TOP}/device", tarfile.CHRTYPE),
        member(f"{TOP}/block", tarfile.BLKTYPE),
        member(f"{TOP}/unknown", b"9"),
        member(f"{TOP}/pipeline.config", size=3),
        member(f"{TOP}/checkpoint", size=3),
        member(f"{TOP}/pipeline.config/below", size=3),
        member(f"{TOP}/pipeline.config", tarfile.DIRTYPE),
    ],
    ids=lambda info: f"{info.name[:40]!r}-{info.type.decode()}",
)
def test_hostile_member_is_refused(zoo, tmp_path, files, evil):
    zoo.serve(make_archive(files, extra=[evil]))
    inner = tmp_path / "a" / "store"
    refused(inner, "which is refused|is refused|longer than any zoo archive's")
    assert not list(tmp_path.rglob("*outside")) and not Path("/tmp/tfod_zoo_outside").exists()


def test_link_before_a_file_that_goes_through_it(zoo, tmp_path, files):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as packed:
        packed.addfile(member(f"{TOP}/checkpoint", tarfile.SYMTYPE, str(tmp_path)))
        packed.addfile(member(f"{TOP}/checkpoint/outside", size=3), io.BytesIO(b"xxx"))
    zoo.serve(raw.getvalue())
    refused(tmp_path / "store", "a link")
    assert not (tmp_path / "outside").exists()


class TestBombs:
    def test_member_that_unpacks_out_of_proportion(self, zoo, tmp_path, files, monkeypatch):
        monkeypatch.setattr(unpacking, "_RATIO_FREE_BYTES", 2**24)
        zoo.serve(make_archive({**files, "zeros": bytes(2**26)}))
        refused(tmp_path, "a bomb, not a model")

    def test_zeros_behind_the_last_member(self, zoo, tmp_path, files, monkeypatch):
        monkeypatch.setattr(unpacking, "_RATIO_FREE_BYTES", 2**24)
        zoo.serve(gzip.compress(make_archive(files, packed=False) + bytes(2**26), 1))
        refused(tmp_path, "a bomb, not a model")

    def test_too_many_members(self, zoo, tmp_path, files, monkeypatch):
        monkeypatch.setattr(unpacking, "_MAX_MEMBERS", 20)
        zoo.serve(make_archive({**files, **{f"empty/{number}": b"" for number in range(20)}}))
        refused(tmp_path, "more than 20 members")

    def test_claimed_size_beyond_every_bound(self, zoo, tmp_path):
        head = member(f"{TOP}/huge", size=2**40).tobuf(tarfile.GNU_FORMAT)
        zoo.serve(gzip.compress(head + bytes(512)))
        refused(tmp_path, "of 1099511627776 bytes, more than any")

    def test_claimed_size_beyond_the_disk_writes_nothing(self, zoo, tmp_path, monkeypatch):
        for bound in ("_MAX_UNPACKED_BYTES", "_MAX_DEFLATE_RATIO"):
            monkeypatch.setattr(unpacking, bound, 2**62)
        zoo.serve(gzip.compress(member(f"{TOP}/huge", size=2**50).tobuf(tarfile.GNU_FORMAT) + bytes(512)))
        refused(tmp_path, "is full")

    def test_header_that_would_fill_the_memory(self, zoo, tmp_path):
        head = member("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=2**29).tobuf(tarfile.GNU_FORMAT)
        body = io.BytesIO()
        with gzip.GzipFile(fileobj=body, mode="wb", compresslevel=1) as packed:
            packed.write(head)
            for _ in range(64):
                packed.write(bytes(2**20))
        zoo.serve(body.getvalue())
        refused(tmp_path, "a header longer than any zoo archive's")


class TestDisk:
    @pytest.fixture
    def small_disk(self):
        """A disk of 4 MB with nothing else on it; needs the right to mount one."""
        folder = Path(tempfile.mkdtemp())
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True).returncode:
            folder.rmdir()
            pytest.skip("cannot mount a disk here")
        yield folder
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()

    def test_disk_full_in_the_middle_of_unpacking(self, zoo, small_disk, archive):
        zoo.serve(archive)
        refused(small_disk / "store", "is full.*--store")
        assert shutil.disk_usage(small_disk).used < 100_000

    def test_disk_too_small_is_known_before_the_transfer(self, zoo, small_disk):
        from random import Random

        body = gzip.compress(Random(0).randbytes(3_000_000), 1)
        zoo.serve(Reply(body, bytes_per_second=1e6))
        refused(small_disk / "store", "needs about 0.01 GB .* the disk of .* has 0.00 GB; free some space")
        assert zoo.sent < len(body) / 2

    def test_disk_full_in_the_middle_of_the_transfer(self, zoo, small_disk):
        # No length, so that it cannot be known before.
        from random import Random

        zoo.serve(Reply(gzip.compress(Random(0).randbytes(6_000_000), 1), headers={"Content-Length": None}))
        refused(small_disk / "store", "is full.*--store")

    @pytest.mark.parametrize(("module", "function"), [(transfer, "_append"), (unpacking, "_copy")])
    @pytest.mark.parametrize(("code", "text"), [("ENOSPC", "is full"), ("EDQUOT", "is full"), ("EIO", "Cannot write")])
    def test_write_that_fails(self, zoo, tmp_path, archive, monkeypatch, module, function, code, text):
        zoo.serve(archive)

        def fail(*args):
            number = getattr(errno, code)
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(module, function, fail)
        refused(tmp_path, f"{text}.*--store")

    def test_read_only_store(self, zoo, archive):
        zoo.serve(archive)
        folder = Path(tempfile.mkdtemp())
        folder.chmod(0o555)
        user = os.geteuid()
        try:
            if user == 0:
                os.seteuid(65534)  # root may write everywhere
            with pytest.raises(ZooError, match="Cannot write .*Permission denied; give another place with --store"):
                store.download(NAME, folder)
        finally:
            os.seteuid(user)
            folder.chmod(0o755)
        assert_nothing_kept(folder)
        folder.rmdir()

    def test_read_only_store_that_has_the_model(self, zoo, tmp_path_factory, archive):
        zoo.serve(archive)
        folder = Path(tempfile.mkdtemp())
        store.download(NAME, folder)
        folder.chmod(0o555)
        user = os.geteuid()
        try:
            if user == 0:
                os.seteuid(65534)
            assert store.download(NAME, folder) == folder / TOP
        finally:
            os.seteuid(user)
            folder.chmod(0o755)
            shutil.rmtree(folder)

    def test_store_that_cannot_be_made(self, zoo, tmp_path, archive):
        zoo.serve(archive)
        (tmp_path / "file").write_text("")
        with pytest.raises(ZooError, match="Cannot write .*--store"):
            store.download(NAME, tmp_path / "file" / "store")


def test_interruption_keeps_what_came_for_the_next_time(zoo, tmp_path, archive, files, monkeypatch):
    from tfod_zoo.zoo.progress import ByteProgress

    zoo.serve(archive)
    show = ByteProgress.__call__

    def interrupt(self, done):
        if done > 150_000:
            raise KeyboardInterrupt
        show(self, done)

    monkeypatch.setattr(ByteProgress, "__call__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.download(NAME, tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(registry, "ARCHIVE_BASES", (f"{zoo.url}/",))
    assert [path.name for path in tmp_path.iterdir()] == [".tfod-zoo"]
    assert_model(store.download(NAME, tmp_path), files)
    assert zoo.asked[-1][1].startswith("bytes=")
