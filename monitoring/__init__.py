"""Monitoring: judges closed windows of the stream against the reference and decides what to do.

Its own process (``headrace monitor``) with its own cursor. It reads tables and status files and
writes reports, rows of the ``windows`` table and ledger records; it never calls the stream.
"""
