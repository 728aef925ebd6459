"""What lies under the addresses: signatures by their input types, image files, JSON; each in this process."""

import base64
import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from small_server import encoded, picture, write_detector

import tfod_zoo
from tfod_zoo.export.saved_model import ServingModule
from tfod_zoo.serving.image_file import FORMATS, check_image, read_upright
from tfod_zoo.serving.predict_request import parse_request, response
from tfod_zoo.serving.refusal import Refusal
from tfod_zoo.serving.served_model import MAX_BATCH, ServedModel

PIXELS = 100_000


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return tfod_zoo.load(write_detector(tmp_path_factory.mktemp("served") / "people"))


def as_b64(data):
    return {"b64": base64.b64encode(data).decode()}


def as_example(data):
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))
    return tf.train.Example(features=tf.train.Features(feature={"image/encoded": feature})).SerializeToString()


@pytest.mark.parametrize("input_type", ["float_image_tensor", "encoded_image_string_tensor", "tf_example"])
def test_batches_of_other_input_types_are_the_export_s(detector, input_type):
    served = ServedModel(detector, "people", input_type, PIXELS)
    images = [picture(40, 50, seed=seed) for seed in range(2)]
    if input_type == "float_image_tensor":
        value, sent = np.stack(images).astype(np.float32), np.stack(images).tolist()
    else:
        value = [encoded(image) for image in images]
        value = [as_example(data) for data in value] if input_type == "tf_example" else value
        sent = [as_b64(data) for data in value]
    expected = ServingModule(detector, input_type).__call__(tf.constant(value))
    rows = json.loads(served.predict(json.dumps({"instances": sent}).encode()))["predictions"]
    assert len(rows) == 2
    for key, values in expected.items():
        np.testing.assert_allclose([row[key] for row in rows], values.numpy(), atol=1e-5, err_msg=key)
    info = served.metadata()["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]["input_tensor"]
    assert info["dtype"] == ("DT_FLOAT" if input_type == "float_image_tensor" else "DT_STRING")


@pytest.mark.parametrize(
    ("input_type", "value", "status"),
    [
        ("float_image_tensor", [[[[float("nan"), 0, 0]]]], 400),
        ("float_image_tensor", np.zeros([MAX_BATCH + 1, 1, 1, 3]).tolist(), 413),
        ("encoded_image_string_tensor", [[[[1, 2, 3]]]], 400),
        ("encoded_image_string_tensor", "AAAA", 400),
        ("encoded_image_string_tensor", [{"b64": "?"}], 400),
        ("encoded_image_string_tensor", [{"b64": 7}], 400),
        ("encoded_image_string_tensor", [as_b64(b"no image")], 400),
        ("encoded_image_string_tensor", [as_b64(encoded(picture(60, 60))[:-60])], 400),
        ("encoded_image_string_tensor", [as_b64(encoded(picture(200, 200)))] * 3, 413),
        ("encoded_image_string_tensor", [as_b64(encoded(picture(400, 400)))], 413),
        ("encoded_image_string_tensor", [as_b64(encoded(picture(9, 9)))] * (MAX_BATCH + 1), 413),
        ("tf_example", [as_b64(encoded(picture(9, 9)))], 400),
        ("tf_example", [as_b64(b"")], 400),
        ("tf_example", [as_b64(as_example(b"no image"))], 400),
    ],
)
def test_what_does_not_fit_the_signature_is_refused(detector, input_type, value, status):
    with pytest.raises(Refusal) as refused:
        ServedModel(detector, "people", input_type, PIXELS).predict(json.dumps({"inputs": value}).encode())
    assert refused.value.status == status, refused.value.sentence


def test_one_trace_serves_every_size(detector):
    served = ServedModel(detector, "people", "image_tensor", PIXELS)
    served.warm_up()
    for height, width in [(10, 10), (33, 70), (70, 33), (100, 64), (64, 100)]:
        served.detect_file(encoded(picture(height, width)))
        served.predict(json.dumps({"instances": [picture(height, width).tolist()]}).encode())
    assert served._detect.experimental_get_tracing_count() == 1


class TestImageFile:
    @pytest.mark.parametrize("kind", FORMATS)
    def test_every_format_is_read(self, kind):
        pixels = picture(24, 30)
        found = read_upright(encoded(pixels, kind), PIXELS)
        assert found.shape == (24, 30, 3) and found.dtype == np.uint8
        if kind in ("PNG", "BMP"):
            np.testing.assert_array_equal(found, pixels)

    def test_it_is_upright_as_a_browser_shows_it(self):
        from PIL import Image

        turned = Image.Exif()
        turned[0x0112] = 6  # EXIF's orientation: to be turned clockwise by a quarter
        pixels = picture(24, 30)
        data = encoded(pixels, "PNG", exif=turned)
        np.testing.assert_array_equal(read_upright(data, PIXELS), np.rot90(pixels, -1))
        assert check_image(data, PIXELS) == (30, 24)

    @pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "I;16", "CMYK"])
    def test_every_mode_becomes_rgb(self, mode):
        import io

        from PIL import Image

        data = io.BytesIO()
        Image.new(mode, (20, 10)).save(data, "JPEG" if mode == "CMYK" else "PNG")
        assert read_upright(data.getvalue(), PIXELS).shape == (10, 20, 3)

    def test_the_limit_is_on_pixels_not_on_bytes(self):
        flat = encoded(np.zeros([400, 250, 3], np.uint8))
        assert read_upright(flat, 100_000).shape == (400, 250, 3)
        with pytest.raises(Refusal) as refused:
            read_upright(flat, 99_999)
        assert refused.value.status == 413 and "250x400" in refused.value.sentence

    @given(st.data())
    @settings(max_examples=200, deadline=None)
    def test_damaged_files_are_refused_or_read(self, data):
        kind = data.draw(st.sampled_from(FORMATS))
        damaged = bytearray(encoded(picture(16, 16), kind))
        for _ in range(data.draw(st.integers(1, 8))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        try:
            assert read_upright(bytes(damaged), PIXELS).shape[2] == 3
        except Refusal as refused:
            assert 400 <= refused.status < 500


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["b64", "input_tensor", "instances", "inputs"]), inner, max_size=2),
)


@given(st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=300, deadline=None)
def test_a_body_is_a_request_or_refused(body):
    try:
        request = parse_request(body)
    except Refusal as refused:
        assert 400 <= refused.status < 500 and "\n" not in refused.sentence
    else:
        assert request.by_rows == ("instances" in json.loads(body))


def test_rows_are_the_columns_turned():
    outputs = {"boxes": np.arange(24.0).reshape(2, 3, 4), "count": np.array([3.0, 1.0])}
    columns, rows = response(outputs, by_rows=False)["outputs"], response(outputs, by_rows=True)["predictions"]
    assert columns == {key: value.tolist() for key, value in outputs.items()}
    assert rows == [{"boxes": columns["boxes"][row], "count": columns["count"][row]} for row in range(2)]
