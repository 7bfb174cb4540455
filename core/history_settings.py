"""The project file's section about what was before the stream: files and databases that ``headrace ingest`` reads."""

from __future__ import annotations

import re
from typing import Self

from pydantic import Field, model_validator

from core.setting_types import Duration, Section

_PASSWORD = re.compile(r"^[^/]*://[^/@:]*:[^@]+@")


class HistorySettings(Section):
    """One source of ``headrace ingest``: one row an event with its outcome."""

    file: str | None = Field(
        None,
        description="a CSV file (gzip too), a Parquet file, a folder of them, or a pattern such as past/*.parquet; "
        "relative to the project folder",
    )
    url: str | None = Field(None, description="instead of file: a database's SQLAlchemy URL, without a password")
    url_from: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="instead of url: the environment variable that holds the URL, password and all",
    )
    table: str | None = Field(None, description="database: the table, as name or schema.name")
    query: str | None = Field(None, description="database: instead of table, the SELECT that returns the rows")
    label_time: str | None = Field(None, description="the column that says when the outcome was known")
    label_delay: Duration = Field(
        0, description="how long after its event an outcome was known, where no column says it"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(given is not None for given in (self.file, self.url, self.url_from)) != 1:
            raise ValueError("give one of file, url and url_from")
        in_database = self.file is None
        if in_database and (self.table is None) == (self.query is None):
            raise ValueError("a database needs either table or query")
        if not in_database and (self.table is not None or self.query is not None):
            raise ValueError("table and query belong to a database; remove them, or give url instead of file")
        if self.label_time is not None and self.label_delay:
            raise ValueError("give either label_time or label_delay")
        if self.url is not None and _PASSWORD.match(self.url):
            raise ValueError("no password belongs into the project file; name a variable that holds it in url_from")
        return self
