"""The one exception for what a user can mend."""


class UserError(ValueError):
    """A user's mistake, told in one sentence: what, where, what is allowed, what to do.

    The commands print the sentence without a traceback and exit with code 1.
    """
