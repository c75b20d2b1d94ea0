"""The command line: which commands there are, and how the program ends."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Any

from cyclopts import App, CycloptsError, Parameter

from sfumato import __version__
from sfumato.commands.ending import USER_ERROR, exit_code
from sfumato.commands.volume import HELP, Volume, at_volume, split
from sfumato.words import printable


def build(arguments: Sequence[str]) -> App:
    """Return the program.

    Args:
        arguments: of the command line; a protocol named by file or package is looked for there.
    """
    from sfumato.commands import assess, campaigns, contract, runs, sets, study, train

    app = App(
        name="sfumato",
        help=f"Measure how smooth a machine-learned interatomic potential is.\n\n{HELP}",
        version=f"sfumato {__version__}",
        version_flags=["--version"],
        help_format="plaintext",
        default_parameter=Parameter(negative=()),
        suppress_keyboard_interrupt=False,
    )
    runs.register(app, extra=_own_protocol(arguments))
    for commands in (contract, assess, train, study, sets, campaigns):
        commands.register(app)
    app.register_install_completion_command(help="Install completion of commands and options in this shell.")
    return app


def _own_protocol(arguments: Sequence[str]) -> str:
    """Return the protocol after `run` or `plan` that no table holds, or nothing."""
    if len(arguments) < 2 or arguments[0] not in ("run", "plan") or ":" not in arguments[1]:
        return ""
    return arguments[1]


def main(arguments: list[str] | None = None) -> None:
    """Run and exit: 0 done, 1 some items failed, 2 bad input, 128 + n stopped by signal n."""
    sys.exit(_exit_code(sys.argv[1:] if arguments is None else arguments))


def _exit_code(arguments: list[str]) -> int:
    return exit_code(lambda: _run(arguments))


def _run(given: list[str]) -> int:
    wanted = Volume()
    try:
        arguments, wanted = split(given)
        with at_volume(wanted):
            app = build(arguments)
            result: Any = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return _complain(str(error), wanted)
    except BrokenPipeError:
        raise
    except ValueError as error:
        return _complain(str(error), wanted)
    except OSError as error:
        return _complain(f"{error.filename or 'operating system'}: {error.strerror or error}", wanted)
    except MemoryError as error:
        return _complain(f"there is not enough memory for this: {error or 'ask for less at once'}", wanted)
    return result if isinstance(result, int) else 0


def _complain(message: str, wanted: Volume) -> int:
    if wanted.traceback:
        traceback.print_exc()
    print(f"sfumato: {printable(message.strip())}", file=sys.stderr)  # noqa: T201
    return USER_ERROR
