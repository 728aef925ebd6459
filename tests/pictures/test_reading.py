"""Pictures of every kind become upright RGB pixels, or one sentence."""

import sys

import numpy as np
import pytest
from PIL import Image

from tfod_zoo.pictures import reading
from tfod_zoo.pictures.reading import PictureError, read_pixels

PIXELS = np.random.default_rng(0).integers(0, 256, [6, 9, 3], dtype=np.uint8)


@pytest.mark.parametrize("kind", ["path", "text", "pillow", "array", "tensor", "alpha"])
def test_every_kind_gives_the_same_pixels(kind, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path)
    if kind == "tensor":
        import tensorflow as tf

        source = tf.constant(PIXELS)
    else:
        source = {
            "path": path, "text": str(path), "pillow": Image.fromarray(PIXELS), "array": PIXELS,
            "alpha": np.concatenate([PIXELS, PIXELS[..., :1]], 2),
        }[kind]  # fmt: skip
    np.testing.assert_array_equal(read_pixels(source), PIXELS)


def test_a_camera_held_sideways(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees clockwise to see it upright
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.png"), np.rot90(PIXELS, -1))


@pytest.mark.parametrize("mode", ["L", "P", "LA", "CMYK", "1", "I;16", "I"])
def test_every_mode(mode, tmp_path):
    grey = np.repeat(PIXELS[..., :1], 3, 2)
    if mode == "I;16":
        Image.fromarray(PIXELS[..., 0].astype(np.uint16) << 8).save(tmp_path / "a.png")
    elif mode == "I":
        Image.fromarray(PIXELS[..., 0].astype(np.int32)).save(tmp_path / "a.tif")
    else:
        Image.fromarray(grey).convert(mode).save(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"))
    got = read_pixels(next(tmp_path.iterdir()))
    assert got.shape == (6, 9, 3) and got.dtype == np.uint8
    if mode != "1":
        np.testing.assert_allclose(got.astype(int), grey, atol=40 if mode == "P" else 1)  # a palette of few greys
    np.testing.assert_array_equal(read_pixels(PIXELS[..., 0]), grey)


def test_a_phones_heic(tmp_path, monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    pixels = np.full([64, 96, 3], (200, 100, 50), np.uint8)
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(tmp_path / "IMG_1.HEIC")
    np.testing.assert_allclose(read_pixels(tmp_path / "IMG_1.HEIC").astype(int), pixels, atol=8)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    reading._heif_is_known.cache_clear()
    with pytest.raises(PictureError, match=r"HEIC, which needs pillow-heif: pip install 'tfod-zoo\[heic\]'"):
        read_pixels(tmp_path / "IMG_1.HEIC")
    reading._heif_is_known.cache_clear()


def test_what_is_no_image_is_one_sentence(tmp_path):
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty.jpg").touch()
    Image.fromarray(np.tile(PIXELS, [20, 20, 1])).save(tmp_path / "whole.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:3000])
    for name, sentence in (
        ("text.jpg", "cannot be read as an image"),
        ("half.jpg", "truncated"),
        ("empty.jpg", "the file is empty"),
        ("none.jpg", "does not exist"),
        ("", "is a folder"),
    ):
        with pytest.raises(PictureError, match=sentence) as error:
            read_pixels(tmp_path / name)
        assert str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)
    for array in (PIXELS.astype(np.float32), PIXELS[None], np.zeros([4, 4, 2], np.uint8)):
        with pytest.raises(PictureError, match=r"uint8 \[H, W, 3\]"):
            read_pixels(array)
    with pytest.raises(PictureError, match="no pixels"):
        read_pixels(np.zeros([0, 4, 3], np.uint8))


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    Image.fromarray(np.zeros([100, 100, 3], np.uint8)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(PictureError, match="more than 0 megapixels; make it smaller"):
        read_pixels(tmp_path / "bomb.png")
