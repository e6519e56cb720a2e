"""Telling the world outside of events: signed, at least once, to public addresses only."""
