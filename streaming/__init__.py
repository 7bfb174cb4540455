"""The always-on service: reads events and labels, predicts, scores, learns, keeps its state.

Knows :mod:`core` and nothing above it. What it knows of Kafka is in :mod:`streaming.transport`.
"""
