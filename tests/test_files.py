"""Files are the old or the new one, whatever happens to the process that writes them."""

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from sfumato import files
from sfumato.files import (
    expanded,
    new_folder,
    open_to_lock,
    read_json,
    remove_folder,
    remove_leftovers,
    temporary_folder,
    temporary_name,
    write_atomically,
    write_bytes,
    write_json,
    write_text,
)


def run(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def named(name, pid):
    return temporary_name(name).replace(f"-{os.getpid()}-", f"-{pid}-")


def test_new_contents_replace_the_old_and_nothing_else_stays(tmp_path):
    path = tmp_path / "new folder" / "a.txt"
    for text in ("first", "zweites: ü, Å", ""):
        write_text(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert os.listdir(path.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_block_that_raises_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "a"
    write_text(path, "old")

    def fail():
        with write_atomically(path) as temporary:
            temporary.write_text("new")
            raise error("stop")

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_kill_in_the_middle_leaves_the_old_file_and_the_next_write_removes_the_rest(tmp_path):
    path = tmp_path / "a"
    write_text(path, "old")
    code = """
import os, signal, sys
from sfumato.files import write_atomically
with write_atomically(sys.argv[1]) as temporary:
    temporary.write_text("new")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run(code, path).returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert len(os.listdir(tmp_path)) == 2
    write_text(path, "newer")
    assert os.listdir(tmp_path) == ["a"]
    assert path.read_text() == "newer"


def test_a_full_disk_leaves_the_old_file_and_names_the_target(tmp_path):
    path = tmp_path / "a"
    write_text(path, "old")
    code = """
import resource, signal, sys
from sfumato.files import write_bytes
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_bytes(sys.argv[1], bytes(1_000_000))
except OSError as error:
    assert error.filename == sys.argv[1], error.filename
    assert "cannot be written" in error.strerror and ".part" not in str(error), error
    sys.exit(9)
"""
    result = run(code, path)
    assert result.returncode == 9, result.stderr
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_an_error_of_a_library_names_the_target(tmp_path):
    def fail(error):
        with write_atomically(tmp_path / "set.h5"):
            raise error

    with pytest.raises(OSError, match=r"cannot be written: Can't write.*set\.h5") as caught:
        fail(OSError("Can't write data (no space)"))
    assert caught.value.errno == errno.EIO
    with pytest.raises(FileNotFoundError, match=r"other\.txt"):  # what was read meanwhile is not the target
        fail(FileNotFoundError(errno.ENOENT, "No such file", "other.txt"))


def test_a_symlink_at_the_name_of_the_temporary_file_is_refused(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    monkeypatch.setattr(files, "temporary_name", lambda name: "guessed")
    (tmp_path / "guessed").symlink_to(victim)
    with pytest.raises(OSError, match="exists"):
        write_text(tmp_path / "a", "new")
    assert victim.read_text() == "untouched"
    assert not (tmp_path / "a").exists()


def test_a_file_to_lock_is_not_opened_through_a_link(tmp_path):
    with open_to_lock(tmp_path / "lock"), open_to_lock(tmp_path / "lock"):
        pass
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / "link").symlink_to(victim)
    with pytest.raises(OSError, match="link"):
        open_to_lock(tmp_path / "link")
    assert victim.read_text() == "untouched"


def test_names_of_temporary_files_cannot_be_predicted_and_are_never_too_long(tmp_path):
    assert len({temporary_name("a") for _ in range(100)}) == 100
    for name in ("x" * 255, "Å" * 127):
        write_text(tmp_path / name, "text")
        assert (tmp_path / name).read_text() == "text"
    assert len(os.listdir(tmp_path)) == 2


def test_leftovers_of_dead_processes_are_removed_and_others_kept(tmp_path):
    dead, alive = dead_pid(), os.getppid()
    gone = [named("a", dead), named("b", dead), named("folder", dead)]
    elsewhere = named("a", dead).replace(f".{files._host()}-", ".another-host-")
    kept = [named("a", alive), temporary_name("a"), elsewhere, "a.part", f".a.{dead}"]
    for name in gone[:2] + kept:
        (tmp_path / name).write_text("")
    (tmp_path / gone[2]).mkdir()
    (tmp_path / gone[2] / "archive").write_text("")
    assert [path.name for path in remove_leftovers(tmp_path, "a")] == [gone[0]]
    assert {path.name for path in remove_leftovers(tmp_path)} == set(gone[1:])
    assert set(os.listdir(tmp_path)) == set(kept)
    assert remove_leftovers(tmp_path / "nowhere") == []


def test_a_temporary_folder_is_removed_and_so_are_those_that_kills_left(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = [named("sfumato-check", dead_pid()), named("sfumato-other", dead_pid())]
    for name in left:
        (tmp_path / name).mkdir()
        (tmp_path / name / "pulse").write_text("7")
    with temporary_folder("check") as folder:
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o777 == 0o700
        assert set(os.listdir(tmp_path)) == {folder.name, left[1]}
        (folder / "file").write_text("")
    assert os.listdir(tmp_path) == [left[1]]


def test_a_fork_leaves_the_folder_of_its_parent_alone(tmp_path):
    folder = new_folder("work", tmp_path)
    remove_folder(folder.rename(tmp_path / named("sfumato-work", os.getppid())))
    assert len(os.listdir(tmp_path)) == 1


def test_a_file_system_that_cannot_wait_for_the_disk_is_no_hindrance(tmp_path, monkeypatch):
    def fail(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    number = errno.EINVAL
    write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"
    number = errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        write_text(tmp_path / "a", "newer")
    assert (tmp_path / "a").read_text() == "new"


def test_a_user_without_a_home_has_paths_all_the_same(monkeypatch):
    assert expanded("~/a") == Path.home() / "a"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert expanded("~/a") == Path("~/a")


def test_a_link_to_the_target_stays_a_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_text(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "text"


def test_devices_and_pipes_are_written_to_and_not_replaced(tmp_path):
    write_text("/dev/null", "text")
    assert not os.path.isfile("/dev/null")
    assert run("from sfumato.files import write_json; write_json('/dev/stdout', [1])").stdout == "[\n 1\n]\n"
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    received = []
    reader = threading.Thread(target=lambda: received.append(fifo.read_text()))
    reader.start()
    write_text(fifo, "text")
    reader.join(10)
    assert received == ["text"]
    assert fifo.is_fifo()


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(IsADirectoryError, match="name a file"):
        write_text(tmp_path, "text")


def test_a_folder_that_cannot_be_created_names_the_target(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot be written") as caught:
        write_text(tmp_path / "file" / "a", "text")
    assert caught.value.filename == str(tmp_path / "file" / "a")


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_text(tmp_path / "a", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~mask


def test_contents_are_on_disk_before_they_take_the_name(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (steps.append("fsync"), fsync(handle))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (steps.append("replace"), replace(a, b))[1])
    write_bytes(tmp_path / "a", b"text")
    assert steps == ["fsync", "replace", "fsync"]


def test_json_has_no_word_for_nan(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": [1.5, None]})
    assert json.loads(path.read_text()) == {"a": [1.5, None]}
    with pytest.raises(ValueError, match=r"a\.json: cannot be written as JSON"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": [1.5, None]}
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("content", [b"{", b"[" * 100_000, b"\xff\xfe", b"", None])
def test_json_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json: cannot be read as JSON"):
        read_json(path)


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "a"
    write_bytes(path, b"0" * 300_000)
    seen = set()
    done = threading.Event()

    def read():
        while not done.is_set():
            content = path.read_bytes()
            seen.add((len(content), len(set(content))))

    reader = threading.Thread(target=read)
    reader.start()
    for k in range(60):
        write_bytes(path, bytes([48 + k % 10]) * 300_000)
    done.set()
    reader.join()
    assert seen == {(300_000, 1)}
