"""Verbs that need more than one stage: run, comparing foreign traces, importing dumps."""
