"""Retraining and its machinery: training and gates are pure, Prefect is in the flows and their helpers only."""
