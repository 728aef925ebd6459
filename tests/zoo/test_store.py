"""The store: what a user asks for arrives, from wherever it may come, and nothing else does."""

import json
import re
from pathlib import Path

import pytest
from fault_server import Reply
from zoo_archives import NAME, OTHER, TOP, checkpoint, make_archive, model_tensors

from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.zoo import store
from tfod_zoo.zoo.lock_file import LOCK_NAME, read_lock
from tfod_zoo.zoo.origin import ORIGIN_NAME, Origin
from tfod_zoo.zoo.progress import TransferBoard

FLAT = f"/{NAME}.tar.gz"


def visible(folder):
    """Names in the store, but for the lock file that the first verified archive makes."""
    return sorted(path.name for path in folder.iterdir() if path.name != LOCK_NAME) if folder.exists() else []


def test_download_brings_a_verified_folder(zoo, tmp_path, archive, files):
    zoo.serve(archive)
    assert not store.is_downloaded(NAME, tmp_path)
    folder = store.download(NAME, tmp_path)
    assert folder == tmp_path / TOP == store.model_folder(NAME, tmp_path)
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    papers = json.loads(found.pop(ORIGIN_NAME))
    assert found == files
    assert papers["source"] == zoo.url + zoo.path and papers["archive"]["size"] == len(archive)
    assert store.is_downloaded(NAME, tmp_path)
    assert store.checkpoint_prefix(NAME, tmp_path) == folder / "checkpoint" / "ckpt-301"
    assert visible(tmp_path) == [TOP]


def test_every_level_of_verification_is_on_paper(zoo, tmp_path, archive):
    zoo.serve(archive)
    origin = Origin.read(store.download(NAME, tmp_path))
    results = {finding.level: finding.result for finding in origin.findings}
    assert results == {"transport": "passed", "archive": "passed", "layout": "passed", "tensors": "passed",
                       "model": "passed", "known pieces": "warning"}  # fmt: skip


def test_what_is_there_is_not_fetched_again(zoo, tmp_path, archive):
    zoo.serve(archive)
    store.download(NAME, tmp_path)
    store.download(NAME, tmp_path)
    assert [path for path, _ in zoo.asked] == [zoo.path]


def test_files_get_no_permission_from_the_archive(zoo, tmp_path, files):
    import io
    import tarfile

    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as packed:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{TOP}/{name}")
            member.size, member.mode = len(content), 0o7777
            packed.addfile(member, io.BytesIO(content))
    zoo.serve(raw.getvalue())
    folder = store.download(NAME, tmp_path)
    assert all(path.stat().st_mode & 0o7133 == 0 for path in folder.rglob("*") if path.is_file())


def test_download_says_where_from_and_where_to(zoo, tmp_path, archive, capsys):
    zoo.serve(archive)
    folder = store.download(NAME, tmp_path)
    said = capsys.readouterr().err.splitlines()
    assert f"{NAME}: from {zoo.url}{zoo.path} to {folder}" in said
    assert said[-1] == f"{NAME}: verified and unpacked in {folder}"


class TestAddresses:
    @pytest.mark.parametrize("under", [f"/20210210{FLAT}", FLAT])
    def test_mirror_comes_first(self, zoo, tmp_path, archive, under):
        zoo.plan[f"/mirror{under}"] = [Reply(archive)]
        store.download(NAME, tmp_path, mirror=f"{zoo.url}/mirror/")
        assert zoo.asked[-1][0] == f"/mirror{under}" and zoo.path not in [path for path, _ in zoo.asked]

    def test_mirror_from_the_environment(self, zoo, tmp_path, archive, monkeypatch):
        zoo.plan[f"/mine{FLAT}"] = [Reply(archive)]
        monkeypatch.setenv("TFOD_ZOO_MIRROR", f"{zoo.url}/mine")
        assert store.download(NAME, tmp_path).is_dir()

    def test_zoo_serves_when_the_mirror_does_not(self, zoo, tmp_path, archive):
        zoo.serve(archive)
        store.download(NAME, tmp_path, mirror=f"{zoo.url}/mirror")
        assert [path for path, _ in zoo.asked] == [f"/mirror/20210210{FLAT}", f"/mirror{FLAT}", zoo.path]

    def test_mirror_of_another_archive_is_refused_for_the_zoos(self, zoo, tmp_path, archive):
        zoo.plan[f"/mirror{FLAT}"] = [Reply(make_archive({"pipeline.config": b"", "notes.txt": b"not a model"}))]
        zoo.serve(archive)
        folder = store.download(NAME, tmp_path, mirror=f"{zoo.url}/mirror")
        assert Origin.read(folder).source == zoo.url + zoo.path

    def test_plain_mirror_that_states_no_hash_is_the_users_choice(self, zoo, tmp_path, archive):
        zoo.plan[f"/mirror{FLAT}"] = [Reply(archive, headers={"x-goog-hash": None})]
        folder = store.download(NAME, tmp_path, mirror=f"{zoo.url}/mirror")
        assert Origin.read(folder).findings[0].result == "not checked"

    @pytest.mark.parametrize("inside", ["", "20210210"])
    @pytest.mark.parametrize("form", ["{}", "file://{}"])
    def test_mirror_folder_needs_no_network(self, zoo, tmp_path, archive, inside, form):
        (tmp_path / "mirror" / inside).mkdir(parents=True)
        (tmp_path / "mirror" / inside / f"{NAME}.tar.gz").write_bytes(archive)
        folder = store.download(NAME, tmp_path / "store", mirror=form.format(tmp_path / "mirror"), offline=True)
        assert folder.is_dir() and zoo.asked == []

    def test_bucket_is_reached_by_https(self, zoo):
        from tfod_zoo.zoo.addresses import archive_addresses

        first = archive_addresses(store.get_model(NAME), "gs://bucket/zoo/", offline=False)[0]
        assert first == f"https://storage.googleapis.com/bucket/zoo/20210210{FLAT}"

    def test_tls_form_comes_before_the_published_one(self, monkeypatch):
        from tfod_zoo.zoo.addresses import archive_addresses

        monkeypatch.delenv("TFOD_ZOO_MIRROR", raising=False)
        first, second = archive_addresses(store.get_model(NAME), None, offline=False)
        assert first.startswith("https://") and second.startswith("http://download.tensorflow.org/")

    @pytest.mark.parametrize("mirror", ["ftp://host/zoo", "no/such/folder"])
    def test_mirror_that_is_none(self, zoo, tmp_path, mirror):
        with pytest.raises(UsageError, match="neither a folder nor an address"):
            store.download(NAME, tmp_path, mirror=mirror)

    @pytest.mark.parametrize("variable", ["1", "true", "0"])
    def test_offline_never_touches_the_network(self, zoo, tmp_path, archive, monkeypatch, variable):
        zoo.serve(archive)
        monkeypatch.setenv("TFOD_ZOO_OFFLINE", variable)
        if variable == "0":
            assert store.download(NAME, tmp_path).is_dir()
            return
        with pytest.raises(ZooError, match="network is not to be used.*--from-file"):
            store.download(NAME, tmp_path, mirror=f"{zoo.url}/mirror")
        assert zoo.asked == [] and visible(tmp_path) == []

    def test_file_that_the_user_has(self, zoo, tmp_path, archive):
        (tmp_path / "mine.tgz").write_bytes(archive)
        folder = store.download(NAME, tmp_path / "store", from_file=tmp_path / "mine.tgz")
        assert folder.is_dir() and zoo.asked == [] and (tmp_path / "mine.tgz").read_bytes() == archive

    def test_file_that_is_not_there(self, zoo, tmp_path):
        with pytest.raises(UsageError, match="There is no file .*mine.tgz"):
            store.download(NAME, tmp_path, from_file=tmp_path / "mine.tgz")

    def test_proxy_of_the_environment_is_used(self, zoo, tmp_path, archive, monkeypatch):
        # A proxy is asked for the whole address, so its path is what the server sees.
        address = f"http://zoo.invalid/{FLAT[1:]}"
        zoo.plan[address] = [Reply(archive)]
        monkeypatch.setenv("http_proxy", zoo.url)
        monkeypatch.setenv("no_proxy", "")
        store.download(NAME, tmp_path, mirror="http://zoo.invalid")
        assert zoo.asked[-1][0] == address


class TestLockFile:
    def test_first_transfer_locks_and_a_later_one_must_match(self, zoo, tmp_path, archive, files):
        import shutil

        zoo.serve(archive)
        shutil.rmtree(store.download(NAME, tmp_path))
        locked = read_lock(tmp_path)[NAME]
        assert locked.size == len(archive) and re.search(rf"{locked.sha256} +{locked.size} +{NAME}\.tar\.gz",
                                                         (tmp_path / LOCK_NAME).read_text())
        other = make_archive({**files, "notes.txt": b"new"})
        before = (tmp_path / LOCK_NAME).read_bytes()
        for reply in (Reply(other), Reply(other, headers={"Content-Length": None})):
            zoo.serve(reply)
            with pytest.raises(ZooError) as caught:
                store.download(NAME, tmp_path)
            assert locked.sha256 in str(caught.value) and str(len(other)) in str(caught.value)
            assert visible(tmp_path) == [] and (tmp_path / LOCK_NAME).read_bytes() == before
        store.download(NAME, tmp_path, update_lock=True)
        assert read_lock(tmp_path)[NAME].size == len(other)

    def test_announced_length_is_refused_before_the_transfer(self, zoo, tmp_path, archive):
        (tmp_path / LOCK_NAME).write_text(f"{'0' * 64}  7  {NAME}.tar.gz\n")
        zoo.serve(Reply(archive, bytes_per_second=1e6))
        with pytest.raises(ZooError, match=f"{len(archive)} bytes where archives.lock has 7"):
            store.download(NAME, tmp_path)
        assert zoo.sent < len(archive) / 2

    def test_same_length_and_another_hash_shows_both(self, zoo, tmp_path, archive):
        import hashlib

        (tmp_path / LOCK_NAME).write_text(f"# mine\n\n{'0' * 64} {len(archive)} {NAME}.tar.gz\n")
        zoo.serve(archive)
        with pytest.raises(ZooError, match=f"{hashlib.sha256(archive).hexdigest()}.*{'0' * 64}.*--update-lock"):
            store.download(NAME, tmp_path)
        assert visible(tmp_path) == []

    def test_locked_archive_may_come_over_plain_http(self, zoo, tmp_path, archive):
        zoo.serve(archive)
        store.download(NAME, tmp_path / "first")
        (tmp_path / "second").mkdir()
        (tmp_path / "second" / LOCK_NAME).write_bytes((tmp_path / "first" / LOCK_NAME).read_bytes())
        zoo.serve(Reply(archive, headers={"x-goog-hash": None}))
        assert store.download(NAME, tmp_path / "second").is_dir()

    def test_other_lines_stay(self, zoo, tmp_path, archive):
        (tmp_path / LOCK_NAME).write_text(f"{'1' * 64}  5  other.tar.gz\n")
        zoo.serve(archive)
        store.download(NAME, tmp_path)
        assert set(read_lock(tmp_path)) == {"other", NAME}

    def test_line_that_is_none(self, zoo, tmp_path):
        (tmp_path / LOCK_NAME).write_text("# mine\nabc  12  x.tar.gz\n")
        with pytest.raises(ZooError, match="archives.lock, line 2"):
            store.download(NAME, tmp_path)


class TestFolderThatIsThere:
    def put(self, folder, files):
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    def test_unpacked_by_hand_is_verified_once(self, zoo, tmp_path, files):
        self.put(tmp_path / TOP, files)
        assert store.download(NAME, tmp_path) == tmp_path / TOP
        assert Origin.read(tmp_path / TOP).source == "unpacked by hand" and zoo.asked == []
        data = tmp_path / TOP / "checkpoint" / "ckpt-301.data-00000-of-00001"
        data.write_bytes(b"x" + data.read_bytes()[1:])
        assert store.download(NAME, tmp_path) == tmp_path / TOP  # that is for `tfod-zoo verify`

    def test_unpacked_by_hand_and_broken(self, zoo, tmp_path, files):
        damaged = dict(files)
        damaged["checkpoint/ckpt-301.index"] = damaged["checkpoint/ckpt-301.index"][:-1]
        self.put(tmp_path / TOP, damaged)
        with pytest.raises(ZooError, match="unpacked by hand and cannot be used.*move it away"):
            store.download(NAME, tmp_path)

    def test_users_folder_in_the_way_is_left_alone(self, zoo, tmp_path, archive):
        zoo.serve(archive)
        self.put(tmp_path / TOP, {"mine.txt": b"keep"})
        with pytest.raises(ZooError, match="has no pipeline.config; move it away"):
            store.download(NAME, tmp_path)
        assert (tmp_path / TOP / "mine.txt").read_text() == "keep" and zoo.asked == [] and visible(tmp_path) == [TOP]

    def test_model_packed_again_from_a_store(self, zoo, tmp_path, archive):
        zoo.serve(archive)
        folder = store.download(NAME, tmp_path / "first")
        again = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        (tmp_path / "again.tar.gz").write_bytes(make_archive(again))
        folder = store.download(NAME, tmp_path / "second", from_file=tmp_path / "again.tar.gz")
        assert Origin.read(folder).source.endswith("again.tar.gz") and ORIGIN_NAME not in Origin.read(folder).files


    def test_checkpoint_cut_short_since_it_was_unpacked(self, zoo, tmp_path, archive):
        zoo.serve(archive)
        folder = store.download(NAME, tmp_path)
        (folder / "pipeline.config").write_text("a user's own")  # which is allowed
        assert store.download(NAME, tmp_path) == folder
        data = folder / "checkpoint" / "ckpt-301.data-00000-of-00001"
        data.write_bytes(data.read_bytes()[:-1])
        with pytest.raises(ZooError, match="were unpacked; run `tfod-zoo store remove"):
            store.download(NAME, tmp_path)
        data.write_bytes(data.read_bytes() + b"x")
        (folder / "checkpoint" / "checkpoint").unlink()
        with pytest.raises(ZooError, match="checkpoint/checkpoint has 0 bytes"):
            store.download(NAME, tmp_path)


class TestWhatTheZooReallyHas:
    def test_other_top_folder_is_kept_under_the_registrys_name(self, zoo, tmp_path, files, caplog):
        zoo.serve(make_archive(files, top="./renamed"))
        assert store.download(NAME, tmp_path) == tmp_path / TOP
        assert "top folder renamed" in caplog.text

    def test_state_file_that_names_absent_checkpoints(self, zoo, tmp_path, files):
        state = b'model_checkpoint_path: "ckpt-300"\nall_model_checkpoint_paths: "ckpt-295"\n'
        zoo.serve(make_archive({**files, "checkpoint/checkpoint": state}))
        store.download(NAME, tmp_path)
        assert store.checkpoint_prefix(NAME, tmp_path).name == "ckpt-301"

    def test_other_checkpoint_than_the_registrys_is_found_by_the_state_file(self, zoo, tmp_path, files):
        named = {name.replace("301", "7"): content for name, content in files.items()}
        named["checkpoint/checkpoint"] = files["checkpoint/checkpoint"].replace(b"301", b"7")
        zoo.serve(make_archive(named))
        store.download(NAME, tmp_path)
        assert store.checkpoint_prefix(NAME, tmp_path).name == "ckpt-7"

    def test_keypoint_archive_with_a_deeper_saved_model(self, zoo, tmp_path, files):
        index, data = checkpoint(model_tensors(OTHER))
        own = {**files, "checkpoint/ckpt-301.index": index, "checkpoint/ckpt-301.data-00000-of-00001": data,
               "saved_model/saved_model/saved_model.pb": b"x"}  # fmt: skip
        zoo.plan[f"/20210210/{OTHER}.tar.gz"] = [Reply(make_archive(own, top="centernet_mobilenetv2_fpn_kpts"))]
        store.download(OTHER, tmp_path)
        assert store.checkpoint_prefix(OTHER, tmp_path).name == "ckpt-301"

    def test_raw_training_checkpoint(self, zoo, tmp_path, files):
        import numpy as np

        tensors = model_tensors(NAME)
        key = next(key for key in tensors if key.startswith("model/"))
        tensors[key.replace("/.ATTRIBUTES", "/.OPTIMIZER_SLOT/optimizer/m/.ATTRIBUTES")] = tensors[key]
        tensors["optimizer/beta_1/.ATTRIBUTES/VARIABLE_VALUE"] = np.float32(0.9).reshape(())
        index, data = checkpoint(tensors)
        zoo.serve(make_archive({**files, "checkpoint/ckpt-301.index": index,
                                "checkpoint/ckpt-301.data-00000-of-00001": data}))  # fmt: skip
        findings = Origin.read(store.download(NAME, tmp_path)).findings
        assert next(finding for finding in findings if finding.level == "model").result == "passed"

    def test_size_far_from_the_hint_is_only_a_warning(self, zoo, tmp_path, archive, caplog):
        zoo.serve(archive)
        store.download(NAME, tmp_path)
        assert "44016454 were expected" in caplog.text

    def test_archive_stored_as_gzip_encoded_tar_arrives_as_stored(self, zoo, tmp_path, archive):
        zoo.serve(Reply(archive, headers={"Content-Encoding": "gzip"}))
        assert store.download(NAME, tmp_path).is_dir()


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


class TestSideBySide:
    def test_models_come_together_and_fail_alone(self, zoo, tmp_path, archive, files):
        index, data = checkpoint(model_tensors(OTHER))
        own = {**files, "checkpoint/ckpt-301.index": index, "checkpoint/ckpt-301.data-00000-of-00001": data}
        other = make_archive(own, top="centernet_mobilenetv2_fpn_kpts")
        missing = "centernet_resnet50_v2_512x512_coco17_tpu-8"
        # Slow enough that one after the other would be seen in the order of the requests' ends.
        zoo.serve(Reply(archive, bytes_per_second=1e6))
        zoo.plan[f"/20210210/{OTHER}.tar.gz"] = [Reply(other, bytes_per_second=1e6)]
        done = dict(store.download_models([NAME, missing, OTHER], tmp_path))
        assert done[NAME] == tmp_path / TOP and done[OTHER].is_dir() and isinstance(done[missing], ZooError)
        assert set(read_lock(tmp_path)) == {NAME, OTHER}

    def test_leaving_early_keeps_what_came(self, zoo, tmp_path, archive):
        zoo.serve(Reply(archive, bytes_per_second=2e5))
        missing = "centernet_resnet50_v2_512x512_coco17_tpu-8"
        models = store.download_models([NAME, missing], tmp_path)
        next(models)
        while zoo.sent < 150_000:
            pass
        models.close()
        assert visible(tmp_path) == [".tfod-zoo"]
        zoo.serve(archive)
        store.download(NAME, tmp_path)
        assert zoo.asked[-1][1].startswith("bytes=") and visible(tmp_path) == [TOP]


def test_plain_progress_says_what_is_left():
    with TransferBoard() as board:
        assert board.work("model", 40_000_000).line(10_000_000, seconds=2.0) == (
            "model: 10.0 of 40.0 MB, 5.0 MB/s, about 6 s left"
        )
        assert board.work("model", None).line(10_000_000, seconds=2.0) == "model: 10.0 MB, 5.0 MB/s"
        # The rate is of what came now, not of what an earlier process left.
        assert "2.5 MB/s, about 12 s left" in board.work("model", 40_000_000, 5_000_000).line(10_000_000, seconds=2.0)


def test_bar_on_a_terminal(zoo, tmp_path, archive, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich's word for "take this for a terminal"
    zoo.serve(archive)
    store.download(NAME, tmp_path)
    assert NAME in capsys.readouterr().err


def test_path_of_the_package_is_not_written(zoo, tmp_path, archive, monkeypatch):
    """A relative store lies below the working folder."""
    zoo.serve(archive)
    monkeypatch.chdir(tmp_path)
    assert store.download(NAME, "mine") == Path("mine") / TOP
    assert store.is_downloaded(NAME, tmp_path / "mine")
