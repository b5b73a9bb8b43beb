"""A process that imports diffkit once and forks a command for every order it reads: real processes, to be killed.

Orders are lines of JSON on standard input, each answered by one number on standard output:

    {"run": ["train", ...], "told": a file for all that is printed, "end": {}}    the process id
    {"wait": the process id}    its exit status; a signal that ended it counts negative

An `end` comes at an exact moment:

    {"file": "train.py", "function": "", "line": 7}    kill -9 before the seventh line run in that file or function
    {"bytes": 1000}    a write that makes a file longer than that fails, as on a full disk
"""

import json
import os
import resource
import signal
import sys

from diffkit.cli.main import main as command

TOO_LONG = 120  # seconds


def killed_at_line(file, function, line):
    """A trace function that kills this process before the nth line that it sees run."""
    left = line

    def within(frame, event, _):
        nonlocal left
        left -= event == "line"
        if left == 0:
            os.write(1, f"killed in {frame.f_code.co_filename}, line {frame.f_lineno}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)
        return within

    def trace(frame, event, _):
        code = frame.f_code
        return within if code.co_filename.endswith(os.sep + file) and function in ("", code.co_name) else None

    return trace


def run(arguments, told, end):
    """In a new process: everything it prints goes into a file, and it ends as ordered. Does not return."""
    status = 1
    signal.alarm(TOO_LONG)  # if its end never comes
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the tests were started with nohup
    try:
        paper = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number, target in ((0, os.open(os.devnull, os.O_RDONLY)), (1, paper), (2, paper)):
            os.dup2(target, number)
        if "bytes" in end:
            resource.setrlimit(resource.RLIMIT_FSIZE, (end["bytes"], end["bytes"]))
        if "line" in end:
            sys.settrace(killed_at_line(**end))
        status = command(arguments)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main():
    """Answer orders until there are no more."""
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            answer = os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])
        else:
            answer = os.fork() or run(order["run"], order["told"], order["end"])
        print(answer, flush=True)


if __name__ == "__main__":
    main()
