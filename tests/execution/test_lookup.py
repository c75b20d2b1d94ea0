"""A few records are read out of a file as they are read with all others."""

from hashlib import sha256

import numpy as np
import pytest

from sfumato.execution.lookup import Index, digest_of, look_up
from sfumato.execution.records import Header, RecordError, RecordFile, encode, failed, ok, read_records

HEADER = Header("evaluate", 1, "model", "abc")
KEYS = [sha256(b"%d" % k).hexdigest() for k in range(9)]


@pytest.fixture
def path(tmp_path):
    with RecordFile(tmp_path / "r.jsonl", HEADER) as file:
        file.append([failed(KEYS[3], "not yet"), *(made(k) for k in range(9) if k != 5)])
        file.append([failed(KEYS[5], "no convergence")])
    return file.path


def made(k):
    return ok(KEYS[k], seconds=0.5, energy=float(k), forces=encode(np.full((2, 3), k)))


def test_some_records_are_those_of_the_whole_file(path):
    index = Index.from_text(Index.of(path).text())
    every = read_records(path)[1]
    some = [KEYS[k] for k in (5, 3, 8, 0, 3)]
    assert look_up(path, some, index) == [every[key] for key in some]
    assert look_up(path, [KEYS[3]], index)[0]["status"] == "ok"  # the later one of two


def test_what_is_not_there_or_damaged_is_an_error(path):
    index = Index.of(path)
    with pytest.raises(RecordError, match="damaged or gone"):
        look_up(path, ["f" * 60 + "0000"], index)
    content = bytearray(path.read_bytes())
    content[int(index.starts[0]) + 120] ^= 1
    path.write_bytes(content)
    with pytest.raises(RecordError, match="damaged or gone"):
        look_up(path, KEYS, index)


def test_a_file_without_records_has_an_index(tmp_path):
    with RecordFile(tmp_path / "r.jsonl", HEADER) as file:
        pass
    with pytest.raises(RecordError):
        look_up(file.path, [KEYS[0]], Index.of(file.path))


def test_the_digest_of_a_file_is_that_of_its_intact_lines(path):
    first = digest_of(path)
    with RecordFile(path, HEADER) as file:
        assert file.digest == first
        file.append([ok("a" * 64, seconds=1.0)])
        after = file.digest
    assert after == digest_of(path) != first
    with path.open("ab") as torn:
        torn.write(b'{"key": "bbb')
    assert digest_of(path) == after
    with RecordFile(path, HEADER) as file:
        assert file.digest == after


def test_a_line_longer_than_a_piece_is_read_whole(path, monkeypatch):
    whole = digest_of(path)
    monkeypatch.setattr("sfumato.execution.lookup.PIECE", 7)
    assert digest_of(path) == whole
