"""Processes that are killed, that want the same model at once, or that left a lock behind."""

import errno
import fcntl
import multiprocessing
import os
import random
import shutil
import signal
import socket
import time

import pytest
from fault_server import Reply
from zoo_archives import NAME, TOP

from tfod_zoo.zoo import store, transfer
from tfod_zoo.zoo.process_lock import process_lock
from tfod_zoo.zoo.workspace import FOLDER_NAME, Source, Workspace

FORK = multiprocessing.get_context("fork")  # the server and the patched addresses go with it


def download_quietly(folder, results=None):
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    result = store.download(NAME, folder)
    if results is not None:
        results.put(str(result))


def assert_whole(folder, files):
    assert all((folder / TOP / name).read_bytes() == content for name, content in files.items())


def test_killed_at_a_hundred_random_points_and_resumed(zoo, tmp_path, archive, files):
    zoo.serve(Reply(archive, bytes_per_second=4e6))
    times = random.Random(0)
    complete = 0
    for _ in range(100):
        asked = len(zoo.asked)
        child = FORK.Process(target=download_quietly, args=(tmp_path,))
        child.start()
        # Most points lie after the start of the transfer, some before; a child that has all bytes asks for none.
        while times.random() < 0.99 and len(zoo.asked) == asked and child.is_alive():
            time.sleep(0.003)
        time.sleep(times.uniform(0.0, 0.1))
        child.kill()
        child.join()
        if (tmp_path / TOP).exists():
            # Whatever is under the final name is whole; start again from what a killed process may leave.
            assert_whole(tmp_path, files)
            complete += 1
            shutil.rmtree(tmp_path / TOP)
    assert store.download(NAME, tmp_path) == tmp_path / TOP
    assert_whole(tmp_path, files)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archives.lock", TOP]
    resumed = [span for _, span in zoo.asked if span]
    assert len(resumed) > 20 and complete > 0, (len(resumed), complete)


def test_killed_process_loses_little_of_what_came(zoo, tmp_path, archive, files):
    zoo.serve(Reply(archive, stall_after=300_000), archive)
    child = FORK.Process(target=download_quietly, args=(tmp_path,))
    child.start()
    deadline = time.monotonic() + 20
    while not (parts := list(tmp_path.glob(f"{FOLDER_NAME}/*/archive.tar.gz"))) or parts[0].stat().st_size < 200_000:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    store.download(NAME, tmp_path)
    assert_whole(tmp_path, files)
    start = int(zoo.asked[-1][1].removeprefix("bytes=").rstrip("-"))
    assert 300_000 - start <= transfer._CHUNK_BYTES


def test_killed_while_unpacking_fetches_nothing_again(zoo, tmp_path, archive, files):
    from tfod_zoo.zoo import bring

    zoo.serve(archive)

    def die(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)

    def download_and_die():
        bring.verify_folder = die
        download_quietly(tmp_path)

    child = FORK.Process(target=download_and_die)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL and not (tmp_path / TOP).exists()
    store.download(NAME, tmp_path)
    assert_whole(tmp_path, files)
    assert len(zoo.asked) == 1


def run_at_once(count, folder):
    results = FORK.Queue()
    children = [FORK.Process(target=download_quietly, args=(folder, results)) for _ in range(count)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0] * count
    assert {results.get() for _ in children} == {str(folder / TOP)}


def test_eight_processes_at_once_make_one_transfer(zoo, tmp_path, archive, files):
    zoo.serve(Reply(archive, bytes_per_second=1e6))
    run_at_once(8, tmp_path)
    assert_whole(tmp_path, files)
    assert len(zoo.asked) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archives.lock", TOP]


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_file_system_without_locks(zoo, tmp_path, archive, files, monkeypatch, code):
    def refuse(*args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    zoo.serve(Reply(archive, bytes_per_second=1e6))
    run_at_once(4, tmp_path)
    assert_whole(tmp_path, files)
    left = sorted(path.name for path in tmp_path.rglob("*") if FOLDER_NAME in path.parts and path.is_dir())
    assert left == []


def test_locks_that_lie_give_one_right_model_all_the_same(zoo, tmp_path, archive, files, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda *args: None)
    zoo.serve(Reply(archive, bytes_per_second=1e6))
    run_at_once(4, tmp_path)
    assert_whole(tmp_path, files)


def test_two_threads_of_a_process_make_one_transfer(zoo, tmp_path, archive):
    from concurrent.futures import ThreadPoolExecutor

    zoo.serve(Reply(archive, bytes_per_second=1e6))
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: store.download(NAME, tmp_path), range(2)))
    assert done == [tmp_path / TOP] * 2 and len(zoo.asked) == 1


def test_waiting_for_another_process_is_said(zoo, tmp_path, archive, capsys):
    zoo.serve(archive)
    ready = FORK.Event()

    def hold():
        with process_lock(tmp_path / FOLDER_NAME / f"{NAME}.lock"):
            ready.set()
            time.sleep(0.5)

    child = FORK.Process(target=hold)
    child.start()
    assert ready.wait(10)
    store.download(NAME, tmp_path)
    child.join()
    assert f"{NAME}: another process is fetching it; waiting for that" in capsys.readouterr().err


class TestProcessLock:
    def test_lock_of_a_dead_process_is_taken_over(self, tmp_path):
        ready = FORK.Event()

        def hold_for_ever():
            with process_lock(tmp_path / "home" / "x.lock"):
                ready.set()
                time.sleep(60)

        child = FORK.Process(target=hold_for_ever)
        child.start()
        assert ready.wait(10)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert (tmp_path / "home" / "x.lock").exists()
        start = time.monotonic()
        with process_lock(tmp_path / "home" / "x.lock"):
            assert time.monotonic() - start < 5
        assert list(tmp_path.iterdir()) == []

    def test_holders_come_one_after_another(self, tmp_path):
        def count():
            for _ in range(20):
                with process_lock(tmp_path / "home" / "x.lock"):
                    number = int((tmp_path / "number").read_text())
                    time.sleep(0.001)
                    (tmp_path / "number").write_text(str(number + 1))

        (tmp_path / "number").write_text("0")
        children = [FORK.Process(target=count) for _ in range(4)]
        for child in children:
            child.start()
        for child in children:
            child.join()
        assert (tmp_path / "number").read_text() == "80"

    def test_error_of_the_file_system_gets_out(self, tmp_path, monkeypatch):
        def fail(*args):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(fcntl, "flock", fail)
        with pytest.raises(OSError, match="Input/output"), process_lock(tmp_path / "x.lock"):
            pass

    def test_who_does_not_wait_is_told(self, tmp_path):
        with process_lock(tmp_path / "x.lock"):
            with pytest.raises(BlockingIOError), process_lock(tmp_path / "x.lock", wait=False):
                pass
            assert (tmp_path / "x.lock").exists()
        assert not (tmp_path / "x.lock").exists()


class TestWorkspace:
    def owner(self, home, host, pid, content=b"part"):
        folder = home / f"model@{host}@{pid}@0"
        folder.mkdir(parents=True)
        (folder / "archive.tar.gz").write_bytes(content)
        return folder

    def test_part_of_a_dead_process_is_taken_over(self, tmp_path):
        child = FORK.Process(target=lambda: None)
        child.start()
        child.join()
        home = tmp_path / FOLDER_NAME
        left = self.owner(home, socket.gethostname(), child.pid)
        smaller = self.owner(home, socket.gethostname(), "none", b"")
        with Workspace(tmp_path, "model") as workspace:
            assert workspace.received() == 4 and not left.exists() and not smaller.exists()

    def test_process_that_nobody_waited_for_is_dead(self, tmp_path):
        child = os.fork()
        if child == 0:
            os._exit(0)
        home = tmp_path / FOLDER_NAME
        self.owner(home, socket.gethostname(), child)
        deadline = time.monotonic() + 5
        received = 0
        while not received and time.monotonic() < deadline:
            with Workspace(tmp_path, "model") as workspace:
                received = workspace.received()
        os.waitpid(child, 0)
        assert received == 4

    def test_part_of_a_live_process_is_left_alone(self, tmp_path):
        mine = self.owner(tmp_path / FOLDER_NAME, socket.gethostname(), os.getpid())
        other = self.owner(tmp_path / FOLDER_NAME, "elsewhere", 1)
        with Workspace(tmp_path, "model") as workspace:
            assert workspace.received() == 0
        assert mine.exists() and other.exists()

    def test_part_of_another_host_is_dead_once_it_is_old(self, tmp_path):
        other = self.owner(tmp_path / FOLDER_NAME, "elsewhere", 1)
        long_ago = time.time() - 3600
        os.utime(other / "archive.tar.gz", (long_ago, long_ago))
        os.utime(other, (long_ago, long_ago))
        with Workspace(tmp_path, "model") as workspace:
            assert workspace.received() == 4

    def test_part_of_another_model_is_left_alone(self, tmp_path):
        (tmp_path / FOLDER_NAME / "model_kpts@").mkdir(parents=True)
        with Workspace(tmp_path, "model"):
            pass
        assert (tmp_path / FOLDER_NAME / "model_kpts@").exists()

    def test_bytes_of_another_object_are_never_continued(self):
        first = Source("a", 10, '"e"', md5="m")
        assert first.may_be(Source("a", 10, '"e"', md5="m")) and first.may_be(Source("a", 10))
        assert first.may_be(Source("b", 10, '"other"', md5="m"))
        for other in (Source("a", 11), Source("a", 10, '"f"'), Source("a", 10, md5="n"), Source("b", 10, '"e"')):
            assert not first.may_be(other)

    def test_unreadable_note_of_the_source_counts_as_none(self, tmp_path):
        with Workspace(tmp_path, "model") as workspace:
            workspace.restart(Source("a", 10))
            assert workspace.source() == Source("a", 10)
            workspace._source_file.write_text("{")
            assert workspace.source() is None
