"""Do the 95% intervals hold the truth 95% of the time? A simulation whose truth is known."""
