"""Every error that headrace raises on purpose, drawn once.

::

    HeadraceError              exit code 1   something failed; the message says what to do
    ├── UsageError             exit code 2   what the user gave cannot be used
    │   ├── SettingsError                    headrace.yaml: key, what is wrong, the fix
    │   ├── ProjectCodeError                 features.py / models.py of the project
    │   └── SourceError                      the recorded stream to replay
    ├── BrokerError            exit code 4   Kafka is not reachable or refused
    │   ├── TopicError                       topics do not fit together
    │   └── FencedError                      another worker has taken the partition over
    ├── StoreError             exit code 5   a table or an object store could not be read or written
    │   └── VersionGoneError                 that version of a table is not there (any more)
    ├── CheckpointError        exit code 6   state on disk cannot be trusted
    ├── RegistryError          exit code 7   MLflow is not reachable, or an alias cannot be loaded
    ├── PrefectError           exit code 8   Prefect is not reachable or refused
    │   └── NotFoundError                    Prefect does not know what was asked for
    ├── BooksError             exit code 9   the books do not balance
    ├── LeaseLostError                       another run has the retraining's request now
    ├── ChampionChangedError                 another version became champion before a move by hand
    ├── BacktestError                        a process of a backtest was ended before its policies were done
    ├── CannotReproduceError                 what a fit was made from is not there any more
    ├── AlertRefusedError                    the webhook will never take this alert
    ├── PortInUseError         exit code 10  another process listens there
    ├── AlreadyRunningError    exit code 11  the same service runs already on this state folder
    └── StuckError             exit code 12  a step did not end within ``state.deadline``

Third-party exceptions are translated into these in the one file that imports the vendor, and
nowhere else. ``BadRecord`` is not here on purpose: a bad record is a value
(:mod:`core.records`), because the stream goes on.
"""

from __future__ import annotations


class HeadraceError(Exception):
    """Root of the hierarchy; `exit_code` is what the command line ends with."""

    exit_code = 1


class UsageError(HeadraceError):
    """What the user gave (arguments, files, settings) cannot be used as it is."""

    exit_code = 2


class SettingsError(UsageError):
    """``headrace.yaml`` is wrong; the message names file, line, key, problem and fix."""


class ProjectCodeError(UsageError):
    """The project's own Python code cannot be loaded, or returned what it must not."""


class SourceError(UsageError):
    """The recorded stream named for a replay cannot be read."""


class BrokerError(HeadraceError):
    """The Kafka broker is not reachable, or refused a request for good."""

    exit_code = 4


class TopicError(BrokerError):
    """Topics are missing, or do not fit together (partition counts, keys)."""


class FencedError(BrokerError):
    """Another worker has taken the partition over; whatever was not committed is the other's to do."""


class StoreError(HeadraceError):
    """A Delta table, or the object store, could not be read or written."""

    exit_code = 5


class VersionGoneError(StoreError):
    """A version of a Delta table is not there, or not any more; the table is."""


class AlertRefusedError(HeadraceError):
    """The receiver of alerts will never take this one."""


class CheckpointError(HeadraceError):
    """A checkpoint is damaged, foreign or from an incompatible version."""

    exit_code = 6


class RegistryError(HeadraceError):
    """MLflow is not reachable, or a registered model cannot be trusted or loaded."""

    exit_code = 7


class PrefectError(HeadraceError):
    """Prefect is not reachable, or refused a run."""

    exit_code = 8


class NotFoundError(PrefectError):
    """Prefect answers, but does not know what was asked for."""


class LeaseLostError(HeadraceError):
    """Another run has the request now: this one must not change anything any more."""


class ChampionChangedError(HeadraceError):
    """Another version became champion before a move by hand was carried out."""


class CannotReproduceError(HeadraceError):
    """What is needed to do a fit again is not there any more."""


class BacktestError(HeadraceError):
    """A process of a backtest was ended before its policies were done."""


class BooksError(HeadraceError):
    """Records went in that are accounted for nowhere, or twice."""

    exit_code = 9


class PortInUseError(HeadraceError):
    """A port that a service needs is taken by another process."""

    exit_code = 10


class AlreadyRunningError(HeadraceError):
    """The same service already runs on this state folder."""

    exit_code = 11


class StuckError(HeadraceError):
    """A poll, commit, flush or snapshot did not end within its deadline."""

    exit_code = 12
