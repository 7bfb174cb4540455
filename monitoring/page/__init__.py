"""The page of a judged stage, for a person who got its alert, and the index of all pages.

:mod:`monitoring.page.files` writes them, after the decision; everything else here is pure.
"""
