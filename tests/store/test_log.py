"""The intake log: frames, segments and the group commit."""

import asyncio
import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinslice.errors import LogFull, StoreError
from thinslice.store import log
from thinslice.store.log import (
    EXPOSURE_FLUSH_S,
    GroupCommit,
    LogKind,
    SegmentWriter,
    frame,
    is_open,
    read_frames,
    segments,
)
from thinslice.testing.check_store import check_intake_log


def read_all(directory):
    return [(kind, payload) for path in segments(directory) for kind, payload, _ in read_frames(path)]


def test_the_log_keeps_the_promises_of_an_intake_log(tmp_path):
    check_intake_log(lambda: SegmentWriter(tmp_path, "w0"), lambda: read_all(tmp_path))


@given(payloads=st.lists(st.binary(max_size=300), max_size=20), cut=st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_a_torn_frame_ends_the_reading(tmp_path_factory, payloads, cut):
    path = tmp_path_factory.mktemp("log") / "a.seg"
    frames = [frame(1, b"\x01" + payload) for payload in payloads]
    data = b"".join(frames)
    path.write_bytes(data[: min(cut, len(data))])
    whole, end = 0, 0
    for each in frames:
        if end + len(each) > cut:
            break
        whole, end = whole + 1, end + len(each)
    read = list(read_frames(path))
    assert [payload for _, payload, _ in read] == [b"\x01" + payload for payload in payloads[:whole]]
    assert (read[-1][2] if read else 0) == end


@pytest.mark.parametrize("damage", [0, 5, 12, -1])
def test_a_damaged_frame_ends_the_reading(tmp_path, damage):
    good, bad = frame(1, b"\x01good"), bytearray(frame(1, b"\x01" + b"x" * 40))
    bad[damage] ^= 0xFF
    path = tmp_path / "a.seg"
    path.write_bytes(good + bytes(bad) + good)
    assert [payload for _, payload, _ in read_frames(path)] == [b"\x01good"]


def test_reading_goes_on_from_an_offset(tmp_path):
    path = tmp_path / "a.seg"
    path.write_bytes(frame(1, b"\x01one") + frame(2, b"\x02two") + frame(3, b"\x03three"))
    ends = [end for _, _, end in read_frames(path)]
    assert [payload for _, payload, _ in read_frames(path, ends[0])] == [b"\x02two", b"\x03three"]
    assert list(read_frames(path, ends[-1])) == []


def test_frames_larger_than_a_read_are_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(log, "_CHUNK", 7)
    writer = SegmentWriter(tmp_path, "w0")
    payloads = [b"\x01" + bytes([number]) * number for number in range(40)]
    for payload in payloads:
        writer.append(1, payload)
    writer.close()
    assert [payload for _, payload in read_all(tmp_path)] == payloads


def test_a_payload_must_begin_with_its_kind(tmp_path):
    writer = SegmentWriter(tmp_path, "w0")
    for payload in (b"", b"\x02x"):
        with pytest.raises(ValueError, match="begins with that byte"):
            writer.append(1, payload)
    writer.close()


def test_a_frame_has_a_largest_size(monkeypatch):
    monkeypatch.setattr(log, "MAX_FRAME_BYTES", 10)
    with pytest.raises(ValueError, match="at most 10 bytes, got 11"):
        frame(1, b"\x01" * 11)


@pytest.mark.parametrize("name", ["", "../up", "UPPER", "a" * 65])
def test_a_log_needs_a_decent_name(tmp_path, name):
    with pytest.raises(ValueError, match="cannot name a log"):
        SegmentWriter(tmp_path, name)


def test_every_opening_begins_a_segment_of_its_own(tmp_path):
    writers = [SegmentWriter(tmp_path, "w0") for _ in range(20)]
    assert len({writer.path for writer in writers}) == 20
    assert segments(tmp_path) == [writer.path for writer in writers]
    for writer in writers:
        writer.close()


def test_a_full_segment_is_followed_by_the_next(tmp_path):
    writer = SegmentWriter(tmp_path, "w0", segment_bytes=100)
    payloads = [b"\x01" + b"x" * 60 for _ in range(5)]
    tickets = [writer.append(1, payload) for payload in payloads]
    assert len(segments(tmp_path)) == 5
    assert [is_open(path) for path in segments(tmp_path)] == [True] * 5
    assert writer.flush() == tickets[-1]
    assert [is_open(path) for path in segments(tmp_path)] == [False] * 4 + [True]
    writer.close()
    assert [payload for _, payload in read_all(tmp_path)] == payloads


def test_a_segment_is_open_as_long_as_its_writer_lives(tmp_path):
    code = (
        "import sys; from thinslice.store.log import SegmentWriter\n"
        f"w = SegmentWriter({str(tmp_path)!r}, 'w0'); w.append(1, b'\\x01x')\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"ready\n"
        (path,) = segments(tmp_path)
        assert is_open(path)
        child.kill()
        child.wait(timeout=10)
        assert not is_open(path)
    assert read_all(tmp_path) == [(1, b"\x01x")]
    assert not is_open(tmp_path / "never")


def test_a_full_disk_acknowledges_nothing_and_leaves_no_half_frame(tmp_path, monkeypatch):
    writer = SegmentWriter(tmp_path, "w0")
    writer.append(1, b"\x01before")
    real = os.write

    def half(descriptor, data):
        if len(data) > 4:
            return real(descriptor, bytes(data)[:4])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log.os, "write", half)
    with pytest.raises(LogFull, match="is full"):
        writer.append(1, b"\x01lost--------")
    monkeypatch.undo()
    writer.append(1, b"\x01after")
    writer.close()
    assert [payload for _, payload in read_all(tmp_path)] == [b"\x01before", b"\x01after"]


def test_a_short_write_is_completed(tmp_path, monkeypatch):
    writer = SegmentWriter(tmp_path, "w0")
    real = os.write
    monkeypatch.setattr(log.os, "write", lambda descriptor, data: real(descriptor, bytes(data)[:3]))
    writer.append(1, b"\x01whole")
    monkeypatch.undo()
    writer.close()
    assert read_all(tmp_path) == [(1, b"\x01whole")]


def test_a_frame_that_cannot_be_taken_back_ends_its_segment(tmp_path, monkeypatch):
    writer = SegmentWriter(tmp_path, "w0")
    real = os.write
    monkeypatch.setattr(log.os, "write", lambda descriptor, data: real(descriptor, bytes(data)[:3]) * 0)
    monkeypatch.setattr(log.os, "ftruncate", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "no")))
    with pytest.raises(StoreError):
        writer.append(1, b"\x01torn")
    monkeypatch.undo()
    writer.append(1, b"\x01next")
    writer.close()
    assert len(segments(tmp_path)) == 2
    assert read_all(tmp_path) == [(1, b"\x01next")]


def test_a_closed_log_refuses(tmp_path):
    writer = SegmentWriter(tmp_path, "w0")
    writer.close()
    with pytest.raises(StoreError, match="closed"):
        writer.append(1, b"\x01x")


class Slow(SegmentWriter):
    """A log on a slow disk, which remembers how much was durable when."""

    def __init__(self, directory):
        super().__init__(directory, "w0")
        self.flushed = []

    def flush(self):
        ticket = super().flush()
        time.sleep(0.02)
        self.flushed.append(ticket)
        return ticket


def test_an_append_returns_only_when_durable_and_a_crowd_shares_flushes(tmp_path):
    writer = Slow(tmp_path)

    async def run():
        commit = GroupCommit(writer)
        seen = []

        async def one(number):
            await commit.append(LogKind.EVENTS, b"\x01" + str(number).encode())
            seen.append(writer.flushed[-1])

        await asyncio.gather(*(one(number) for number in range(100)))
        commit.close()
        return seen, commit.flushes

    seen, flushes = asyncio.run(run())
    assert min(seen) >= 1
    assert flushes <= 20
    assert len(read_all(tmp_path)) == 100


def test_an_exposure_is_readable_at_once_and_durable_within_50_ms(tmp_path):
    writer = SegmentWriter(tmp_path, "w0")
    commit = GroupCommit(writer)
    commit.write(LogKind.EXPOSURES, b"\x02one")
    commit.write(LogKind.EXPOSURES, b"\x02two")
    assert len(read_all(tmp_path)) == 2
    deadline = time.monotonic() + 5
    while commit.flushes == 0 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert commit.flushes >= 1
    assert EXPOSURE_FLUSH_S < 0.05
    commit.close()


def test_closing_makes_the_last_exposure_durable(tmp_path):
    writer = Slow(tmp_path)
    commit = GroupCommit(writer)
    commit.write(LogKind.EXPOSURES, b"\x02last")
    commit.close()
    assert writer.flushed[0] == 1
    assert not is_open(writer.path)


def test_a_caller_that_gave_up_disturbs_nobody(tmp_path):
    async def run():
        commit = GroupCommit(Slow(tmp_path))
        tasks = [asyncio.ensure_future(commit.append(1, b"\x01x")) for _ in range(4)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        commit.close()
        return done

    done = asyncio.run(run())
    assert [result for result in done if result is not None] == [done[1]]
    assert isinstance(done[1], asyncio.CancelledError)


def test_a_full_disk_reaches_the_caller(tmp_path, monkeypatch):
    async def run():
        commit = GroupCommit(SegmentWriter(tmp_path, "w0"))
        monkeypatch.setattr(log.os, "write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(LogFull):
            await commit.append(1, b"\x01x")
        with pytest.raises(LogFull):
            commit.write(2, b"\x02x")
        monkeypatch.undo()
        await commit.append(1, b"\x01y")
        commit.close()

    asyncio.run(run())
    assert read_all(tmp_path) == [(1, b"\x01y")]


def test_a_failed_flush_ends_the_process_without_an_answer(tmp_path):
    code = f"""
import asyncio, os
from thinslice.store import log
def fail(descriptor): raise OSError(5, "Input/output error")
log.os.fdatasync = fail
async def run():
    commit = log.GroupCommit(log.SegmentWriter({str(tmp_path)!r}, "w0"))
    await commit.append(1, b"\\x01x")
    print("acknowledged")
asyncio.run(run())
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 74
    assert result.stdout == ""
    assert "could not be made durable" in result.stderr


def test_the_log_carries_ten_thousand_events_a_second(tmp_path):
    payload = b"\x01" + b"x" * 2000

    async def run():
        commit = GroupCommit(SegmentWriter(tmp_path, "w0"))

        async def connection():
            for _ in range(250):
                await commit.append(LogKind.EVENTS, payload)

        await asyncio.gather(*(connection() for _ in range(4)))
        commit.close()

    begin = time.process_time()
    asyncio.run(run())
    # 1,000 batches of 10 events; a tenth of a second of one core each second leaves the rest to the others.
    assert time.process_time() - begin < 1.0
    assert len(read_all(tmp_path)) == 1000


def test_the_light_stores_do_not_import_the_lake():
    code = (
        "import sys, thinslice.store.log, thinslice.store.codec, thinslice.store.live, thinslice.store.artifacts,"
        " thinslice.store.keys; sys.exit(bool({'pyarrow', 'duckdb', 'deltalake'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
    assert Path(log.__file__).is_file()
