"""Does the instrument find what it is for? Faults are put into real traces and real engines, and
the preflight ladder gets the damaged pair alone.
"""
