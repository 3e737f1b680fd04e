"""What one supervisor hands to the next, so that an upgrade lets go of nothing.

Strategy: descriptors outlive exec, so their numbers travel in one environment variable, each with
the name of what it is: a listener, or whatever else must be held without a gap. The successor takes
by name what its own configuration wants, and says by one byte on a pipe that it has begun.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass

VARIABLE = "CDN_HANDOVER"

Named = tuple[str, int]
"""A descriptor, and what it is."""


@dataclass(slots=True)
class Handover:
    """`descriptors` by name, in order; `directory` is the workers'; `ready` the pipe's end."""

    descriptors: list[Named]
    directory: str
    ready: int

    @classmethod
    def received(cls, environ: MutableMapping[str, str]) -> Handover | None:
        """What the supervisor before has left in `environ`, where it is taken out."""
        text = environ.pop(VARIABLE, None)
        if text is None:
            return None
        told = json.loads(text)
        descriptors = [(name, fd) for name, fd in told["descriptors"]]
        for fd in (told["ready"], *(fd for _, fd in descriptors)):
            os.set_inheritable(fd, False)
        return cls(descriptors, told["directory"], told["ready"])

    def take(self, name: str) -> int | None:
        """The first descriptor of that name that nobody has taken."""
        for place, (known, fd) in enumerate(self.descriptors):
            if known == name:
                del self.descriptors[place]
                return fd
        return None

    def complete(self) -> None:
        """Tells the supervisor before to go, and closes what nobody has taken."""
        with contextlib.suppress(BrokenPipeError):  # it was killed meanwhile
            os.write(self.ready, b"1")
        self.forget()

    def forget(self) -> None:
        """Closes what nobody has taken, without a word."""
        os.close(self.ready)
        for _, fd in self.descriptors:
            os.close(fd)
        self.descriptors.clear()


def hand_over(descriptors: Sequence[Named], directory: str, command: list[str]) -> tuple[int, int]:
    """Runs `command` with all this: its process id, and the pipe on which it will say that it has
    begun (its end: that it never will). Raises OSError."""
    reader, writer = os.pipe()
    fds = [writer, *(fd for _, fd in descriptors)]
    told = {"descriptors": descriptors, "directory": directory, "ready": writer}
    try:
        for fd in fds:
            os.set_inheritable(fd, True)
        pid = os.posix_spawn(command[0], command, os.environ | {VARIABLE: json.dumps(told)})
    except OSError:
        os.close(reader)
        raise
    finally:
        for fd in fds:
            os.set_inheritable(fd, False)
        os.close(writer)
    return pid, reader
