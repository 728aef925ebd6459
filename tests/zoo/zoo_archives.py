"""Small zoo archives for the store's tests: real checkpoints, written here, with a model's own names and shapes."""

import gzip
import io
import os
import random
import struct
import tarfile

import google_crc32c
import numpy as np

from tfod_zoo.zoo.variables import expected_variables

NAME = "centernet_mobilenetv2fpn_512x512_coco17_od"
TOP = "centernet_mobilenetv2_fpn_od"
OTHER = "centernet_mobilenetv2fpn_512x512_coco17_kpts"
# The names in the real archive's state file: only the last one is shipped.
STATE = b'model_checkpoint_path: "/cns/train/ckpt-301"\nall_model_checkpoint_paths: "/cns/train/ckpt-295"\n'
CONFIG = b"""model { center_net { num_classes: 90 image_resizer { keep_aspect_ratio_resizer {
  min_dimension: 512 max_dimension: 512 pad_to_max_dimension: true } } } }
"""
_DTYPES = {"float32": 1, "int64": 9}
_BLOCK_BYTES = 4096
_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def masked(data):
    crc = google_crc32c.value(bytes(data))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def field(number, kind, value):
    return varint(number << 3 | kind) + value


def shape_message(shape):
    dims = b"".join(field(2, 2, varint(len(dim)) + dim) for dim in (field(1, 0, varint(size)) for size in shape))
    return varint(len(dims)) + dims


def block(entries):
    """Contents of a block: each key stores what differs from the one before, one restart at the start."""
    out, last = bytearray(), b""
    for key, value in entries:
        shared = len(os.path.commonprefix([key, last]))
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return bytes(out) + struct.pack("<II", 0, 1)


def table(entries, kind=0, pack=bytes):
    """A whole table; `pack` compresses its blocks as `kind` says."""
    out, listed, group = bytearray(), [], []

    def add(contents):
        offset, packed = len(out), pack(contents)
        out.extend(packed + bytes([kind]))
        out.extend(struct.pack("<I", masked(packed + bytes([kind]))))
        return varint(offset) + varint(len(packed))

    for at, (key, value) in enumerate(entries):
        group.append((key, value))
        if sum(len(key) + len(value) for key, value in group) > _BLOCK_BYTES or at == len(entries) - 1:
            listed.append((key, add(block(group))))
            group = []
    footer = add(block([])) + add(block(listed))
    return bytes(out) + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def checkpoint(tensors):
    """(index, data) of a checkpoint; a value of bytes is a string."""
    data, entries = bytearray(), [(b"", field(1, 0, varint(1)) + field(3, 2, varint(2) + b"\x08\x01"))]
    for key, value in sorted(tensors.items()):
        if isinstance(value, bytes):
            crc = google_crc32c.value(struct.pack("<I", len(value)))
            check = struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
            raw, of = varint(len(value)) + check + value, struct.pack("<I", len(value)) + check + value
            dtype, shape = 7, ()
        else:
            raw = of = value.tobytes()
            dtype, shape = _DTYPES[value.dtype.name], value.shape
        message = field(1, 0, varint(dtype)) + field(2, 2, shape_message(shape)) + field(4, 0, varint(len(data)))
        message += field(5, 0, varint(len(raw))) + field(6, 5, struct.pack("<I", masked(of)))
        entries.append((key.encode(), message))
        data += raw
    return table(entries), bytes(data)


def model_tensors(name, random_bytes=300_000, seed=0):
    """A value for each variable of a zoo model: zeros, but for some that do not compress."""
    rng, left, tensors = np.random.default_rng(seed), random_bytes, {"_CHECKPOINTABLE_OBJECT_GRAPH": b"graph" * 100}
    for key, shape in sorted(expected_variables(name).items()):
        value = np.zeros(shape, np.float32)
        if 0 < value.nbytes <= left:
            value = rng.random(shape, np.float32)
            left -= value.nbytes
        tensors[f"model/{key}{_SUFFIX}"] = value
    return tensors


def model_files(name=NAME, checkpoint_name="ckpt-301", **options):
    """Path in the model's folder -> content, laid out as the real MobileNet archives are."""
    index, data = checkpoint(model_tensors(name, **options))
    return {
        "pipeline.config": CONFIG,
        "checkpoint/checkpoint": STATE,
        f"checkpoint/{checkpoint_name}.index": index,
        f"checkpoint/{checkpoint_name}.data-00000-of-00001": data,
        "label_map.txt": b'item { name: "/m/01g317" id: 1 display_name: "person" }\n',
        "model.tflite": random.Random(0).randbytes(2000),
        "saved_model/saved_model.pb": b"not read here",
    }


def make_archive(files, top=TOP, extra=(), packed=True):
    """A .tar.gz of `files` below `top`, then the TarInfos of `extra`; a .tar where it is not to be packed."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in extra:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    return gzip.compress(raw.getvalue(), 1, mtime=0) if packed else raw.getvalue()
