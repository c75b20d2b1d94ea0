"""Record files survive kills, refuse strangers and lose nothing."""

import errno
import fcntl
import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sfumato.execution.records import (
    Header,
    RecordError,
    RecordFile,
    array,
    decode,
    encode,
    failed,
    number,
    ok,
    read_header,
    read_records,
)

HEADER = Header("evaluate", 1, "model", "abc")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "records" / "model.jsonl"


def write(path, *records, header=HEADER):
    with RecordFile(path, header) as file:
        file.append(records)


@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=0, max_dims=3), elements=st.floats(width=64)))
def test_arrays_round_trip_bit_by_bit(array):
    back = decode(json.loads(json.dumps(encode(array))))
    assert back.shape == array.shape
    assert back.tobytes() == np.ascontiguousarray(array).tobytes()


def test_what_was_appended_is_read_back(path):
    write(path, ok("a", seconds=0.5, energy=-1.25), failed("b", "no convergence"))
    header, records = read_records(path)
    assert header == HEADER
    assert records["a"] == {"key": "a", "status": "ok", "seconds": 0.5, "energy": -1.25}
    assert records["b"]["reason"] == "no convergence"


def test_the_later_record_of_a_key_counts(path):
    write(path, failed("a", "out of memory"))
    write(path, ok("a", seconds=1.0))
    assert read_records(path)[1]["a"]["status"] == "ok"


def test_every_truncation_keeps_the_finished_lines_and_can_be_continued(path):
    write(path, ok("a", seconds=1.0), ok("b", seconds=2.0))
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with RecordFile(path, HEADER) as file:
            kept = max(0, sum(end <= length for end in ends) - 1)
            assert list(file.records) == ["a", "b"][:kept]
            file.append([ok("c", seconds=3.0)])
        assert list(read_records(path)[1]) == [*["a", "b"][:kept], "c"]


def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(path):
    write(path, ok("a", seconds=1.0), ok("b", seconds=2.0))
    lines = path.read_bytes().split(b"\n")
    lines[1] = lines[1][: len(lines[1]) // 2]
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(RecordError, match="line 2: damaged"):
        RecordFile(path, HEADER)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"job": "relax"}, "another job: evaluate, not relax.*--out"),
        ({"version": 2}, "another version.*--out"),
        ({"subject": "other"}, "another subject.*--out"),
        (
            {"identity": "dbe7c0ffee"},
            r"the model changed since these records were made \(abc then, dbe7c0ff now\); "
            "--fresh starts anew, NAME=SPEC keeps both",
        ),
    ],
)
def test_records_of_other_settings_are_refused_and_left_untouched(path, change, what):
    write(path, ok("a", seconds=1.0))
    before = path.read_bytes()
    with pytest.raises(RecordError, match=what):
        RecordFile(path, Header(**(HEADER.__dict__ | change)))
    assert path.read_bytes() == before


def test_provenance_does_not_decide_whether_records_belong(path):
    write(path, ok("a", seconds=1.0))
    other = Header("evaluate", 1, "model", "abc", {"packages": {"numpy": "9"}})
    with RecordFile(path, other) as file:
        assert list(file.records) == ["a"]


def test_a_second_writer_is_refused_while_the_first_is_open(path):
    with RecordFile(path, HEADER), pytest.raises(RecordError, match="another run is writing"):
        RecordFile(path, HEADER)
    write(path, ok("a", seconds=1.0))


@pytest.mark.parametrize("content", [b"hello\nworld\n", b"hello", b'{"key": "a"}\n', b"[]\n"])
def test_a_file_that_holds_no_records_is_refused(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(RecordError, match="not a record file"):
        RecordFile(path, HEADER)
    assert path.read_bytes() == content


def test_a_future_schema_is_refused(path):
    write(path)
    path.write_bytes(path.read_bytes().replace(b'"sfumato-records": 2', b'"sfumato-records": 3'))
    with pytest.raises(RecordError, match="schema 3"):
        read_records(path)


def test_a_full_disk_is_an_error_and_leaves_no_half_line(path, monkeypatch):
    with RecordFile(path, HEADER) as file:
        file.append([ok("a", seconds=1.0)])
        real, calls = file._file, []

        class AlmostFull:
            """Writes ten bytes of a record, then finds no space left."""

            def write(self, data):
                calls.append(data)
                if len(calls) > 1:
                    raise OSError(28, "No space left on device")
                return real.write(data[:10])

            def __getattr__(self, name):
                return getattr(real, name)

        monkeypatch.setattr(file, "_file", AlmostFull())
        with pytest.raises(OSError, match="No space"):
            file.append([ok("b", seconds=1.0)])
        monkeypatch.undo()
        assert list(file.records) == ["a"]
    assert list(read_records(path)[1]) == ["a"]


def test_what_is_there_can_be_set_aside(path):
    write(path, ok("a", seconds=1.0))
    other = Header("evaluate", 1, "model", "def")
    for number_ in (1, 2):
        with RecordFile(path, other, fresh=True) as file:
            assert file.records == {}
            file.append([ok(f"b{number_}", seconds=1.0)])
    assert list(read_records(path.with_name("model.jsonl.old-1"))[1]) == ["a"]
    assert list(read_records(path.with_name("model.jsonl.old-2"))[1]) == ["b1"]
    assert list(read_records(path)[1]) == ["b2"]
    assert read_header(path) == other


def test_records_that_another_run_is_writing_are_not_set_aside(path):
    with RecordFile(path, HEADER), pytest.raises(RecordError, match="another run is writing"):
        RecordFile(path, HEADER, fresh=True)
    assert [entry.name for entry in path.parent.iterdir()] == ["model.jsonl"]


def test_no_flipped_bit_is_accepted(path):
    write(path, ok("a", seconds=0.5, energy=-1.25), failed("b", "why"), ok("c", seconds=1.0, energy=0.5))
    header, records = read_records(path)
    whole = path.read_bytes()
    for position in range(len(whole)):
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[position] ^= 1 << bit
            path.write_bytes(flipped)
            if position < len(whole) - 1:
                with pytest.raises(RecordError, match=r"line|not a record file|schema"):
                    read_records(path)
            else:  # the end of the last line: it counts as unfinished
                assert read_records(path) == (header, {key: records[key] for key in ("a", "b")})


@pytest.fixture
def old(path):
    """A file of version 0.1.0: no digests, and the header names a protocol."""
    header = {"sfumato-records": 1, "protocol": "bsct", "version": 1, "subject": "m", "identity": "abc"}
    lines = [header | {"provenance": {}}, ok("a", seconds=1.0, energy=-1.25)]
    path.parent.mkdir()
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_files_of_the_first_version_are_continued(old):
    header = Header("bsct", 1, "m", "abc")
    with RecordFile(old, header) as file:
        assert number(file.records["a"], "energy") == -1.25
        file.append([ok("b", seconds=1.0)])
    assert read_header(old) == header
    assert list(read_records(old)[1]) == ["a", "b"]
    text = old.read_text()
    old.write_text(text.replace('"sha": "', '"shb": "') + text.splitlines()[1] + "\n")
    assert list(read_records(old)[1]) == ["a", "b"]
    old.write_text(text + text.splitlines()[1] + "\n")
    with pytest.raises(RecordError, match=r"line 4: damaged record \(its digest is missing\)"):
        read_records(old)


@pytest.mark.parametrize(
    "line",
    [
        "null",
        "[1]",
        "3",
        '{"key": "a"}',
        '{"key": 3, "status": "ok", "seconds": 1.0}',
        '{"key": "a", "status": "fine", "seconds": 1.0}',
        '{"key": "a", "status": ["ok"], "seconds": 1.0}',
        '{"key": "a", "status": "ok", "seconds": "1.0"}',
        '{"key": "a", "status": "ok", "seconds": true}',
        '{"key": "a", "status": "ok", "seconds": NaN}',
        '{"key": "a", "status": "failed", "seconds": 1.0}',
        '{"key": "a", "status": "failed", "seconds": 1.0, "reason": 3}',
        "[" * 100_000,
        '{"key": "a", "status": "ok", "seconds": 1' + "0" * 5000 + "}",
    ],
)
def test_lines_that_are_no_records_are_refused_by_number(old, line):
    old.write_text(old.read_text() + line + "\n")
    with pytest.raises(RecordError, match="line 3: damaged record"):
        read_records(old)


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"version": "1"},
        {"version": True},
        {"subject": None},
        {"provenance": []},
        {"sfumato-records": "1"},
        {"sfumato-records": [1]},
        {"sfumato-records": True},
    ],
)
def test_damaged_headers_are_refused(old, change):
    first, *rest = old.read_text().splitlines()
    old.write_text("\n".join([json.dumps(json.loads(first) | change), *rest, ""]))
    for read in (read_records, read_header):
        with pytest.raises(RecordError, match=r"damaged header|schema"):
            read(old)


@pytest.mark.parametrize("value", ["1.0", True, None, [1.0], {"f8": ""}, float("nan"), float("inf")])
def test_a_number_is_a_finite_number(value):
    with pytest.raises(RecordError, match="damaged record k: 'energy' is not a finite number"):
        number(ok("k", seconds=1.0, energy=value), "energy")


@pytest.mark.parametrize(
    "value",
    [
        None,
        1.0,
        "AAAA",
        [],
        {},
        {"shape": [1], "f8": "AAAA"},
        {"shape": [-1], "f8": encode(np.zeros(3))["f8"]},
        {"shape": [3.0], "f8": encode(np.zeros(3))["f8"]},
        {"shape": 3, "f8": encode(np.zeros(3))["f8"]},
        {"shape": [10**30], "f8": encode(np.zeros(3))["f8"]},
        {"shape": [3], "f8": "*" + encode(np.zeros(3))["f8"]},
        {"shape": [3], "f8": 3},
    ],
)
def test_an_array_is_an_array(value):
    with pytest.raises(RecordError, match="'forces' is not an array"):
        array(ok("k", seconds=1.0, forces=value), "forces", (None, 3))
    with pytest.raises(RecordError, match="is not an array"):
        decode(value)


def test_an_array_has_its_shape():
    record = ok("k", seconds=1.0, forces=encode(np.ones((4, 3))))
    assert array(record, "forces", (4, 3)).tolist() == np.ones((4, 3)).tolist()
    assert array(record, "forces", (None, 3)).shape == (4, 3)
    for shape in ((5, 3), (None, 2), (12,), (4, 3, 1)):
        with pytest.raises(RecordError, match=r"'forces' has the shape \(4, 3\), not \("):
            array(record, "forces", shape)


def test_reasons_and_tracebacks_are_bounded():
    record = failed("k", "no " * 10**6, traceback="first " + "x" * 10**6 + " last")
    assert record["reason"].endswith("… (3000000 characters)")
    assert len(json.dumps(record)) < 10_000
    assert record["traceback"].endswith(" last")


@pytest.mark.parametrize("number_", [errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_is_no_hindrance_and_known(path, monkeypatch, number_):
    def flock(*_):
        raise OSError(number_, os.strerror(number_))

    with RecordFile(path, HEADER) as file:
        assert file.locked
    monkeypatch.setattr(fcntl, "flock", flock)
    with RecordFile(path, HEADER) as file:
        assert not file.locked
        file.append([ok("a", seconds=1.0)])
    assert list(read_records(path)[1]) == ["a"]


def test_other_troubles_with_locks_are_not_called_another_run(path, monkeypatch):
    def flock(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="cannot be locked: Input/output error"):
        RecordFile(path, HEADER)


def test_a_file_system_that_cannot_wait_for_the_disk_is_no_hindrance(path, monkeypatch):
    def fsync(_):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fsync)
    write(path, ok("a", seconds=1.0))
    assert list(read_records(path)[1]) == ["a"]
