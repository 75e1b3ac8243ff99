"""The file of an experiment that ran elsewhere, opened, and its columns checked."""

import csv
import re
from collections.abc import Mapping
from pathlib import Path

import duckdb

from thinslice.errors import BadInput
from thinslice.jobs.files import check_readable, check_text
from thinslice.metrics.statistics import rows_of
from thinslice.metrics.unit_table import identifier, text
from thinslice.stats.moments import LARGEST

LINE = "data_row_of_the_file"
"""The column that numbers the rows of a file from 1."""


def open_file(database: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Makes the table `source` of a Parquet or CSV file, with its rows numbered.

    Raises:
        BadInput: There is no such file, or it cannot be read.
    """
    check_readable(path)
    reader = {".parquet": "read_parquet", ".pq": "read_parquet", ".csv": "read_csv", ".tsv": "read_csv"}
    kind = reader.get(path.suffix.lower())
    if kind is None:
        raise BadInput(f"{path.name} is neither Parquet nor CSV.", hint="Its name has to end in .parquet or .csv.")
    if kind == "read_csv":
        check_text(path)
        _check_header(path)
    try:
        options = ", header = true, sample_size = -1" if kind == "read_csv" else ""
        if options:  # times stay as they are written: a zone that only some of them have would get lost
            columns = rows_of(database, f"DESCRIBE SELECT * FROM {kind}({text(str(path))}{options})")
            times = [row["column_name"] for row in columns if row["column_type"].startswith("TIMESTAMP")]
            kept = ", ".join(f"{text(name)}: 'VARCHAR'" for name in times)
            options += f", types = {{{kept}}}" if kept else ""
        database.execute(
            f"CREATE TEMP TABLE source AS SELECT *, row_number() OVER () AS {LINE} "
            f"FROM {kind}({text(str(path))}{options})"
        )
        names = [str(row["column_name"]) for row in rows_of(database, "DESCRIBE source")]
        if kind == "read_csv" and len(names) == 2 and re.search(r"[,;\t|]", names[0]):
            raise BadInput(
                f"{path.name} cannot be read as a table: some of its rows have more or fewer values than its header.",
                hint="Each row needs one value for each name in the first line, with quotes around commas.",
            )
    except duckdb.Error as error:
        raise BadInput(f"{path.name} cannot be read: {str(error).splitlines()[0]}") from None


def _check_header(path: Path) -> None:
    """Refuses a header that names a column twice: nobody could say which one is meant."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        first = file.readline()
    cells = next(csv.reader([first], delimiter=max(",\t;|", key=first.count)), [])
    names = [name.strip().casefold() for name in cells]
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        places = " and ".join(str(at) for at, name in enumerate(names, start=1) if name == twice)
        raise BadInput(
            f"{path.name} has {names.count(twice)} columns named {twice!r} (columns {places}).",
            hint="Give each a name of its own in the first line, capital letters aside, or take one out.",
        )


def check_column(
    database: duckdb.DuckDBPyConnection, file: str, types: Mapping[str, str], column: str, *, number: bool
) -> None:
    """Refuses a column that is missing, has empty values, or should be numbers and is not.

    Raises:
        BadInput: With the column, how many values and the first row.
    """
    if column not in types:
        raise BadInput(f"{file} has no column {column!r} (there is: {', '.join(types)}).")
    name, kind = identifier(column), types[column]
    empty = f"{name} IS NULL"
    if number:
        plain = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "BOOLEAN")
        if not kind.removeprefix("U").startswith(plain):
            if not rows_of(database, f"SELECT 1 FROM source WHERE {name} IS NOT NULL LIMIT 1"):
                raise BadInput(f"column {column!r} of {file} is empty in every row.")
            words, decimals = _words(kind), "Decimals stand behind a point, without a unit or separators of thousands."
            raise BadInput(
                f"column {column!r} of {file} holds {words}, where numbers are needed.",
                hint=decimals if words == "text" else "",
            )
        empty += f" OR NOT abs(CAST({name} AS DOUBLE)) <= {LARGEST!r}"
    bad = rows_of(database, f"SELECT count(*) AS n, min({LINE}) AS line FROM source WHERE {empty}")[0]
    if bad["n"]:
        what = "empty or no finite numbers" if number else "empty"
        instead = "Write 0 where nothing happened" if number else "Write a word such as unknown where it is not known"
        raise BadInput(
            f"column {column!r} of {file} has {bad['n']:,} values that are {what}, the first in data row "
            f"{bad['line']}.",
            hint=f"{instead}, and leave out rows that are not meant.",
        )


def _words(kind: str) -> str:
    """What a column holds, for people who know no database."""
    words = {
        "VARCHAR": "text",
        "DATE": "dates",
        "TIME": "times",
        "UUID": "ids",
        "BLOB": "bytes",
        "INTERVAL": "durations",
    }
    if kind.endswith("]") or kind.startswith(("STRUCT", "MAP", "UNION")):
        return "lists or records"
    return "times" if kind.startswith("TIMESTAMP") else words.get(kind, "something else")
