"""Our reader of a checkpoint's index against real indexes, against TensorFlow's own, and against any bytes at all."""

import contextlib
import gzip
import json
import os
import re
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo_archives import NAME, OTHER, block, checkpoint, field, masked, model_tensors, table, varint

from tfod_zoo.zoo.checkpoint_index import CheckpointIndexError, parse_index, read_index
from tfod_zoo.zoo.registry import MODELS, get_model
from tfod_zoo.zoo.table import TableError, read_table, unmask_crc, unpack_snappy
from tfod_zoo.zoo.variables import compare, expected_variables, identify, model_variables
from tfod_zoo.zoo.verify import _KNOWN_PIECES, verify_folder, wrong_tensors

LISTINGS = Path(__file__).with_name("listings")  # the indexes of two published archives, and what is in them
NUMBERS = {"float32": 1, "string": 7, "int64": 9}
SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


@pytest.mark.parametrize("path", sorted(LISTINGS.glob("*.index")), ids=lambda path: path.name)
def test_published_index_is_read_to_the_last_field(path):
    found = [
        [tensor.key, f"dtype={NUMBERS[tensor.dtype]}", f"shape={list(tensor.shape)}", f"offset={tensor.offset}",
         f"size={tensor.size}", tensor.crc32c]
        for tensor in read_index(path).tensors
    ]  # fmt: skip
    rows = gzip.decompress(path.with_suffix(".tsv.gz").read_bytes()).decode().splitlines()[1:]
    expected = [row.split("\t") for row in rows]
    for row in expected:
        row[-1] = unmask_crc(int(row[-1].removeprefix("crc32c_masked="), 16))
    assert found == expected


@pytest.mark.parametrize(
    ("listing", "name"),
    [("centernet_mobilenetv2fpn_512x512_coco17_od.ckpt-301", NAME),
     ("faster_rcnn_resnet50_v1_640x640_coco17_tpu-8.ckpt-0", "faster_rcnn_resnet50_v1_640x640_coco17_tpu-8")],
)  # fmt: skip
def test_published_checkpoint_has_exactly_the_models_variables(listing, name):
    found = model_variables(read_index(LISTINGS / f"{listing}.index"))
    assert found == expected_variables(name) and name in identify(found, "")


@pytest.mark.parametrize(
    ("listing", "name", "piece"),
    [("centernet_mobilenetv2fpn_512x512_coco17_od.ckpt-301", NAME, "checkpoint/ckpt-301.index"),
     ("faster_rcnn_resnet50_v1_640x640_coco17_tpu-8.ckpt-0", "faster_rcnn_resnet50_v1_640x640_coco17_tpu-8",
      "checkpoint/ckpt-0.index")],
)  # fmt: skip
def test_published_index_is_a_known_piece(tmp_path, listing, name, piece):
    model = get_model(name)
    known = _KNOWN_PIECES[name]
    (tmp_path / piece).parent.mkdir()
    (tmp_path / piece).write_bytes((LISTINGS / f"{listing}.index").read_bytes())
    finding = [finding for finding in verify_folder(tmp_path, model) if finding.level == "known pieces"][0]
    assert finding.result == ("passed" if len(known) == 1 else "warning") and piece not in finding.text
    (tmp_path / piece).write_bytes(b"another")
    finding = [finding for finding in verify_folder(tmp_path, model) if finding.level == "known pieces"][0]
    assert finding.result == "warning" and piece in finding.text


def test_every_model_with_an_archive_has_its_variables_on_record():
    counts = {model.name: len(expected_variables(model.name)) for model in MODELS if model.date}
    assert len(counts) == 14 and min(counts.values()) == 275 and max(counts.values()) == 848


def test_variables_that_differ_are_told_apart():
    difference = compare({"a": (1,), "b": (2,), "d": ()}, {"a": (1,), "b": (3,), "c": ()})
    assert (difference.missing, difference.reshaped, difference.added) == (("c",), ("b",), ("d",))
    assert not difference.restorable


def write(prefix, tensors):
    index, data = checkpoint(tensors)
    prefix.with_name(prefix.name + ".index").write_bytes(index)
    prefix.with_name(prefix.name + ".data-00000-of-00001").write_bytes(data)


def test_written_index_is_read_back(tmp_path):
    tensors = model_tensors(OTHER, random_bytes=10_000)
    write(tmp_path / "ckpt-1", tensors)
    index = read_index(tmp_path / "ckpt-1")
    assert [tensor.key for tensor in index.tensors] == sorted(tensors)
    shapes = {tensor.key: tensor.shape for tensor in index.tensors if tensor.dtype == "float32"}
    assert shapes == {key: value.shape for key, value in tensors.items() if not isinstance(value, bytes)}
    assert not list(wrong_tensors(tmp_path / "ckpt-1", index))


@pytest.mark.parametrize("length", [0, 1, 127, 128, 300_000])
def test_checksum_of_strings(tmp_path, length):
    write(tmp_path / "ckpt", {"text": bytes(range(256)) * (length // 256) + b"x" * (length % 256)})
    index = read_index(tmp_path / "ckpt")
    assert not list(wrong_tensors(tmp_path / "ckpt", index))
    data = tmp_path / "ckpt.data-00000-of-00001"
    whole = data.read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 7)):
        data.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        assert [tensor.key for tensor in wrong_tensors(tmp_path / "ckpt", index)] == ["text"]


def test_index_that_is_not_there(tmp_path):
    with pytest.raises(CheckpointIndexError, match="Cannot read .*ckpt-0.index .*No such file"):
        read_index(tmp_path / "ckpt-0")


HEADER = (b"", field(1, 0, varint(1)))


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ([], "no header"),
        ([(b"", field(1, 0, varint(0)))], "claims 0 data files"),
        ([(b"", field(2, 0, varint(1)))], "big-endian"),
        ([HEADER, (b"a", field(1, 0, varint(99)))], "a has type 99"),
        ([HEADER, (b"a", field(1, 0, varint(1)) + field(5, 0, varint(8)))], r"a has 8 bytes .* float32\[\]"),
        ([HEADER, (b"a", field(1, 0, varint(1)) + field(3, 0, varint(1)) + field(5, 0, varint(4)))], "of file 1"),
        ([HEADER, (b"a", field(7, 2, varint(0)))], "partitioned"),
        ([HEADER, (b"a", field(2, 2, varint(2) + b"\x18\x01"))], "no known shape"),
        ([HEADER, (b"a", field(2, 2, varint(5)))], "cut off"),
        ([HEADER, (b"a", b"\xff" * 11)], "longer than 64 bits"),
        ([HEADER, (b"\xff", b"")], "a key is not text"),
        ([HEADER, (b"b", b""), (b"a", b"")], "not in order"),
    ],
)
def test_entry_that_cannot_be(entries, text):
    with pytest.raises(TableError, match=text):
        parse_index(table(entries))


def test_every_flipped_bit_of_a_real_index_is_noticed():
    whole = (LISTINGS / "faster_rcnn_resnet50_v1_640x640_coco17_tpu-8.ckpt-0.index").read_bytes()
    good = parse_index(whole)
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        with contextlib.suppress(TableError):
            # The footer's padding means nothing.
            assert parse_index(bytes(damaged)) == good and len(whole) - 48 <= at < len(whole) - 8


def bomb():
    """A table whose list of blocks names one block of 8 MB, packed to 400 KB, again and again."""
    literal = b"\xf0\x3f" + b"a" * 64
    copies = b"\xfe\x40\x00" * 131_071
    packed = varint(64 + 64 * 131_071) + literal + copies
    out = bytearray(packed + b"\x01")
    out += struct.pack("<I", masked(out))
    handle = varint(0) + varint(len(packed))
    listed = block([(b"%06d" % number, handle) for number in range(1000)])
    footer = b""
    for contents in (block([]), listed):
        footer += varint(len(out)) + varint(len(contents))
        out += contents + b"\x00" + struct.pack("<I", masked(contents + b"\x00"))
    return bytes(out) + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def test_bombs_are_refused():
    with pytest.raises(TableError):
        read_table(bomb())
    # 4 GB of keys from 340 KB: each is the one before with another end.
    keys = varint(0) + varint(200_000) + varint(0) + b"k" * 200_000
    keys += b"".join(varint(200_000) + varint(4) + varint(0) + struct.pack(">I", number) for number in range(20_000))
    keys += struct.pack("<II", 0, 1)
    with pytest.raises(TableError, match="more entries than any"):
        read_table(table([(b"k", b"")], pack=lambda contents: keys if contents == block([(b"k", b"")]) else contents))
    with pytest.raises(TableError, match="unpacks to more"):
        unpack_snappy(varint(2**40) + b"\x00a", 2**20)


def snappy_pack(data):
    """Literals, and for a run a copy that reaches into itself."""
    out, at = bytearray(varint(len(data))), 0
    while at < len(data):
        run = 1
        while run < 64 and at + run < len(data) and data[at + run] == data[at]:
            run += 1
        out += bytes([0, data[at]])
        if run > 1:
            out += bytes([(run - 2) << 2 | 2, 1, 0])
        at += run
    return bytes(out)


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=3), st.integers(1, 200)), max_size=30))
def test_snappy_gives_back_what_was_packed(pieces):
    data = b"".join(piece * count for piece, count in pieces)
    assert unpack_snappy(snappy_pack(data), len(data)) == data


@given(st.dictionaries(st.binary(max_size=40), st.binary(max_size=300), min_size=1, max_size=60), st.booleans())
def test_table_gives_back_its_entries(entries, packed):
    rows = sorted(entries.items())
    assert read_table(table(rows, 1, snappy_pack) if packed else table(rows)) == rows


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
arrays = st.lists(st.integers(0, 4), max_size=4).map(lambda shape: np.ones(shape, np.float32))


@given(st.dictionaries(names, arrays | st.binary(max_size=300), max_size=10))
@settings(max_examples=50)
def test_any_checkpoint_is_read_back_and_verified(tmp_path_factory, tensors):
    prefix = tmp_path_factory.mktemp("any") / "ckpt"
    write(prefix, tensors)
    index = read_index(prefix)
    shapes = {tensor.key: tensor.shape for tensor in index.tensors}
    assert shapes == {key: () if isinstance(value, bytes) else value.shape for key, value in tensors.items()}
    assert not list(wrong_tensors(prefix, index))


def seeds():
    small = [(b"", field(1, 0, varint(1)))]
    small += [(b"model/%d" % number, checkpoint({"a": np.ones(2, np.float32)})[0][30:60]) for number in range(5)]
    return [
        (LISTINGS / "faster_rcnn_resnet50_v1_640x640_coco17_tpu-8.ckpt-0.index").read_bytes(),
        checkpoint({"a": np.ones((2, 3), np.float32), "b": b"text"})[0], table(small), table(small, 1, snappy_pack),
    ]  # fmt: skip


def seal(data):
    """Puts right checksums on whatever blocks the footer and the list of blocks still point at."""
    from tfod_zoo.zoo.table import _entries, _handle

    sealed = bytearray(data)

    def fix(offset, size):
        if offset + size + 5 <= len(sealed):
            end = offset + size + 1
            sealed[end : end + 4] = struct.pack("<I", masked(sealed[offset:end]))

    with contextlib.suppress(TableError):
        _, _, at = _handle(data[-48:], 0)
        offset, size, _ = _handle(data[-48:], at)
        for _, value in _entries(bytes(sealed[offset : offset + size])):
            fix(*_handle(value, 0)[:2])
        for start in (0, at):
            fix(*_handle(data[-48:], start)[:2])
    return bytes(sealed)


def fuzz(count, seed):
    """Reads `count` damaged indexes, half of them with right checksums; any exception but TableError gets out."""
    rng, whole, slowest = np.random.default_rng(seed), seeds(), 0.0
    kinds = ["flip", "cut", "double", "insert", "number"]
    for _ in range(count):
        data = bytearray(whole[rng.integers(len(whole))])
        for _ in range(rng.integers(1, 4)):
            at, kind = int(rng.integers(len(data) + 1)), kinds[rng.integers(len(kinds))]
            if kind == "flip" and at < len(data):
                data[at] = int(rng.integers(256))
            elif kind == "cut":
                del data[at : at + int(rng.integers(1, 30))]
            elif kind == "double":
                data[at:at] = data[at : at + int(rng.integers(1, 60))]
            elif kind == "insert":
                data[at:at] = rng.bytes(int(rng.integers(1, 20)))
            elif kind == "number":
                data[at : at + 5] = b"\xff\xff\xff\xff\x0f"
        start = time.perf_counter()
        with contextlib.suppress(TableError):
            parse_index(seal(bytes(data)) if rng.integers(2) else bytes(data))
        slowest = max(slowest, time.perf_counter() - start)
    return slowest


def fuzz_in_a_process(count, seed=0):
    code = (
        "import resource, sys; sys.path.insert(0, sys.argv[1]); import test_checkpoint_index as test\n"
        "test.fuzz(50, 1); test.read_table_safely(test.bomb())\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "slowest = test.fuzz(int(sys.argv[2]), int(sys.argv[3]))\n"
        "print(slowest, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, before / 1024)"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(count), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    slowest, grown, before = map(float, done.stdout.split())
    assert slowest < 2.0 and grown < 100.0, done.stdout
    return slowest, grown


def read_table_safely(data):
    with contextlib.suppress(TableError):
        read_table(data)


def test_damaged_indexes_never_crash_hang_or_fill_the_memory():
    fuzz_in_a_process(5_000)


@pytest.mark.slow
def test_a_million_damaged_indexes():
    for part in range(10):
        fuzz_in_a_process(100_000, seed=part + 1)


def test_bomb_stays_within_a_hundred_mebibytes():
    code = (
        "import resource, sys; sys.path.insert(0, sys.argv[1]); import test_checkpoint_index as test\n"
        "test.fuzz(10, 1); bomb = test.bomb()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; test.read_table_safely(bomb)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    assert float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) < 100.0


class TestAgainstTensorFlow:
    def test_tensorflow_reads_the_same_of_a_published_index(self):
        tf = pytest.importorskip("tensorflow")
        for path in sorted(LISTINGS.glob("*.index")):
            listed = tf.train.load_checkpoint(str(path.with_suffix("")))
            shapes = {tensor.key: list(tensor.shape) for tensor in read_index(path).tensors}
            assert shapes == listed.get_variable_to_shape_map()
            dtypes = {tensor.key: tensor.dtype for tensor in read_index(path).tensors}
            expected = {key: dtype.name for key, dtype in listed.get_variable_to_dtype_map().items()}
            assert dtypes == expected

    def test_every_type_that_tensorflow_writes(self, tmp_path):
        tf = pytest.importorskip("tensorflow")
        types = ["float32", "float64", "int32", "uint8", "int16", "int8", "complex64", "int64", "bool", "bfloat16",
                 "uint16", "complex128", "float16", "uint32", "uint64"]  # fmt: skip
        values = {f"{name}/{shape}": tf.cast(tf.ones(shape), name) for name in types for shape in ((), (2, 3))}
        values["strings"] = tf.constant([b"", b"a", b"b" * 70_000])
        values["empty"] = tf.zeros([0, 3])
        prefix = str(tmp_path / "ckpt")
        tf.raw_ops.SaveV2(prefix=prefix, tensor_names=list(values), shape_and_slices=[""] * len(values),
                          tensors=list(values.values()))  # fmt: skip
        index = read_index(prefix)
        assert {tensor.key: (tensor.dtype, tensor.shape) for tensor in index.tensors} == {
            key: (value.dtype.name, tuple(value.shape)) for key, value in values.items()
        }
        assert not list(wrong_tensors(Path(prefix), index))

    def test_object_graph_of_a_tracked_checkpoint(self, tmp_path):
        tf = pytest.importorskip("tensorflow")
        variables = {f"v{number}": tf.Variable(tf.random.normal([number])) for number in range(200)}
        prefix = Path(tf.train.Checkpoint(**variables).write(str(tmp_path / "ckpt")))
        index = read_index(prefix)
        listed = tf.train.list_variables(str(prefix))
        assert [(tensor.key, list(tensor.shape)) for tensor in index.tensors] == listed
        assert not list(wrong_tensors(prefix, index))


def test_show_variables_names_keys_shapes_and_types_in_well_under_a_second(tmp_path):
    write(tmp_path / "ckpt-0", model_tensors(OTHER, random_bytes=0))
    command = [sys.executable, "-m", "tfod_zoo.cli.main", "show", str(tmp_path / "ckpt-0"), "--variables"]
    before = os.times()
    done = subprocess.run(command, capture_output=True, text=True)
    after = os.times()  # a processor's time: other work on the machine is not the command's
    assert done.returncode == 0
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1.0
    shapes = expected_variables(OTHER)
    key = next(iter(sorted(shapes)))
    row = rf"^float32 +{re.escape(str(list(shapes[key])))} +model/{re.escape(key)}{SUFFIX}$"
    assert re.search(row, done.stdout, re.MULTILINE)
    as_json = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert len(json.loads(as_json.stdout)["variables"]) == len(shapes) + 1
