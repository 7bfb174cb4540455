"""The features of one flight: its own fields, and the parts of its date. Pure; run once, at prediction."""

from datetime import date


def features(fields: dict) -> dict:
    """Return the features declared in headrace.yaml.

    >>> given = dict.fromkeys(("carrier", "flight", "origin", "dest", "distance", "duration", "departure"))
    >>> weather = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
    >>> result = features(given | dict.fromkeys(weather) | {"date": "2013-07-04"})
    >>> result["weekday"], result["day"]
    (3, '07-04')
    """
    day = fields.pop("date")
    return {**fields, "weekday": date.fromisoformat(day).weekday(), "day": day[5:]}
