"""Record files survive kills, refuse strangers and lose nothing."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sfumato.execution.records import (
    Header,
    RecordError,
    RecordFile,
    decode,
    encode,
    failed,
    ok,
    read_records,
)

HEADER = Header("bsct", 1, "model", "abc")


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
        ({"protocol": "nve"}, "protocol"),
        ({"version": 2}, "version"),
        ({"subject": "other"}, "subject"),
        ({"identity": "def"}, "identity"),
    ],
)
def test_records_of_other_settings_are_refused_and_left_untouched(path, change, what):
    write(path, ok("a", seconds=1.0))
    before = path.read_bytes()
    with pytest.raises(RecordError, match=f"another {what}.*--out"):
        RecordFile(path, Header(**(HEADER.__dict__ | change)))
    assert path.read_bytes() == before


def test_provenance_does_not_decide_whether_records_belong(path):
    write(path, ok("a", seconds=1.0))
    other = Header("bsct", 1, "model", "abc", {"packages": {"numpy": "9"}})
    with RecordFile(path, other) as file:
        assert list(file.records) == ["a"]


def test_a_second_writer_is_refused_while_the_first_is_open(path):
    with RecordFile(path, HEADER), pytest.raises(RecordError, match="another run is writing"):
        RecordFile(path, HEADER)
    write(path, ok("a", seconds=1.0))


@pytest.mark.parametrize("content", [b"hello\nworld\n", b'{"key": "a"}\n', b"[]\n"])
def test_a_file_that_holds_no_records_is_refused(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(RecordError, match="not a record file"):
        RecordFile(path, HEADER)
    assert path.read_bytes() == content


def test_a_future_schema_is_refused(path):
    write(path)
    path.write_bytes(path.read_bytes().replace(b'"sfumato-records": 1', b'"sfumato-records": 2'))
    with pytest.raises(RecordError, match="schema 2"):
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
