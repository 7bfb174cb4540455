"""Versions of the batch model: what is known of one, and what is written with a new one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.errors import RegistryError

if TYPE_CHECKING:
    import pandas as pd

PREFIX = "headrace."
"""Before each of headrace's tags."""

SERVES_FROM, WATCHED = "serves_from", "watched"


@dataclass(frozen=True)
class ModelVersion:
    """A registered version.

    Attributes
    ----------
    version : int
        Its number, from 1.
    run_id : str
        The MLflow run that made it.
    tags : mapping of str to str
        What was recorded at registration: ``digest``, ``table_version``, ``data_cut``, ``trigger`` ...
    """

    version: int
    run_id: str
    tags: Mapping[str, str]

    @classmethod
    def of(cls, entry: Any) -> ModelVersion:
        """Return MLflow's entry of a version, with headrace's own tags of all that it has."""
        own = {key.removeprefix(PREFIX): value for key, value in entry.tags.items() if key.startswith(PREFIX)}
        return cls(int(entry.version), entry.run_id or "", own)

    @property
    def serves_from(self) -> int:
        """The event time from which lockstep lets it serve, ms.

        Raises
        ------
        RegistryError
            If it is not known.
        """
        return self.number(SERVES_FROM if SERVES_FROM in self.tags else "effective_at")

    @property
    def is_watched(self) -> bool:
        """Whether the champion before it goes on in shadow."""
        return self.tags.get(WATCHED) == "true"

    def number(self, tag: str) -> int:
        """Return a tag that is a whole number.

        Raises
        ------
        RegistryError
            If it is missing or no number.
        """
        try:
            return int(self.tags[tag])
        except (KeyError, ValueError) as error:
            raise RegistryError(
                f"model version {self.version}: tag {PREFIX}{tag} is missing or no number; "
                "register models with headrace only"
            ) from error


@dataclass(frozen=True)
class Registration:
    """What is written with a new version.

    Attributes
    ----------
    example : pandas.DataFrame
        A few rows as the pipeline gets them; kept as the input example.
    tags : mapping
        Recorded on the version; the digest is added.
    params, metrics : mapping
        Recorded on the run.
    documents : mapping of file name to JSON value
        Logged as artifacts of the run.
    """

    example: pd.DataFrame
    tags: Mapping[str, object]
    params: Mapping[str, object]
    metrics: Mapping[str, float]
    documents: Mapping[str, Any]
