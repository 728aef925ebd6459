"""Sharded TFRecord files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import tensorflow as tf

from tfod_zoo.data.errors import DataError


def write_shards(records: Iterable[bytes], out: Path, split: str, shards: int) -> str:
    """Writes records in turn to `OUT/SPLIT-00000-of-0000N.tfrecord`, replacing earlier ones of that split.

    The files take their names only when all of them are written; until then, and after a failure, what was there stays.

    Args:
      records: serialized examples.
      out: folder; created.
      split: name of the split.
      shards: number of files.

    Returns:
      the glob that finds them.

    Raises:
      DataError: the folder cannot be written, or the disk is full.
    """
    finals = [out / f"{split}-{index:05d}-of-{shards:05d}.tfrecord" for index in range(shards)]
    partials = [final.with_name(f".{final.name}.{os.getpid()}.partial") for final in finals]
    try:
        out.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            writers = [stack.enter_context(tf.io.TFRecordWriter(str(partial))) for partial in partials]
            for index, record in enumerate(records):
                writers[index % shards].write(record)
        # Shards of an earlier import with another number would match the same glob.
        stale = set(out.glob(f"{split}-?????-of-?????.tfrecord")) - set(finals)
        for partial, final in zip(partials, finals, strict=True):
            os.replace(partial, final)
        for path in stale:
            path.unlink()
    except (OSError, tf.errors.OpError) as error:
        reason = error.message if isinstance(error, tf.errors.OpError) else error.strerror
        raise DataError(f"{out} cannot be written ({reason}); free space or choose another folder.") from error
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)
    return str(out / f"{split}-?????-of-{shards:05d}.tfrecord")
