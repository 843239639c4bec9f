"""The command line: doctor, init, what a terminal shows, and the reference of commands."""
