"""A real sweep's page: complete in itself, escaped, sortable in a real browser, legible on a phone; and compared."""

import copy
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from headless_browser import Browser, find_browser

import tfod_zoo
from tfod_zoo.benchmark.charts import Point, pareto_front, scatter
from tfod_zoo.benchmark.columns import box_map
from tfod_zoo.benchmark.html_report import html_report
from tfod_zoo.benchmark.image_matches import ImageMatches, WeightedMap
from tfod_zoo.benchmark.report import markdown_report
from tfod_zoo.benchmark.sweep import MATCHES_FOLDER, RESULTS_FILE, read_rows
from tfod_zoo.cli.main import main
from tfod_zoo.config.generate import generate_pipeline
from tfod_zoo.config.pipeline import write_pipeline
from tfod_zoo.data.shapes import prepare_shapes

MOBILENET = "centernet_mobilenetv2fpn_512x512_coco17_od"
FOLDER = "<i>run & co"  # a name that would be markup
# What makes a page ask for something else than itself.
LOADING = ("src", "href", "srcset", "action", "data", "poster")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The folder of one real row with mAP, measured by the command."""
    folder = tmp_path_factory.mktemp("sweep")
    train, validation, label_map = prepare_shapes(folder / "data", train=2, validation=5, image_size=64, seed=1)
    pipeline = generate_pipeline(
        MOBILENET, hardware="cpu", label_map=str(label_map), train_records=str(train), eval_records=str(validation),
        fine_tune_checkpoint="", image_size=64,
    )
    model = folder / FOLDER
    model.mkdir()
    write_pipeline(pipeline, model / "pipeline.config")
    tfod_zoo.build(pipeline).save_checkpoint(model / "ckpt-7")
    words = ["benchmark", str(model), "--dataset", "config", "--min-calls", "30", "--min-seconds", "0",
             "--time-budget", "1h", "--report", str(folder / "out")]
    assert main(words) == 0
    return folder / "out"


class Page(HTMLParser):
    """What a test wants to know of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.loads, self.texts, self.unclosed = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.loads += [value for name, value in attributes if name in LOADING]
        if tag not in ("meta", "line", "circle", "path", "br"):
            self.unclosed.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.unclosed.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def many_rows(sweep, count=12):
    """The real row and copies of it with other figures."""
    (real,) = read_rows(sweep / RESULTS_FILE)
    rows = [real]
    for number in range(1, count):
        row = copy.deepcopy(real)
        row["entry"]["batch_size"] = 1 + number
        row["calls_ms"] = [value * (1 + 0.3 * number) for value in real["calls_ms"]]
        row["p50_ms"] = real["p50_ms"] * (1 + 0.3 * number)
        row["metrics"]["DetectionBoxes_Precision/mAP"] = 0.1 + 0.37 * number % 0.5
        rows.append(row)
    rows[3] = {name: rows[3][name] for name in ("entry", "weights", "published", "machine")} | {
        "status": "failed", "reason": "no <script>alert(1)</script> luck | at all"
    }
    return rows


def test_a_real_row_tells_of_its_timing(sweep):
    (row,) = read_rows(sweep / RESULTS_FILE)
    assert len(row["calls_ms"]) == row["timed_calls"] == 30
    assert np.median(row["calls_ms"]) == pytest.approx(row["p50_ms"], abs=1e-3)
    assert 0 < row["cores_used"] <= row["cores_allowed"] * 1.1 and row["cores_of_machine"] >= row["cores_allowed"]
    assert row["peaks"]["matmul_gflops"] > 1 and row["peaks"]["copy_gbs"] > 0.1
    assert row["command"].startswith("tfod-zoo benchmark ") and "--time-budget 1h" in row["command"]
    assert row["entry_seconds"] > row["timed_seconds"]


def test_a_real_rows_matches_give_its_map(sweep):
    (row,) = read_rows(sweep / RESULTS_FILE)
    matches = ImageMatches.load(sweep / MATCHES_FOLDER / row["matches"])
    assert matches.num_images == row["evaluated_images"] == 5
    assert 100 * WeightedMap(matches)(np.ones(5)) == pytest.approx(box_map(row))
    found = [value for value in row["per_class_ap"].values() if value >= 0]
    assert 100 * np.mean(found) == pytest.approx(box_map(row)), "mAP is the mean of the classes' AP"


def test_the_page_needs_nothing_else_and_escapes_names(sweep):
    text = (sweep / "report.html").read_text()
    page = Page(text)
    assert not page.unclosed and not page.loads
    assert "http" not in text and "@import" not in text and "url(" not in text
    assert "<i>" not in text and any(FOLDER in data for data in page.texts)
    told = "".join(page.texts)
    for expected in ("tensorflow 2.", "GFLOP/s", "tfod-zoo benchmark ", "By size of the object", "AP by class",
                     "ckpt-7"):
        assert expected in told
    heads = [attributes for tag, attributes in page.tags if tag == "th"]
    assert heads and all(head.get("scope") in ("col", "row") for head in heads)
    pictures = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(pictures) == 2 and all(picture["role"] == "img" and picture["aria-label"] for picture in pictures)


def test_reasons_and_names_are_no_markup_anywhere(sweep):
    rows = many_rows(sweep)
    page = html_report(rows, ["a note <b>"])
    Page(page)
    assert page.count("<script>") == 1 and "<b>" not in page
    markdown = markdown_report(rows)
    markdown = "\n".join(line for line in markdown.splitlines() if not line.startswith("    "))  # code is no markup
    assert "<script>" not in markdown and "<i>" not in markdown
    table = [line.replace("\\|", "") for line in markdown.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1


def test_random_weights_and_missing_figures_are_said(sweep):
    (row,) = read_rows(sweep / RESULTS_FILE)
    row = {name: value for name, value in row.items() if name not in ("metrics", "per_class_ap", "evaluated_images",
                                                                      "calls_ms", "peaks")} | {
        "weights": "random", "cores_used": 2.0, "cores_allowed": 2, "cores_used_by_others": 0.0  # on a quiet machine
    }
    text = html_report([row], [])
    assert "untrained" in text and ">random<" in text
    assert "(random weights)" in html_report([row | {"device": "CPU", "cores_used_by_others": 1.0}], [])
    for absent in ("mAP", "AP by class", "Latency of the calls", "<svg", "None", "nan"):
        assert absent not in text, text[max(0, text.find(absent) - 80) :][:160]
    only_failed = html_report([many_rows(sweep)[3]], [])
    assert "0 of 1 rows measured" in only_failed


def test_runtimes_and_precisions_are_shown_where_rows_have_them(sweep):
    (row,) = read_rows(sweep / RESULTS_FILE)
    other = copy.deepcopy(row)
    other["entry"] |= {"runtime": "openvino", "precision": "int8"}
    told = html_report([row, other], [])
    for expected in ("tensorflow", "float32", "openvino", "int8"):
        assert f">{expected}<" in told


def test_the_pareto_front_is_of_points_that_none_beats():
    places = [(10, 20), (12, 19), (15, 30), (15, 28), (9, 20), (40, 30), (50, 31)]
    points = [Point(x, y, str(at), "") for at, (x, y) in enumerate(places)]
    assert [(point.x, point.y) for point in pareto_front(points)] == [(9, 20), (15, 30), (50, 31)]
    assert 'class="front"' in scatter(points, [], "mAP", "")
    scatter(points[:1], [], "mAP", "")  # one point has no spread to scale by


def test_the_page_in_a_real_browser(sweep, tmp_path):
    path = find_browser()
    if not path:
        pytest.skip("no Chromium or Chrome here; TFOD_ZOO_BROWSER names one")
    page = tmp_path / "report.html"
    page.write_text(html_report(many_rows(sweep), []), encoding="utf-8")
    with Browser(path, tmp_path / "profile") as browser:
        browser.show_as(width=1200)
        browser.open(page.as_uri())
        requests = [event["params"]["request"]["url"] for event in browser.events
                    if event.get("method") == "Network.requestWillBeSent"]
        assert requests == [page.as_uri()], "the page asks for nothing else"
        assert not [event for event in browser.events if event.get("method") == "Runtime.exceptionThrown"]
        column = "[...document.querySelectorAll('table')[0].tHead.rows[0].cells].find(c => c.textContent == 'p50 ms')"
        cells = f"[...document.querySelectorAll('table')[0].tBodies[0].rows].map(r => r.cells[{column}.cellIndex]" \
                ".dataset.value)"
        before = browser.run(cells)
        for wanted in ("descending", "ascending"):
            browser.run(f"{column}.querySelector('button').click()")
            assert browser.run(f"{column}.getAttribute('aria-sort')") == wanted
            after = browser.run(cells)
            numbers = [float(value) for value in after if value]
            assert numbers == sorted(numbers, reverse=wanted == "descending")
            assert after[-1] == "", "a row without the figure stays last"
            assert sorted(after) == sorted(before)
        light = browser.run("getComputedStyle(document.body).backgroundColor")
        browser.show_as(width=375, dark=True)
        assert browser.run("getComputedStyle(document.body).backgroundColor") != light
        assert browser.run("document.documentElement.scrollWidth") <= 375, "only tables and pictures scroll sideways"
        assert browser.run("parseFloat(getComputedStyle(document.body).fontSize)") >= 16
        browser.screenshot(tmp_path / "phone.png")
        assert (tmp_path / "phone.png").stat().st_size > 10_000


def test_a_sweep_compared_with_itself_and_with_a_slower_one(sweep, tmp_path, capsys):
    assert main(["benchmark", "compare", str(sweep), str(sweep / RESULTS_FILE)]) == 0
    assert "0 of 1 rows regressed" in capsys.readouterr().out
    slower = tmp_path / "slower"
    shutil.copytree(sweep, slower)
    (row,) = read_rows(sweep / RESULTS_FILE)
    row["calls_ms"] = [3 * value for value in row["calls_ms"]]
    row["p50_ms"] *= 3
    (slower / RESULTS_FILE).write_text(json.dumps(row) + "\n")
    assert main(["benchmark", "compare", str(sweep), str(slower), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    verdicts = {change["figure"]: change["verdict"] for change in told["rows"][0]["changes"]}
    assert verdicts == {"p50 ms": "regression", "peak MiB": "same", "mAP %": "same"}
    assert main(["benchmark", "compare", str(sweep), str(slower), "--tolerance", "300%"]) == 0
    assert main(["benchmark", "compare", str(slower), str(sweep)]) == 0, "faster is no regression"
    assert Path(told["only_before"] or ".") == Path(".")
