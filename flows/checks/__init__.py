"""What the data of a retraining must be like before anything is fitted on it. All but the writing of its page is pure.

:mod:`flows.checks.run` has the one way in, for the flow and for the backtest; :mod:`flows.checks.schema` is the only
import of pandera.
"""
