"""Pickles, YAML and JSON that were made to do harm."""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Callable
from typing import Any


class Runs:
    """Pickles to a call of ``function(*args)``."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


def _memo_of_tuples(levels: int) -> bytes:
    """A key that takes 2^levels steps to hash: each tuple contains the one before it twice."""
    doubled = b"".join(b"q%c0h%ch%c\x86" % (i, i, i) for i in range(levels))
    return b"\x80\x02}K\x01\x85" + doubled + b"K\x01s."


def _lists_of_lists(levels: int) -> bytes:
    """A list of 2^levels ones, in which each list contains the one before it twice."""
    parts = [b"\x80\x02]K\x01a"]
    parts += [b"q%c0]h%cah%ca" % (i, i, i) for i in range(levels)]
    return b"".join(parts) + b"."


#: Each must be refused, wherever a pickle is read, and nothing in it may happen.
PICKLES: dict[str, bytes] = {
    "REDUCE": pickle.dumps(Runs(os.system, "true"), 2),
    "REDUCE, protocol 0": pickle.dumps(Runs(os.system, "true"), 0),
    "REDUCE, protocol 4": pickle.dumps(Runs(os.system, "true"), 4),
    "eval": pickle.dumps(Runs(eval, "1/0"), 2),
    "GLOBAL": b"cos\nsystem\n.",
    "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
    "INST": b"(S'true'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'true'\no.",
    "NEWOBJ": b"\x80\x02cbuiltins\nlist\n)\x81.",
    "NEWOBJ_EX": b"\x80\x04cbuiltins\nlist\n)}\x92.",
    "EXT1": b"\x80\x02\x82\x01.",
    "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "PERSID": b"Pid\n.",
    "BINPERSID of a call": b"\x80\x02cos\nsystem\nQ.",
    "getattr": b"cbuiltins\ngetattr\n(cnumpy\nndarray\nS'__class__'\ntR.",
    "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x12dtype.__init__.__x\x93.",
    "NEXT_BUFFER": b"\x80\x05\x97.",
    "READONLY_BUFFER": b"\x80\x05\x97\x98.",
    "huge memo, as text": b"Np99999999999999999999\ng0\n.",
    "huge text": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "huge bytes": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b".",
    "huge bytearray": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",
    "huge number": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "number of 5,000 digits": b"L" + b"9" * 5000 + b"L\n.",
    "number that says it is negative in length": b"\x80\x02\x8b\xff\xff\xff\xff.",
    "frame": b"\x80\x04\x95" + b"\xff" * 8 + b"cos\nsystem\n.",
    "key that takes years to hash": _memo_of_tuples(60),
    "mark alone": b"(.",
    "nothing": b"",
    "no end": b"\x80\x02]",
    "protocol 255": b"\x80\xffN.",
}

#: Data alone, but more than a message or a walk can bear: 2^60 numbers, or lists in lists in lists.
LARGE_PICKLES: dict[str, bytes] = {
    "2^60 numbers": _lists_of_lists(60),
    "20,000 lists in each other": b"\x80\x02" + b"]" * 20_000 + b"a" * 19_999 + b".",
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "an integer of 100,000 bytes": b"\x80\x02\x8b" + struct.pack("<i", 100_000) + b"\x01" * 100_000 + b".",
}


def billion_laughs(levels: int = 12) -> str:
    """YAML of a few lines whose aliases stand for 10^levels texts."""
    lines = ["a0: &a0 ha"]
    lines += [f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]" for i in range(levels)]
    return "\n".join(lines) + "\n"


def merging_laughs(levels: int = 12) -> str:
    """YAML of a few lines that merge 10^levels mappings."""
    lines = ["a0: &a0 {lr: 1}"]
    lines += [f"a{i + 1}: &a{i + 1} {{<<: [{', '.join([f'*a{i}'] * 10)}]}}" for i in range(levels)]
    return "\n".join(lines) + "\n"


#: Each must be refused as settings.
YAMLS: dict[str, str] = {
    "object/apply": "lr: !!python/object/apply:os.system [true]\n",
    "object/new": "lr: !!python/object/new:os.system [true]\n",
    "name": "lr: !!python/name:os.system\n",
    "module": "lr: !!python/module:os\n",
    "tuple": "lr: !!python/tuple [1, 2]\n",
    "billion laughs": billion_laughs(),
    "merging laughs": merging_laughs(),
    "itself": "a: &a [*a]\n",
    "deep lists": "a: " + "[" * 20_000,
    "deep mappings": "a: " + "{b: " * 20_000,
    "number of 5,000 digits": f"steps: {'9' * 5000}\n",
    "no date": "steps: 2026-99-99\n",
    "no integer": "steps: !!int x\n",
    "empty integer": 'steps: !!int ""\n',
    "no float": "lr: !!float x\n",
    "no truth": "flip: !!bool x\n",
    "no timestamp": "lr: !!timestamp x\n",
    "list as a key": "? [1, 2]\n: 3\n",
    "mapping as a key": "? {a: 1}\n: 3\n",
    "no character": "lr: \x01\n",
    "two documents": "lr: 1\n---\nlr: 2\n",
    "list": "- 1\n- 2\n",
    "number alone": "3\n",
    "nothing": "",
    "long": "# " + "x" * 300_000,
}

#: Each must be refused as a line of stats.jsonl, or as any other JSON of an object.
JSONS: dict[str, bytes] = {
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"step":' * 100_000,
    "number of 5,000 digits": b'{"step": ' + b"9" * 5000 + b"}",
    "no UTF-8": b'{"step": "\xff"}',
    "half a surrogate": b'"\\ud800"',
    "a number": b"3",
    "NaN": b"NaN",
    "two": b"{} {}",
}
