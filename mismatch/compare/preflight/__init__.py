"""The ladder that is climbed before a number is believed: what broke, by name, before how far.

A one-position shift, a padded row or stale weights look like a huge mismatch. Each rung is a module
that reads the evidence of one pair and says pass, fail or not checked, with numbers and what to do:

    L0 weights · L1 tokens · L2 sampling · L3 routing · L4 kernels · L5 shape
"""
