"""Backtest: a recorded stream through the same parts on a virtual clock, under several retraining policies.

The way of the data: :mod:`backtest.tape` runs the stream once through the partition's machine, for all that does not
depend on a policy; :mod:`backtest.simulation` replays that under a policy: serving, windows, decisions, training,
promotions; :mod:`backtest.results` scores the policies on common rows; :mod:`backtest.page` shows them.
"""
