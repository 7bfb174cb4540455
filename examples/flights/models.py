"""Two online linear models on crossed indicators: what is always so, and what is so today.

River's logistic regression learns one weight an indicator. The value given to an indicator sets how fast its
weight moves (the step is rate times value squared), so that "this route today" adapts quicker than "this hour".
"""

from typing import Any

from river import linear_model, optim

Groups = dict[str, list[str]]


def today() -> "Indicators":
    """Return a model that also has indicators of the calendar day: it follows the day's disruptions."""
    values = {"always": 0.5, "who": 1.0, "route": 2.0, "weather": 0.5, "exact": 1.0}
    by_day = {"day": 0.5, "day_who": 1.0, "day_route": 3.0, "day_exact": 3.0}
    return Indicators(0.006, {**values, **by_day})


def linear() -> "Indicators":
    """Return a slower model without the calendar day."""
    return Indicators(0.001, dict.fromkeys(("always", "who", "route", "weather", "exact"), 1.0))


class Indicators:
    """Logistic regression on indicators.

    Parameters
    ----------
    rate : float
        Learning rate.
    values : dict of str to float
        Value of the indicators of each group; groups that are not named are not used.
    """

    def __init__(self, rate: float, values: dict[str, float]) -> None:
        self._values = values
        self._model = linear_model.LogisticRegression(optim.SGD(rate), intercept_lr=0.003, intercept_init=-1.2)

    def predict(self, features: dict[str, Any]) -> float:
        """Return the probability of a late or cancelled flight."""
        return self._model.predict_proba_one(self._encode(features))[True]

    def learn(self, features: dict[str, Any], outcome: int) -> None:
        """Learn from one flight."""
        self._model.learn_one(self._encode(features), bool(outcome))

    def _encode(self, features: dict[str, Any]) -> dict[str, float]:
        found = indicators(features)
        return {name: value for group, value in self._values.items() for name in found[group]}


def indicators(f: dict[str, Any]) -> Groups:
    """Return the indicators of a flight by group; numbers are cut into bins."""
    o, c, d, number = f["origin"], f["carrier"], f["dest"], f["flight"]
    minute = int(f["departure"])
    hour, weekday, day = minute // 60, f["weekday"], f["day"]
    part = hour // 3
    weather = _weather_bins(f)
    far = _bin(f["distance"], (300, 600, 900, 1200, 2000))
    return {
        "always": [f"o{o}", f"h{hour}", f"w{weekday}", f"wp{weekday}{part}", *_weather_by_origin(o, part, weather)],
        "who": [f"c{c}", f"d{d}", f"oh{o}{hour}", f"ch{c}{hour}", f"oc{o}{c}"],
        "route": [f"cd{c}{d}", f"od{o}{d}", f"fl{c}{number}", f"dp{d}{part}"],
        "weather": [*_weather_crosses(o, c, d, part, weather), f"xn{o}{hour}{weekday}"],
        "exact": [
            f"fo{c}{number}{o}{d}", f"fw{c}{number}{weekday}", f"om{o}{minute}", f"odc{o}{d}{c}",
            f"odh{o}{d}{hour}", f"cdh{c}{d}{hour}", f"dw{d}{weekday}", f"cwp{c}{weekday}{part}",
        ],
        "day": [f"D{day}", f"Do{day}{o}"],
        "day_who": [f"Dc{day}{c}", f"Dp{day}{part}", f"Dop{day}{o}{part}"],
        "day_route": [f"Dd{day}{d}", f"Doc{day}{o}{c}"],
        "day_exact": [f"Dcd{day}{c}{d}", f"Df{day}{far}", f"Dof{day}{o}{far}", f"Dcf{day}{c}{far}"],
    }  # fmt: skip


def _weather_bins(f: dict[str, Any]) -> dict[str, Any]:
    spread = None if f["temp"] is None or f["dewp"] is None else f["temp"] - f["dewp"]
    return {
        "vis": _bin(f["visib"], (1, 3, 6, 9)),
        "rain": _bin(f["precip"], (0.001, 0.02, 0.1)),
        "wind": _bin(f["wind_speed"], (5, 10, 15, 20, 25)),
        "gust": _bin(f["wind_gust"], (20, 25, 30, 40)),
        "from": "?" if f["wind_dir"] is None else int(f["wind_dir"] // 45) % 8,
        "temp": _bin(f["temp"], (20, 28, 34, 40, 50, 60, 70, 80, 90)),
        "dewp": _bin(f["dewp"], (20, 35, 50, 60, 65, 70)),
        "spread": _bin(spread, (2, 4, 8, 15, 25)),
        "humid": _bin(f["humid"], (40, 60, 75, 85, 92)),
        "press": _bin(f["pressure"], (1000, 1005, 1010, 1015, 1020, 1025)),
    }


def _weather_by_origin(o: str, part: int, w: dict[str, Any]) -> list[str]:
    half = w["wind"] if w["wind"] == "?" else w["wind"] // 2
    return [
        f"vis{o}{w['vis']}", f"pr{o}{w['rain']}", f"vp{w['vis']}{w['rain']}", f"ws{o}{w['wind']}", f"gu{w['gust']}",
        f"wd{o}{w['from']}{half}", f"te{w['temp']}", f"ps{w['press']}", f"sp{w['spread']}", f"hu{w['humid']}",
        f"vh{w['vis']}{part}", f"dw{w['dewp']}", f"th{w['dewp']}{part}",
    ]  # fmt: skip


def _weather_crosses(o: str, c: str, d: str, part: int, w: dict[str, Any]) -> list[str]:
    return [
        f"xa{o}{w['vis']}{w['wind']}", f"xb{w['rain']}{w['temp']}", f"xc{o}{part}{w['dewp']}",
        f"xd{w['humid']}{w['temp']}", f"xe{w['press']}{w['wind']}", f"xf{o}{w['from']}{w['vis']}",
        f"xg{c}{w['vis']}", f"xh{d}{w['vis']}", f"xi{c}{w['rain']}", f"xj{o}{part}{w['spread']}",
        f"xk{w['press']}{part}{w['humid']}", f"xl{d}{w['wind']}", f"xm{c}{w['gust']}{part}",
    ]  # fmt: skip


def _bin(value: float | None, edges: tuple[float, ...]) -> int | str:
    return "?" if value is None else sum(value >= edge for edge in edges)
