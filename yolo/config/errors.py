"""The one exception of the config: every problem found, one line each."""

from collections.abc import Sequence


class ConfigError(Exception):
    """What is wrong with a config or with the overrides on the command line.

    `str(error)` is the text for the terminal; the commands print it and exit with code 2.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
