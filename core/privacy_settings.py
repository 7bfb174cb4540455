"""The project file's section about personal values: whether ids are hidden, with which key, what bad records keep."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from core.durations import DAY
from core.setting_types import Duration, Section

Mark = Literal["hash", "drop"]
"""What becomes of a personal value: a keyed hash of it, or nothing."""


class PrivacySettings(Section):
    """Personal values: which field holds one is said at the field, with `pii`."""

    id: Literal["hash"] | None = Field(
        None,
        description="hash: the event's id names a person; tables, topics and state that headrace writes hold its keyed "
        "hash only",
    )
    key_file: str | None = Field(
        None,
        description="file with the secret key of the hashes, relative to the project folder; or give the key itself in "
        "HEADRACE_PII_KEY",
    )
    retention: Duration | None = Field(
        None,
        ge=DAY,
        description="age of an event, by the wall clock, after which maintenance removes its rows from tables and "
        "reports, whoever pins them; at least twice label.horizon; null keeps them",
    )
    undecodable: Literal["digest", "raw"] = Field(
        "digest",
        description="what a dead letter keeps of a value that is no JSON object, where a field or the id is personal: "
        "its length and keyed digest, or all of it",
    )
