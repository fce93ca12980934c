"""The command line. `main` turns errors into exit codes: 0 done, 1 the user's mistake, 2 our bug, 3 outputs differ."""

from __future__ import annotations

import gc
import signal
import sys
import traceback

import typer

from graphopt.cli.app import app
from graphopt.cli.screen import errors
from graphopt.errors import GraphoptError, VerificationError

USER_ERROR, BUG, DIFFERENT, INTERRUPTED = 1, 2, 3, 130
STOPPED = "interrupted; nothing was written."

BUG_NOTE = (
    "This is a bug in graphopt. Please report it with the text above, the command and the model, if you may;\n"
    "`graphopt optimize IN -o OUT --pipeline clean-up` narrows down which pass it is."
)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and exits the process."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # to be asked to end is to be interrupted: clean up
    code = run(arguments)
    gc.freeze()  # the process ends: nothing is worth collecting any more
    sys.exit(code)


def run(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    try:
        code = app(arguments, standalone_mode=False, prog_name="graphopt")
        if code == INTERRUPTED:  # typer's answer to Ctrl-C, which it keeps to itself
            return _say(STOPPED, INTERRUPTED)
        return code if isinstance(code, int) else 0
    except VerificationError as error:
        return _say(str(error), DIFFERENT)
    except GraphoptError as error:
        return _say(str(error), USER_ERROR)
    except typer.TyperException as error:
        return _say(f"{error.format_message().rstrip('.')}; see `graphopt --help`.", USER_ERROR)
    except (KeyboardInterrupt, typer.Abort):
        return _say(STOPPED, INTERRUPTED)
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        sys.stderr.close()
        return 0
    except MemoryError:
        return _say("there is not enough memory for this model; try a machine with more, or --no-verify.", USER_ERROR)
    except Exception:
        traceback.print_exc()
        errors().print(BUG_NOTE, markup=False)
        return BUG


def _say(sentence: str, code: int) -> int:
    errors().print("[bold red]error:[/] ", end="")
    errors().print(sentence, markup=False, highlight=False, soft_wrap=True)
    return code
