"""The same analysis on another engine: the SQL of reports, written once, run where Ibis can reach (DuckDB, Spark).

Needs the extra `ibis` (and for Spark `spark`, with Java 17 on the machine). Nothing in the service imports this file.
"""

import warnings
from typing import Any, NamedTuple

DIALECT = "duckdb"
"""The dialect in which the project's SQL is written."""


class Answer(NamedTuple):
    """The rows of one query, as a database cursor gives them.

    Attributes:
        description: One tuple a column; its name comes first.
        rows: The values.
    """

    description: list[tuple[str]]
    rows: list[tuple[Any, ...]]

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows."""
        return self.rows


class PortableDatabase:
    """Runs our SQL on an Ibis connection: queries, and temporary tables made by `CREATE TEMP TABLE name AS query`.

    Tables and views of the connection (`exposure_variants`, `events`, `orders`) have to carry the columns that
    `docs/reference/records.md` lists. Times have to be in UTC: on Spark set `spark.sql.session.timeZone`.

    Args:
        connection: From `ibis.duckdb.connect()`, `ibis.pyspark.connect(session)` or another backend.

    >>> import ibis
    >>> PortableDatabase(ibis.duckdb.connect()).execute("SELECT 1 AS one").fetchall()
    [(1,)]
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._kept: dict[str, Any] = {}

    def execute(self, query: str) -> Answer:
        """Runs one statement in the dialect of DuckDB, translated to that of the engine.

        A temporary table is computed once and kept until it is made again, as its users expect of a table.

        Raises:
            sqlglot.errors.ParseError: The statement cannot be read.
        """
        import sqlglot
        from sqlglot import expressions

        statement = sqlglot.parse_one(query, read=DIALECT)
        if self._connection.name == "pyspark":
            for call in statement.find_all(expressions.Anonymous):
                if call.name.lower() == "epoch_us":
                    call.set("this", "unix_micros")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Ibis calls old names of its engines
            if isinstance(statement, expressions.Create):
                self._keep(statement)
                return Answer([], [])
            found = self._connection.sql(statement.sql(DIALECT), dialect=DIALECT).to_pyarrow()
        columns = [found.column(place).to_pylist() for place in range(found.num_columns)]
        return Answer([(name,) for name in found.column_names], list(zip(*columns, strict=True)))

    def _keep(self, statement: Any) -> None:
        """Where an engine has no temporary tables, a view of rows that it holds in memory stands for one."""
        if self._connection.supports_temporary_tables:
            self._connection.raw_sql(statement.sql(self._connection.dialect))
            return
        name = statement.this.name
        held = self._connection.sql(statement.expression.sql(DIALECT), dialect=DIALECT).cache()
        self._connection.create_view(name, held, overwrite=True)
        self._kept[name] = held
