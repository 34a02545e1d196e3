"""The one exception of the config: every problem found, one line each."""

from collections.abc import Sequence

LONGEST_PROBLEM = 1800
"""Characters."""


class ConfigError(Exception):
    """What is wrong with a config or with the overrides on the command line.

    `str(error)` is the text for the terminal; the commands print it and exit with code 2.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(_one_line(problem) for problem in problems)
        super().__init__("\n".join(self.problems))


def _one_line(problem: str) -> str:
    """Control characters escaped, and the middle left out of what is too long to be read."""
    if len(problem) > LONGEST_PROBLEM:
        half = LONGEST_PROBLEM // 2
        problem = f"{problem[:half]} [...] {problem[-half:]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in problem)
