"""Files: what a shop exports, CSV, JSON lines or Parquet, as rows in chunks, each with its line."""

import codecs
import csv
import io
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from thinslice.errors import BadInput, BadRecord

CHUNK = 50_000
"""So many rows are read, checked and committed at once."""

Progress = Callable[[int, int], None]
"""Called with (bytes or rows done, bytes or rows in all)."""

_PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zX": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class Row(NamedTuple):
    """One row of a file: its line, its cells by column, or what is wrong with it and what there was."""

    line: int
    cells: dict[str, Any] | BadRecord
    raw: dict[str, Any] | str = ""


Rows = Generator[list[Row], None, None]
"""The rows of a file, chunk by chunk."""


def open_rows(path: Path, file_format: str, progress: Progress | None) -> tuple[Rows, list[str]]:
    """The rows of a file in chunks, and its columns (empty for JSON, whose rows name their own).

    Raises:
        BadInput: There is no such file, or it cannot be read as such a file.
    """
    check_readable(path)
    told = progress or _quiet
    known = {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet}
    chosen = format_of(path) if file_format == "auto" else file_format
    if chosen not in known:
        raise BadInput(f"the format {file_format!r} is not known.", hint=f"There is: auto, {', '.join(known)}.")
    return known[chosen](path, told)


def check_readable(path: Path) -> None:
    """Refuses what is no file of rows, whatever its format.

    Raises:
        BadInput: There is none, it is a folder, empty or packed, or neither text in UTF-8 nor Parquet.
    """
    if path.is_dir():
        raise BadInput(f"{path} is a folder.", hint="Name the files in it.")
    if not path.is_file():
        raise BadInput(f"there is no file {path}.")
    if path.stat().st_size == 0:
        raise BadInput(f"{path} is empty.")
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BadInput(f"{path} is text in UTF-16.", hint="Save it as UTF-8 (spreadsheets call that `CSV UTF-8`).")
    packed = next((name for start, name in _PACKED.items() if head.startswith(start)), None)
    if packed is not None:
        raise BadInput(f"{path} is packed ({packed}).", hint="Unpack it and name what is inside.")
    first = head.partition(b"\n")[0]  # where that is text, a line that is none is the business of its row
    if b"\0" in head and not head.startswith(b"PAR1") and (b"\0" in first or not first.isascii()):
        raise BadInput(f"{path} is no text (its first bytes are {head[:8].hex(' ')}) and no Parquet file.",
                       hint="Save it as CSV, JSON Lines or Parquet.")  # fmt: skip


def check_text(path: Path) -> None:
    """Refuses text that is not UTF-8, by its first such line.

    Raises:
        BadInput: It holds a byte that UTF-8 does not have there.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.isascii():
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise BadInput(
                        f"{path} is no text in UTF-8: line {number} holds the byte {error.object[error.start]:#04x}.",
                        hint="Save it as UTF-8 (spreadsheets call that `CSV UTF-8`).",
                    ) from None


def _quiet(done: int, total: int) -> None:
    """Tells nobody."""


def format_of(path: Path) -> str:
    """`csv`, `jsonl` or `parquet`: by the name, else by the first bytes."""
    suffix = path.suffix.lower()
    by_name = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
               ".parquet": "parquet", ".pq": "parquet"}  # fmt: skip
    if suffix in by_name:
        return by_name[suffix]
    with path.open("rb") as file:
        head = file.read(64).lstrip()
    if head.startswith(b"PAR1"):
        return "parquet"
    return "jsonl" if head[:1] in (b"{", b"[") else "csv"


def _csv(path: Path, progress: Progress) -> tuple[Rows, list[str]]:
    total = path.stat().st_size
    with path.open("rb") as binary, _text(binary) as file:
        header = file.readline()
    delimiter = max(",\t;|", key=header.count)
    columns = [_clean(cell.strip()) for cell in next(csv.reader([header], delimiter=delimiter), [])]
    if len(set(columns)) != len(columns) or not any(columns):
        raise BadInput(f"{path.name}: the first line does not name the columns, each once: {header[:200]!r}.")

    def chunks() -> Rows:
        with path.open("rb") as binary, _text(binary) as file:
            file.readline()
            reader = csv.reader(file, delimiter=delimiter)
            rows: list[Row] = []
            while True:
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    rows.append(Row(reader.line_num + 1, BadRecord("bad_csv", f"the row cannot be read: {error}")))
                    continue
                if cells is None:
                    break
                if cells:
                    rows.append(_csv_row(cells, columns, reader.line_num + 1))
                if len(rows) >= CHUNK:
                    progress(binary.tell(), total)
                    yield rows
                    rows = []
            progress(total, total)
            yield rows

    return chunks(), columns


def _text(binary: io.BufferedReader) -> io.TextIOWrapper:
    return io.TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _csv_row(cells: list[str], columns: list[str], line: int) -> Row:
    raw = dict(zip(columns, cells, strict=False))
    if any("\udc80" <= letter <= "\udcff" for cell in cells if not cell.isascii() for letter in cell):
        return Row(line, BadRecord("bad_utf8", "the row is not UTF-8"), {k: _clean(v) for k, v in raw.items()})
    if len(cells) != len(columns):
        message = f"the row has {len(cells)} cells, the header {len(columns)}"
        return Row(line, BadRecord("bad_csv", message, hint="quote cells that hold the delimiter."), raw)
    return Row(line, raw)


def _jsonl(path: Path, progress: Progress) -> tuple[Rows, list[str]]:
    total = path.stat().st_size

    def chunks() -> Rows:
        with path.open("rb") as file:
            rows: list[Row] = []
            if file.peek(3).startswith(codecs.BOM_UTF8):
                file.read(3)
            start = file.peek(64).lstrip()[:1]
            lines: Iterator[tuple[int, bytes]] = (
                iter(_array(file.read(), path.name)) if start == b"[" else enumerate(file, start=1)
            )
            for line, text in lines:
                if text.strip():
                    rows.append(_json_row(text, line))
                if len(rows) >= CHUNK:
                    progress(file.tell(), total)
                    yield rows
                    rows = []
            progress(total, total)
            yield rows

    return chunks(), []


def _array(body: bytes, name: str) -> Iterator[tuple[int, bytes]]:
    try:
        raws = msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadInput(f"{name} is no JSON array: {error}.") from None
    return ((place, bytes(raw)) for place, raw in enumerate(raws, start=1))


def _json_row(text: bytes, line: int) -> Row:
    try:
        cells = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Row(line, BadRecord("bad_json", f"this is no JSON: {error}"), text.decode("utf-8", "replace").strip())
    if not isinstance(cells, dict):
        return Row(line, BadRecord("not_an_object", "a record is an object"), text.decode("utf-8").strip())
    return Row(line, cells)


def _parquet(path: Path, progress: Progress) -> tuple[Rows, list[str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInput(f"{path.name} is no Parquet file: {error}.") from None
    columns = list(file.schema_arrow.names)
    total = file.metadata.num_rows

    def chunks() -> Rows:
        line = 0
        with file:
            for batch in file.iter_batches(batch_size=CHUNK):
                values = [column.to_pylist() for column in batch.columns]
                names = batch.schema.names
                rows = [
                    Row(line + place, dict(zip(names, cells, strict=True)))
                    for place, cells in enumerate(zip(*values, strict=True), start=1)
                ]
                line += len(rows)
                progress(line, total)
                yield rows

    return chunks(), columns


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8") if not text.isascii() else text
