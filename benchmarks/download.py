"""From a server to a verified store: `tfod-zoo download` beside `curl` + `tar` + `sha256sum` on the same archive.

    python benchmarks/download.py [--archive FILE] [--rounds N]

Both fetch from a server on this machine, in turns, each in its own processes. `tfod-zoo` does more in its time: it
hashes three ways, checks every tensor against the checkpoint's index and the variables against the model's. Prints
both rates, their quotient and the peak memory; exits with 1 where the quotient is below 0.8 or the memory above
200 MiB. It says nothing of real networks, which are slower than either.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.server
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "zoo"))

NAME = "centernet_resnet50_v1_fpn_512x512_coco17_tpu-8"  # 101 MB of weights, in the checkpoint and in the SavedModel
LEAST_QUOTIENT = 0.8
MOST_MEMORY_MIB = 200


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--archive", type=Path, help=f"an archive of {NAME} (default: one is made, of random weights)")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tfod_zoo_download_") as text:
        folder = Path(text)
        served = folder / "served" / f"{NAME}.tar.gz"
        served.parent.mkdir()
        if args.archive:
            shutil.copy(args.archive, served)
        else:
            make_archive(served)
        with server(served.parent) as address:
            return compare(address, served.stat().st_size, folder, args.rounds)


def make_archive(path: Path) -> None:
    import tarfile

    import numpy as np
    import zoo_archives

    rng = np.random.default_rng(0)
    tensors = zoo_archives.model_tensors(NAME)
    values = {
        key: value if isinstance(value, bytes) else rng.normal(0, 0.05, value.shape).astype(np.float32)
        for key, value in tensors.items()
    }
    index, data = zoo_archives.checkpoint(values)
    files = {"pipeline.config": zoo_archives.CONFIG, "saved_model/saved_model.pb": b"x",
             "checkpoint/checkpoint": b'model_checkpoint_path: "ckpt-0"\n'}
    for prefix in ("checkpoint/ckpt-0", "saved_model/variables/variables"):
        files |= {f"{prefix}.index": index, f"{prefix}.data-00000-of-00001": data}
    with tarfile.open(path, "w:gz", compresslevel=1) as packed:
        for name, content in files.items():
            place = path.parent / "member"
            place.write_bytes(content)
            packed.add(place, f"{NAME}/{name}")
            place.unlink()


@contextlib.contextmanager
def server(folder: Path):
    """Address of `folder`, served by another process."""
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    process = multiprocessing.get_context("fork").Process(target=listening.serve_forever, daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{listening.server_address[1]}"
    finally:
        process.terminate()
        process.join()
        listening.server_close()


def compare(address: str, size: int, folder: Path, rounds: int) -> int:
    ours, theirs, memory = [], [], 0.0
    for number in range(rounds):
        theirs.append(timed(functools.partial(by_hand, f"{address}/{NAME}.tar.gz", folder / f"hand{number}")))
        shutil.rmtree(folder / f"hand{number}")
        start = time.perf_counter()
        memory = max(memory, by_tfod_zoo(address, folder / f"store{number}"))
        ours.append(time.perf_counter() - start)
        shutil.rmtree(folder / f"store{number}")
        print(f"round {number + 1}: curl + tar + sha256sum {theirs[-1]:.2f} s, tfod-zoo {ours[-1]:.2f} s", flush=True)
    quotient = statistics.median(theirs) / statistics.median(ours)
    print(f"archive {size / 1e6:.0f} MB; curl + tar + sha256sum {size / 1e6 / statistics.median(theirs):.0f} MB/s, "
          f"tfod-zoo {size / 1e6 / statistics.median(ours):.0f} MB/s: {quotient:.2f} (at least {LEAST_QUOTIENT}); "
          f"peak memory {memory:.0f} MiB (at most {MOST_MEMORY_MIB}) on "
          f"{os.cpu_count()} cores")
    return 0 if quotient >= LEAST_QUOTIENT and memory <= MOST_MEMORY_MIB else 1


def timed(action) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def by_hand(url: str, target: Path) -> None:
    target.mkdir()
    subprocess.run(["curl", "-sS", "-f", "-o", target / "archive.tar.gz", url], check=True)
    subprocess.run(["tar", "-xzf", target / "archive.tar.gz", "-C", target], check=True)
    subprocess.run(["sha256sum", target / "archive.tar.gz"], check=True, stdout=subprocess.DEVNULL)


def by_tfod_zoo(address: str, store: Path) -> float:
    """Downloads in a process of its own; its peak memory in MiB."""
    code = (
        "import re, sys; from tfod_zoo.cli.main import main; code = main(sys.argv[1:])\n"
        # Not getrusage's figure, which begins at this process's own.
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1024)\n"
        "sys.exit(code)"
    )
    command = [sys.executable, "-c", code, "download", NAME, "--mirror", address, "--store", str(store)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    sys.exit(main())
