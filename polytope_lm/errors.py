"""The one exception that users are meant to read."""


class PolytopeError(Exception):
    """A mistake that the user can mend: one line that names the offending value, its place and the cure.

    The command line prints it alone on stderr and exits with 1.
    """
