"""What stands under the help of every command."""

from typing import Final

EXIT_CODES: Final = (
    "Exit codes: 0 done, 1 failure, 2 a mistake in what was asked for, 3 nothing could be certified, "
    "130 interrupted. "
    "Details of failures are in the log file, ~/.local/state/vouch/vouch.log or VOUCH_LOG."
)


def epilog(*examples: str) -> str:
    """Examples, one a line, and the exit codes."""
    if not examples:
        return EXIT_CODES
    # \b keeps the lines as they are.
    return "\b\nExamples:\n" + "\n".join(f"  {example}" for example in examples) + f"\n\n{EXIT_CODES}"
