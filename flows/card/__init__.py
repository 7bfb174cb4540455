"""The card of a version: what it learned from, how it was judged, what it uses, and where it should not be trusted."""
