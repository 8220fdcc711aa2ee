"""What other processes show of themselves: environment, arguments, memory."""

import os
from pathlib import Path

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def children(pid: int) -> list[int]:
    """Every process below this one."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *children(int(child))]
    return found


def shown(pid: int) -> str:
    """Environment and arguments of a process and of everything below it."""
    text = ""
    for process in [pid, *children(pid)]:
        for name in ("environ", "cmdline"):
            try:
                text += Path(f"/proc/{process}/{name}").read_bytes().decode(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                pass
    return text


class Hit:
    def __init__(self, address: int, mapping: str, around: bytes):
        self.address, self.mapping, self.around = address, mapping, around

    def __repr__(self) -> str:
        return f"<{self.address:#x} in {self.mapping or 'memory without a name'}: {self.around!r}>"


def search(pid: int, needle: bytes) -> list[Hit]:
    """Every place of the process's writable memory that has these bytes."""
    hits = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            bounds, mode, *rest = line.split(maxsplit=5)
            if not mode.startswith("rw"):
                continue
            start, end = (int(part, 16) for part in bounds.split("-"))
            name = rest[3] if len(rest) > 3 else ""
            # Chunks overlap, so that nothing is missed between two.
            step = 16 << 20
            for at in range(start, end, step):
                try:
                    memory.seek(at)
                    data = memory.read(min(step + len(needle), end - at))
                except (OSError, OverflowError):
                    continue
                found = data.find(needle)
                while 0 <= found < step:
                    around = data[max(0, found - 64) : found + len(needle) + 16]
                    hits.append(Hit(at + found, name, around))
                    found = data.find(needle, found + 1)
    return hits
