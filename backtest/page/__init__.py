"""A backtest's result as one HTML page for people: nothing is loaded with it, and nothing is computed here anew.

Everything is a pure function of the JSON values of :func:`backtest.results.result`; start with ``document.py``.
"""
