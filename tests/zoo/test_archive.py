"""Unpacking any bytes at all: files below the target, or one of two kinds of error."""

import gzip
import io
import shutil
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest

from tfod_zoo.zoo.archive import ArchiveError, DamagedArchiveError, unpack


def plain_tar(form):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=form) as archive:
        for name, size in (("top/a", 10), ("top/" + "n" * 150 + "/b", 700), ("top/ü", 0), ("top/c", 3000)):
            member = tarfile.TarInfo(name)
            member.size, member.mtime = size, 1.5
            archive.addfile(member, io.BytesIO(b"x" * size))
        folder = tarfile.TarInfo("top/folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    return raw.getvalue()


FORMS = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)


def unpacked(tmp_path, tar, packed=True):
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar, 1) if packed else tar)
    return unpack(tmp_path / "a.tar.gz", tmp_path / "out")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_tar_is_read(tmp_path, form):
    files = unpacked(tmp_path, plain_tar(form))
    assert {name: facts.size for name, facts in files.items()} == {
        "top/a": 10, "top/" + "n" * 150 + "/b": 700, "top/ü": 0, "top/c": 3000}  # fmt: skip
    assert (tmp_path / "out" / "top" / "folder").is_dir()


def fix_checksums(tar):
    """Makes every header's checksum right, so that what is in it is what is read."""
    for at in range(0, len(tar) - 511, 512):
        block = tar[at : at + 512]
        if block[257:262] == b"ustar":
            block[148:156] = b" " * 8
            tar[at + 148 : at + 156] = b"%06o\0 " % sum(block)
    return tar


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("right_checksums", [False, True])
def test_damaged_tar_is_an_error_and_nothing_outside(tmp_path, form, right_checksums, monkeypatch):
    # A size that damage made large is damage, not a disk that is full.
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**21))
    whole, rng = plain_tar(form), np.random.default_rng(0)
    for number in range(400):
        tar = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            # Headers are where harm can be done: most of the damage goes there.
            header = int(rng.integers(0, len(tar) // 512)) * 512
            at = header + int(rng.choice([rng.integers(0, 100), rng.integers(124, 136), 156, rng.integers(0, 512)]))
            tar[at] = int(rng.choice([rng.integers(256), *b"\x0007x/L\x80\xff"]))
        folder = tmp_path / str(number) / "inner"
        folder.mkdir(parents=True)
        try:
            unpacked(folder, fix_checksums(tar) if right_checksums else tar)
        except ArchiveError as error:
            assert "\n" not in str(error)
        outside = [path for path in folder.parent.rglob("*") if folder / "out" not in (path, *path.parents)]
        assert sorted(path.name for path in outside) == ["a.tar.gz", "inner"]
        assert not any(path.is_symlink() for path in folder.rglob("*"))


def test_any_bytes_behind_gzips_magic(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(200):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(DamagedArchiveError):
            unpacked(tmp_path / str(number), b"\x1f\x8b" + rng.bytes(int(rng.integers(0, 300))), packed=False)
