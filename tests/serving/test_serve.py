"""`tfod-zoo serve` in a process of its own: a real browser on its page, many clients, hostile bodies, the end."""

import base64
import http.client
import json
import signal
import socket
import sys
import threading
import time
import zlib

import numpy as np
import pytest
import requests
import tensorflow as tf
from headless_browser import Browser, find_browser
from small_server import encoded, picture, serving, write_detector

import tfod_zoo
from tfod_zoo.cli.main import main
from tfod_zoo.config.recipes import PERSON_EDGES

MAX_MIB = 1
MAX_PIXELS = 300_000
CLIENTS = 50


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_detector(tmp_path_factory.mktemp("serving") / "people")


@pytest.fixture(scope="module")
def detector(folder):
    return tfod_zoo.load(folder)


@pytest.fixture(scope="module")
def address(folder):
    """Of a server with small limits, which at the end is stopped by Ctrl-C."""
    with serving(folder, "--max-mib", str(MAX_MIB), "--max-megapixels", str(MAX_PIXELS / 1e6)) as (process, port):
        yield f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, process.stdout.read()


def test_an_image_file_gives_the_model_s_detections_in_pixels(address, detector):
    pixels = picture(90, 120)
    answer = requests.post(f"{address}/detect", encoded(pixels)).json()
    assert (answer["model"], answer["width"], answer["height"]) == ("people", 120, 90)
    expected = {key: value.numpy()[0] for key, value in detector.detect(tf.constant(pixels[None])).items()}
    assert len(answer["detections"]) == int(expected["num_detections"]) > 0
    for index, found in enumerate(answer["detections"]):
        assert (found["class_id"], found["class"]) == (1, "person")
        assert found["score"] == pytest.approx(expected["detection_scores"][index], abs=1e-5)
        left, top, right, bottom = found["box"]
        assert left <= right and top <= bottom  # random weights have boxes beyond the edge, clipped to it
        corners = [top / 90, left / 120, bottom / 90, right / 120]
        np.testing.assert_allclose(corners, expected["detection_boxes"][index], atol=1e-3)
        points = [[y / 90, x / 120] for x, y, _ in found["keypoints"]]
        np.testing.assert_allclose(points, expected["detection_keypoints"][index], atol=1e-3)
    pose = answer["poses"]["person"]
    assert (pose["keypoints"][0], pose["keypoints"][16]) == ("nose", "right_ankle")
    assert [15, 16] not in pose["skeleton"] and [14, 16] in pose["skeleton"]  # an ankle hangs on its own knee
    scores = [found["score"] for found in answer["detections"]]
    assert scores == sorted(scores, reverse=True)
    least = scores[len(scores) // 2] - 1e-5  # written scores are rounded
    kept = requests.post(f"{address}/detect?min_score={least}", encoded(pixels)).json()["detections"]
    assert [found["score"] for found in kept] == pytest.approx([score for score in scores if score >= least])


def test_tensorflow_serving_s_addresses(address):
    base = f"{address}/v1/models/people"
    ready = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert requests.get(base).json() == requests.get(f"{base}/versions/1").json() == {"model_version_status": [ready]}
    described = requests.get(f"{base}/metadata").json()
    assert described["model_spec"] == {"name": "people", "signature_name": "", "version": "1"}
    signature = described["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    (name, info), = signature["inputs"].items()
    assert (name, info["dtype"]) == ("input_tensor", "DT_UINT8")
    assert [size["size"] for size in info["tensor_shape"]["dim"]] == ["1", "-1", "-1", "3"]
    assert signature["outputs"]["detection_keypoints"]["dtype"] == "DT_FLOAT"


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("version", ["", "/versions/1"])
def test_predict_by_rows_and_by_columns(address, detector, named, version):
    pixels = picture(30, 40, seed=1)
    expected = {key: value.numpy() for key, value in detector.detect(tf.constant(pixels[None])).items()}
    url = f"{address}/v1/models/people{version}:predict"

    def name(value):
        return {"input_tensor": value} if named else value

    rows = requests.post(url, json={"signature_name": "serving_default", "instances": [name(pixels.tolist())]}).json()
    columns = requests.post(url, json={"inputs": name(pixels[None].tolist())}).json()
    (row,) = rows["predictions"]
    assert row.keys() == columns["outputs"].keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(row[key], value[0], atol=1e-4, err_msg=key)
        np.testing.assert_allclose(columns["outputs"][key], value, atol=1e-4, err_msg=key)


def zeros(*shape, value=0):
    return json.dumps({"instances": np.full(shape, value).tolist()})


PNG = encoded(picture(40, 40))
JPEG = encoded(picture(200, 200), "JPEG")
# A PNG's header: IHDR, width, height, five bytes of kind, and a checksum; whatever the data behind it are.
HEADER = b"IHDR" + (60_000).to_bytes(4, "big") * 2 + PNG[24:29]
BOMB = PNG[:12] + HEADER + zlib.crc32(HEADER).to_bytes(4, "big") + PNG[33:]
HOSTILE = {
    "nothing": ("/detect", b"", 400),
    "huge": ("/detect", bytes(2 * MAX_MIB << 20), 413),
    "huger": ("/detect", bytes(8 * MAX_MIB << 20), 413),
    "text": ("/detect", b"GET / HTTP/1.1\r\n\r\n" * 100, 400),
    "svg": ("/detect", b"<svg xmlns='http://www.w3.org/2000/svg'/>", 400),
    "cut off jpeg": ("/detect", JPEG[: len(JPEG) // 2], 400),
    "cut off png": ("/detect", PNG[: len(PNG) // 2], 400),
    "decompression bomb": ("/detect", BOMB, 413),
    "real bomb": ("/detect", encoded(np.zeros([4000, 4000, 3], np.uint8)), 413),
    "endless scans": ("/detect", JPEG[:-2] + JPEG[JPEG.index(b"\xff\xda") :][:-2] * 200, 400),
    "wrong score": ("/detect?min_score=much", PNG, 400),
    "not json": (":predict", b"{", 400),
    "not utf-8": (":predict", b"\xff\xfe{}", 400),
    "nested": (":predict", b'{"instances": ' + b"[" * 100_000, 400),
    "endless number": (":predict", b'{"instances": [' + b"1" * 100_000 + b"]}", 400),
    "no object": (":predict", b"[1]", 400),
    "no input": (":predict", b"{}", 400),
    "rows and columns": (":predict", b'{"instances": [1], "inputs": 1}', 400),
    "no rows": (":predict", b'{"instances": []}', 400),
    "another key": (":predict", b'{"instance": []}', 400),
    "another signature": (":predict", b'{"signature_name": "train", "instances": [1]}', 404),
    "another input": (":predict", b'{"instances": [{"image": 1}]}', 400),
    "words": (":predict", b'{"instances": [[[["a", "b", "c"]]]]}', 400),
    "a file for pixels": (":predict", b'{"instances": [{"b64": "AAAA"}]}', 400),
    "ragged": (":predict", b'{"instances": [[[[1, 2, 3]], [[1, 2]]]]}', 400),
    "fractions": (":predict", zeros(1, 8, 8, 3, value=0.5), 400),
    "too bright": (":predict", zeros(1, 8, 8, 3, value=256), 400),
    "grey": (":predict", zeros(1, 8, 8, 1), 400),
    "no batch": (":predict", zeros(8, 8, 3), 400),
    "empty": (":predict", zeros(1, 0, 8, 3), 400),
    "a batch": (":predict", zeros(2, 8, 8, 3), 400),
    "another model": ("/v1/models/dogs:predict", zeros(1, 8, 8, 3), 404),
    "another version": ("/v1/models/people/versions/2:predict", zeros(1, 8, 8, 3), 404),
    "another address": ("/detections", PNG, 404),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_requests_get_one_sentence(address, case):
    path, body, status = HOSTILE[case]
    path = f"/v1/models/people{path}" if path.startswith(":") else path
    answer = requests.post(address + path, body)
    assert answer.status_code == status, answer.text
    sentence = answer.json()["error"]
    assert sentence.endswith(".") and "\n" not in sentence and len(sentence) < 300 and "Traceback" not in sentence


def test_after_all_that_it_still_detects(address):
    assert requests.post(f"{address}/detect", PNG).status_code == 200


def test_a_form_is_told_how_to_send(address):
    answer = requests.post(f"{address}/detect", files={"image": PNG})
    assert answer.status_code == 415 and "--data-binary" in answer.json()["error"]


def test_a_body_without_a_length_is_limited_too(address):
    answer = requests.post(f"{address}/detect", (bytes(1 << 16) for _ in range(40)))
    assert answer.status_code == 413


def hold(address, seconds):
    """Fifty clients, each with a connection of its own and images of many sizes; (answers, errors)."""
    bodies = [encoded(picture(20 + 7 * size, 90 - 5 * size, seed=size)) for size in range(10)]
    until = time.monotonic() + seconds
    answers, errors = [0] * CLIENTS, []

    def client(number):
        with requests.Session() as session:
            while time.monotonic() < until or not answers[number]:
                try:
                    answer = session.post(f"{address}/detect", bodies[(number + answers[number]) % len(bodies)])
                    assert answer.status_code == 200 and answer.json()["detections"], answer.text
                except Exception as error:
                    errors.append(error)
                    return
                answers[number] += 1

    clients = [threading.Thread(target=client, args=[number]) for number in range(CLIENTS)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    return answers, errors


@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_fifty_clients_get_no_error(address, seconds):
    answers, errors = hold(address, seconds)
    assert not errors and min(answers) > 0
    print(f"{sum(answers)} answers in {seconds} s")


def start_request(port, body):
    """A connection that has sent all but the last byte of a request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest("POST", "/detect")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[:-1])
    return connection


def finish_request(connection, body):
    connection.send(body[-1:])
    return connection.getresponse()


def test_more_than_its_places_are_told_to_come_again_and_sigterm_lets_what_is_in_flight_end(folder):
    with serving(folder, "--max-requests", "2") as (process, port):
        held = [start_request(port, PNG) for _ in range(2)]
        deadline = time.monotonic() + 60
        while True:  # until the server has looked at both
            refused = requests.post(f"http://127.0.0.1:{port}/detect", PNG)
            if refused.status_code == 503:
                break
            assert time.monotonic() < deadline
        assert int(refused.headers["Retry-After"]) >= 1 and "try again in" in refused.json()["error"]

        process.send_signal(signal.SIGTERM)
        while True:  # until it takes no one new
            try:
                socket.create_connection(("127.0.0.1", port), timeout=60).close()
            except ConnectionRefusedError:
                break
            assert time.monotonic() < deadline
            time.sleep(0.02)
        for connection in held:
            answer = finish_request(connection, PNG)
            assert answer.status == 200 and json.loads(answer.read())["detections"]
        assert process.wait(60) == 0
        assert process.stdout.read().endswith("stopped.\n")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    path = find_browser()
    if not path:
        pytest.skip("no browser on the path, and TFOD_ZOO_BROWSER names none")
    with Browser(path, tmp_path_factory.mktemp("profile")) as started:
        yield started


DROP = """(() => {
  const bytes = Uint8Array.from(atob("%s"), letter => letter.charCodeAt(0)), dropped = new DataTransfer();
  dropped.items.add(new File([bytes], "street.png", {type: "image/png"}));
  document.getElementById("drop").dispatchEvent(
    new DragEvent("drop", {dataTransfer: dropped, bubbles: true, cancelable: true}));
})()"""


def drop(browser, data):
    """Drops a file on the page and waits for what it says of it."""
    browser.run(DROP % base64.b64encode(data).decode())
    deadline = time.monotonic() + 60
    while (said := browser.run("document.getElementById('message').textContent")).endswith("..."):
        assert time.monotonic() < deadline, said
        time.sleep(0.05)
    return said


def test_the_page_draws_what_the_api_finds(address, browser):
    image = encoded(picture(90, 120))
    found = requests.post(f"{address}/detect", image).json()["detections"]
    browser.open(f"{address}/")
    assert drop(browser, image).startswith(f"120x90, 0 of {len(found)} detections, best score {found[0]['score']:.2f}")

    least = found[len(found) // 2]["score"]
    browser.run(f"score.step = 'any', score.value = {least - 1e-6}, score.dispatchEvent(new Event('input'))")
    kept = [entry for entry in found if entry["score"] >= least - 1e-6]
    drawn = browser.run("""[...document.querySelectorAll('#picture .detection')].map(group => ({
        box: ['x', 'y', 'width', 'height'].map(name => Number(group.querySelector('rect').getAttribute(name))),
        label: group.querySelector('text').textContent, points: group.querySelectorAll('circle').length,
        lines: group.querySelectorAll('line').length}))""")
    assert [group["label"] for group in reversed(drawn)] == [f"person {entry['score']:.2f}" for entry in kept]
    for group, entry in zip(reversed(drawn), kept, strict=True):
        left, top, right, bottom = entry["box"]
        np.testing.assert_allclose(group["box"], [left, top, right - left, bottom - top], atol=1e-3)
        assert group["points"] == 17 and group["lines"] == len(PERSON_EDGES)
    assert browser.run("document.querySelector('#picture image').getBBox().width") == 120
    assert browser.run("document.querySelectorAll('#table tr').length") == len(kept)


def test_the_page_says_what_is_wrong_and_asks_nobody_else(address, browser):
    browser.events.clear()
    browser.open(f"{address}/")
    assert drop(browser, b"no image at all").startswith("The data are not an image")
    assert browser.run("document.getElementById('message').className") == "error"
    assert browser.run("document.getElementById('picture').hasAttribute('hidden')")
    asked = [event["params"]["request"]["url"] for event in browser.events
             if event.get("method") == "Network.requestWillBeSent"]
    assert set(asked) == {f"{address}/", f"{address}/detect"}
    assert not [event for event in browser.events if event.get("method") == "Runtime.exceptionThrown"]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--port", "99999"], "--port 99999 is no port"),
        (["--max-requests", "0"], "--max-requests 0 is no limit"),
        (["--max-megapixels", "nan"], "--max-megapixels nan is no limit"),
        (["--name", "a/b"], "'a/b' cannot be a part of an address"),
        (["--host", "no such host"], "--host no such host is no address of this machine"),
    ],
)
def test_wrong_use(folder, capsys, flags, sentence):
    assert main(["serve", str(folder), *flags]) == 2
    assert capsys.readouterr().err.startswith(f"tfod-zoo: {sentence}")


def test_a_port_that_is_taken(folder, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert main(["serve", str(folder), "--port", str(other.getsockname()[1])]) == 1
    assert "give another --port" in capsys.readouterr().err


def test_without_the_extra_it_says_how_to_get_it(folder, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "tfod_zoo.serving.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", str(folder)]) == 2
    assert "pip install 'tfod-zoo[serve]'" in capsys.readouterr().err
