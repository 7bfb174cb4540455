"""Results of backtests made up for pages."""

from __future__ import annotations

from core.clocks import ROW_CLOCK, UTC_CLOCK
from core.durations import ROW
from core.metrics import METRICS, SMALLER_IS_BETTER
from core.recorded import FIRST_ROW

_SPAN = 1_000


def result_of(task="binary", time="rows", windows=8):
    """Three policies: never, without a champion, and one with retrainings, one of them refused, and an alert."""
    clock = ROW_CLOCK if time == "rows" else UTC_CLOCK

    def at(row):
        return clock.to_json(FIRST_ROW + row * ROW)

    return {
        "project": "rows",
        "task": task,
        "metrics": {m: "smaller" if m in SMALLER_IS_BETTER else "larger" for m in METRICS[task]},
        "time": time,
        "window": clock.setting(_SPAN * ROW),
        "rows": {"events": 10_000, "labels": 10_000, "common": windows * 500},
        "periods": 1,
        "refused": {},
        "repeated": {"events": 0, "labels": 0},
        "first_event": at(0),
        "last_event": at((windows + 2) * _SPAN - 1),
        "policies": {
            "never": _policy(at, task, windows, 0.5, retrainings=[_retraining(at, "bootstrap", 2_000, 1_000)]),
            "online-only": _policy(at, task, windows, 0.6, champion=False),
            "drift": _policy(
                at,
                task,
                windows,
                0.4,
                retrainings=[
                    _retraining(at, "bootstrap", 2_000, 1_000),
                    _retraining(at, "schedule", 4_000, 1_500, refused=["worse by 3 %"]),
                    _retraining(at, "drift", 6_000, 2_000, why=["The labels moved."]),
                ],
                alerted=[
                    {
                        "window": "w_data",
                        "from": at(3_000),
                        "stage": "data",
                        "due": at(4_000),
                        "reasons": ["x moved by 0.9"],
                    }
                ],
            ),
        },
        "seconds": {"stream": 1.0},
    }


def _retraining(at, trigger, row, rows, why=("There is no champion yet.",), refused=()):
    return {
        "trigger": trigger,
        "decided_at": at(row),
        "effective_at": at(row + 10),
        "promoted": not refused,
        "rows": rows,
        "why": list(why),
        "not_promoted_because": list(refused),
    }


def _policy(at, task, windows, loss, champion=True, retrainings=(), alerted=()):
    names = ["served", *(["champion"] if champion else []), "linear", "tree"]
    means = {metric: dict.fromkeys(names, loss) for metric in METRICS[task]}
    for metric in set(means) - SMALLER_IS_BETTER:
        means[metric] = dict.fromkeys(names, 1 - loss)
    return {
        **means,
        "mean_monthly": means,
        "monthly": {"rows from 0": means},
        "over_time": {
            "from": [at((window + 2) * _SPAN) for window in range(windows)],
            "rows": [500] * windows,
            "loss": {name: [loss + window % 3 / 100 for window in range(windows)] for name in names},
        },
        "retrains": len(retrainings),
        "promoted": sum(one["promoted"] for one in retrainings),
        "train_seconds": 1.0,
        "rows_trained": sum(one["rows"] for one in retrainings),
        "alerts": len(alerted),
        "retrainings": list(retrainings),
        "alerted": list(alerted),
        "quarantined": [{"from": at(6_500), "to": at(7_000), "reasons": ["x is gone"]}] if alerted else [],
        "rolled_back": [{"at": at(7_500), "reasons": ["it was better before"]}] if alerted else [],
    }
