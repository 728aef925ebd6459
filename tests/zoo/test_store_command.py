"""The commands over a store: download, verify, store, show --variables."""

import json

import pytest
from fault_server import Reply
from zoo_archives import NAME, OTHER, TOP, checkpoint, make_archive, model_tensors

from tfod_zoo.cli import main as cli
from tfod_zoo.zoo import store
from tfod_zoo.zoo.lock_file import LOCK_NAME


@pytest.fixture
def stored(zoo, tmp_path, archive, capsys):
    """The folder of a model in a store."""
    zoo.serve(archive)
    folder = store.download(NAME, tmp_path)
    capsys.readouterr()
    return folder


def run(capsys, *arguments):
    code = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


class TestDownloadCommand:
    def test_from_a_mirror_folder(self, zoo, tmp_path, archive, capsys):
        (tmp_path / "mirror").mkdir()
        (tmp_path / "mirror" / f"{NAME}.tar.gz").write_bytes(archive)
        code, out, err = run(capsys, "download", NAME, "--mirror", tmp_path / "mirror", "--store", tmp_path / "store")
        assert code == 0 and zoo.asked == []
        assert f"verified and unpacked in {tmp_path / 'store' / TOP}" in err and out.endswith(f"benchmark {NAME}\n")
        assert run(capsys, "download", NAME, "--store", tmp_path / "store")[1].startswith(f"{NAME}: there already")

    def test_from_a_file(self, zoo, tmp_path, archive, capsys):
        (tmp_path / "a.tgz").write_bytes(archive)
        arguments = ["download", NAME, "--from-file", tmp_path / "a.tgz", "--store", tmp_path / "store"]
        assert run(capsys, *arguments)[0] == 0 and zoo.asked == []
        code, _, err = run(capsys, "download", "centernet_mobile*", *arguments[2:])
        assert code == 2 and "--from-file is one model's archive, but 2 are named" in err

    def test_offline(self, zoo, tmp_path, capsys):
        code, _, err = run(capsys, "download", NAME, "--offline", "--store", tmp_path)
        assert code == 1 and "network is not to be used" in err and err.count("\n") == 1 and zoo.asked == []

    def test_several_of_which_one_is_not_there(self, zoo, tmp_path, archive, capsys):
        zoo.serve(archive)
        code, out, err = run(capsys, "download", "centernet_mobilenetv2fpn_512x512_coco17_*", "--store", tmp_path)
        assert code == 1 and f"tfod-zoo: Cannot get {OTHER}" in err and f"{NAME}: verified and unpacked" in err

    def test_changed_archive_needs_update_lock(self, zoo, stored, files, tmp_path, capsys):
        assert run(capsys, "store", "remove", NAME, "--store", tmp_path)[0] == 0
        zoo.serve(make_archive({**files, "more.txt": b"more"}))
        code, _, err = run(capsys, "download", NAME, "--store", tmp_path)
        assert code == 1 and "--update-lock accepts a change on purpose" in err
        assert run(capsys, "download", NAME, "--store", tmp_path, "--update-lock")[0] == 0


class TestVerifyCommand:
    def test_what_was_downloaded_passes_every_level(self, stored, tmp_path, capsys):
        for what in ([], [NAME], [stored]):
            code, out, _ = run(capsys, "verify", *what, "--store", tmp_path)
            levels = {line.split("  ")[1]: line for line in out.splitlines() if line.startswith("  ")}
            assert code == 0 and list(levels) == ["transport", "archive", "lock", "files", "layout", "tensors", "model",
                                                  "known pieces"]  # fmt: skip
            assert all(" passed " in line for level, line in levels.items() if level != "known pieces")
            assert "on 20" in levels["transport"] and "304 variables" in levels["model"]

    @pytest.mark.parametrize(
        ("name", "level"),
        [("pipeline.config", "files"), ("model.tflite", "files"), ("checkpoint/ckpt-301.index", "tensors"),
         ("checkpoint/ckpt-301.data-00000-of-00001", "tensors")],
    )  # fmt: skip
    def test_file_that_changed_in_the_store(self, stored, tmp_path, capsys, name, level):
        data = bytearray((stored / name).read_bytes())
        data[len(data) // 2] ^= 1
        (stored / name).write_bytes(data)
        code, out, err = run(capsys, "verify", NAME, "--store", tmp_path, "--json")
        failed = [row["level"] for row in json.loads(out)[0]["findings"] if row["result"] == "failed"]
        assert code == 1 and "files" in failed and level in failed and f"{NAME} cannot be trusted" in err

    def test_file_that_is_gone(self, stored, tmp_path, capsys):
        (stored / "label_map.txt").unlink()
        code, out, _ = run(capsys, "verify", NAME, "--store", tmp_path)
        assert code == 1 and "label_map.txt (not there) of 7 files differ" in out

    def test_archive_that_is_not_the_locked_one(self, stored, tmp_path, capsys):
        (tmp_path / LOCK_NAME).write_text(f"{'0' * 64}  7  {NAME}.tar.gz\n")
        code, out, _ = run(capsys, "verify", "--store", tmp_path)
        assert code == 1 and f"where {LOCK_NAME} has 7 bytes with sha256 {'0' * 64}" in out

    def test_folder_unpacked_by_hand_is_known_by_its_variables(self, tmp_path, files, capsys):
        for name, content in files.items():
            (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "mine" / name).write_bytes(content)
        code, out, _ = run(capsys, "verify", tmp_path / "mine", "--store", tmp_path)
        assert code == 0 and out.startswith(f"{NAME}: {tmp_path / 'mine'}") and "unpacked by hand" in out

    def test_nothing_to_verify(self, tmp_path, capsys):
        assert "holds no model" in run(capsys, "verify", "--store", tmp_path)[2]
        assert "is not in" in run(capsys, "verify", NAME, "--store", tmp_path)[2]
        (tmp_path / "empty").mkdir()
        assert "is no zoo model's folder" in run(capsys, "verify", tmp_path / "empty")[2]
        code, _, err = run(capsys, "verify", "centernet_mobile", "--store", tmp_path)
        assert code == 2 and "The zoo has no model" in err


class TestStoreCommand:
    def test_list_has_size_origin_and_verification(self, zoo, stored, tmp_path, capsys):
        code, out, _ = run(capsys, "store", "list", "--store", tmp_path)
        assert code == 0 and f"{NAME}  9.6 MB" in out and f"from {zoo.url}" in out and "305 tensors" in out
        row, = json.loads(run(capsys, "store", "list", "--store", tmp_path, "--json")[1])
        assert row["model"] == NAME and row["result"] == "warning" and len(row["sha256"]) == 64

    def test_list_of_nothing(self, tmp_path, capsys):
        assert run(capsys, "store", "list", "--store", tmp_path)[1].endswith("0 models, 0.0 MB\nnext: tfod-zoo list\n")

    def test_path(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setenv("TFOD_ZOO_STORE", str(tmp_path / "mine"))
        assert run(capsys, "store", "path")[1] == f"{tmp_path / 'mine'}\n"

    def test_remove(self, stored, tmp_path, capsys):
        code, out, _ = run(capsys, "store", "remove", NAME, "--store", tmp_path)
        assert code == 0 and out == f"{NAME}: removed, 9.6 MB are free again\n"
        assert [path.name for path in tmp_path.iterdir()] == [LOCK_NAME]
        code, _, err = run(capsys, "store", "remove", NAME, "--store", tmp_path)
        assert code == 2 and "is not in" in err

    def test_names_are_for_remove_only(self, capsys):
        for arguments in (["remove"], ["list", NAME], ["gc", NAME]):
            assert run(capsys, "store", *arguments)[0] == 2

    def test_gc_removes_what_broke_off_and_nothing_else(self, zoo, stored, tmp_path, archive, capsys):
        import os
        import socket

        home = tmp_path / ".tfod-zoo"
        mine = home / f"other@{socket.gethostname()}@{os.getpid()}@0"
        for folder in (home / f"{NAME}@", mine, tmp_path / ".download-abc"):
            folder.mkdir(parents=True)
            (folder / "archive.tar.gz").write_bytes(bytes(1_000_000))
        (home / "unused.lock").write_text("")
        out = run(capsys, "store", "gc", "--store", tmp_path)[1]
        assert out == f"{tmp_path}: 2 broken-off transfers removed, 2.0 MB are free again\n"
        assert mine.exists() and stored.exists() and not (home / "unused.lock").exists()
        assert not (tmp_path / ".download-abc").exists()


class TestShowVariables:
    def test_of_a_stored_model(self, stored, tmp_path, capsys):
        code, out, _ = run(capsys, "show", NAME, "--variables", "--store", tmp_path)
        assert code == 0 and len(out.splitlines()) == 305 + 2 and "305 tensors with 9.6 MB" in out

    def test_of_a_prefix_that_is_not_there(self, tmp_path, capsys):
        code, _, err = run(capsys, "show", tmp_path / "no" / "ckpt-0", "--variables")
        assert code == 2 and f"There is no {tmp_path}/no/ckpt-0; give" in err

    def test_of_a_model_that_is_not_there(self, tmp_path, capsys):
        code, _, err = run(capsys, "show", NAME, "--variables", "--store", tmp_path)
        assert code == 1 and f"run `tfod-zoo download {NAME}` first" in err


def test_models_side_by_side_on_a_terminal(zoo, tmp_path, archive, files, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    index, data = checkpoint(model_tensors(OTHER))
    own = {**files, "checkpoint/ckpt-301.index": index, "checkpoint/ckpt-301.data-00000-of-00001": data}
    zoo.serve(Reply(archive, bytes_per_second=1e6))
    zoo.plan[f"/20210210/{OTHER}.tar.gz"] = [Reply(make_archive(own, top="x"), bytes_per_second=1e6)]
    code, _, err = run(capsys, "download", NAME, OTHER, "--store", tmp_path)
    assert code == 0 and all(name[:18] in err for name in (NAME, OTHER)) and "kB" in err
