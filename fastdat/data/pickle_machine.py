"""An interpreter of the pickle format that knows only the instructions that make data.

It imports nothing and calls nothing: an imported name becomes a :class:`Name`, a call a :class:`Call` that records its
arguments. Unlike Python's own interpreter it uses memory and time in proportion to the size of the pickle: a memo
with the number 4 billion costs nothing, and only texts and numbers may be the keys of a dict. (Tuples that contain each
other twice, forty levels deep, take a trillion steps to hash; all multiples of 2^61 - 1 have the same hash.)

The instructions are those of the standard library's ``pickletools``, whose documentation defines them.
"""

from __future__ import annotations

import codecs
import pickletools
import struct
from collections.abc import Callable, Container
from typing import Any, NoReturn


class PickleError(ValueError):
    """The bytes are no pickle, a damaged one, or one that holds more than data."""


class ForeignNameError(PickleError):
    """It refers to a name that is not allowed, ``name``, and might call it."""

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message)
        self.name = name


class Call:
    """The call ``name(*args)``, recorded but not executed, and the state that the pickle sets on its result."""

    __slots__ = ("args", "name", "state")

    def __init__(self, name: str, args: tuple[Any, ...]) -> None:
        self.name = name
        self.args = args
        self.state: Any = None


class Name:
    """An imported name, which nobody looked up."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name


class Reference:
    """A persistent id: something that lies outside of the pickle, such as the numbers of one of torch's tensors."""

    __slots__ = ("key",)

    def __init__(self, key: Any) -> None:
        self.key = key


_MARK = object()
_ORDERED_DICT = ("collections", "OrderedDict")
_KEY_TYPES = (str, bytes, int, float, bool, type(None))  # hashed in time proportional to their size
LOWEST_INTEGER, HIGHEST_INTEGER = -(1 << 63), (1 << 64) - 1
"""Of a key, and of torch's numbers."""
_HIGHEST_PROTOCOL = 5


class Machine:
    """Reads one pickle.

    Args:
        raw: the pickle; bytes after its end are not looked at.
        allowed: the names that it may refer to, as (module, name). ``collections.OrderedDict`` becomes a dict.
        references: whether it may have persistent ids.
        purpose: what the pickle is for, as the end of "which no ... needs".
        start: where in ``raw`` it begins.
    """

    def __init__(
        self,
        raw: bytes,
        allowed: Container[tuple[str, str]],
        *,
        references: bool = False,
        purpose: str = "image data",
        start: int = 0,
    ) -> None:
        self._raw, self._allowed, self._references, self._purpose = raw, allowed, references, purpose
        self._at = start
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self.made: list[Any] = []
        """Every call, every reference and every state that is set on a dict, also those that the result is without."""

    @property
    def end(self) -> int:
        """How far ``raw`` was read."""
        return self._at

    def run(self) -> Any:
        """What the pickle describes: dicts, lists, tuples, texts, numbers, :class:`Call`, :class:`Name`.

        Raises:
            PickleError: the bytes are no such pickle; the message completes "FILE is damaged: ".
        """
        try:
            while True:
                code = self._take(1)[0]
                if code == _STOP:
                    return self._pop()
                operation = _OPERATIONS.get(code)
                if operation is None:
                    self._refuse(code)
                operation(self)
        except PickleError:
            raise
        except (ValueError, OverflowError, struct.error) as error:  # text that is no number, or not UTF-8
            raise PickleError(f"{error} before byte {self._at}") from error

    def _refuse(self, code: int) -> NoReturn:
        names = [known.name for known in pickletools.opcodes if known.code == chr(code)]
        if not names:
            raise PickleError(f"byte {self._at - 1} is no instruction of a pickle")
        raise PickleError(f"it has the instruction {names[0]}, which no {self._purpose} needs")

    # --- bytes of the pickle ------------------------------------------------------------------------------------

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if size < 0 or end > len(self._raw):
            raise PickleError(f"it ends within an instruction: {size} bytes were to follow byte {self._at}")
        taken = self._raw[self._at : end]
        self._at = end
        return taken

    def _sized(self, width: int) -> bytes:
        """Bytes that follow their own number, which has ``width`` bytes."""
        return self._take(int.from_bytes(self._take(width), "little"))

    def _line(self) -> bytes:
        end = self._raw.find(b"\n", self._at)
        if end < 0:
            raise PickleError(f"it ends within an instruction: a line was to follow byte {self._at}")
        return self._take(end + 1 - self._at)[:-1]

    # --- stack and memo -----------------------------------------------------------------------------------------

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self._stack.append(value)

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise PickleError(f"a value is missing before byte {self._at}")
        return self._stack.pop()

    def _top(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise PickleError(f"a value is missing before byte {self._at}")
        return self._stack[-1]

    def _pop_to_mark(self) -> list[Any]:
        values: list[Any] = []
        while self._stack:
            value = self._stack.pop()
            if value is _MARK:
                return values[::-1]
            values.append(value)
        raise PickleError(f"a mark is missing before byte {self._at}")

    def _put(self, index: int) -> None:
        self._memo[index] = self._top()

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise PickleError(f"it refers to an object {index} that it does not have")
        self._stack.append(self._memo[index])

    # --- what instructions do -----------------------------------------------------------------------------------

    def _mark(self) -> None:
        self._stack.append(_MARK)

    def _protocol(self) -> None:
        protocol = self._take(1)[0]
        if protocol > _HIGHEST_PROTOCOL:
            raise PickleError(f"it has protocol {protocol}; expected {_HIGHEST_PROTOCOL} at most")

    def _frame(self) -> None:
        self._take(8)  # its length, which matters to readers of streams only

    def _discard_to_mark(self) -> None:
        self._pop_to_mark()

    def _discard(self) -> None:
        if not self._stack:
            raise PickleError(f"a value is missing before byte {self._at}")
        self._stack.pop()

    def _integer_line(self) -> None:
        line = self._line()
        truth = {b"00": False, b"01": True}.get(line)
        self._stack.append(int(line) if truth is None else truth)

    def _string_line(self) -> None:
        line = self._line()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in b"\"'":
            raise PickleError(f"a text before byte {self._at} has no quotes")
        self._stack.append(codecs.escape_decode(line[1:-1])[0])

    def _append(self, values: list[Any]) -> None:
        target = self._top()
        if type(target) is not list:
            raise PickleError(f"it appends to a {_kind(target)}")
        target.extend(values)

    def _set(self, values: list[Any]) -> None:
        target = self._top()
        if type(target) is not dict:
            raise PickleError(f"it sets an entry of a {_kind(target)}")
        target.update(_entries(values))

    def _global(self, module: str, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise PickleError("it refers to a name that is no text")
        if (module, name) not in self._allowed:
            foreign = f"{module[:100]}.{name[:100]}"
            raise ForeignNameError(f"it refers to {foreign}, which no {self._purpose} needs", foreign)
        self._stack.append(Name(module, name))

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if type(function) is not Name or type(arguments) is not tuple:
            raise PickleError(f"it calls a {_kind(function)} with a {_kind(arguments)}")
        if (function.module, function.name) == _ORDERED_DICT:
            self._stack.append(_entries(_pairs(arguments)))
            return
        call = Call(function.name, arguments)
        self.made.append(call)
        self._stack.append(call)

    def _build(self) -> None:
        state, target = self._pop(), self._top()
        if type(target) is Name:
            raise PickleError(f"the pickle tries to change {target.name}")
        if type(target) is Call:
            target.state = state
        elif type(target) is not dict or not self._references:  # a state_dict has attributes: its versions
            raise PickleError(f"it sets the state of a {_kind(target)}")
        else:
            self.made.append(state)

    def _reference(self) -> None:
        if not self._references:
            raise PickleError("it refers to objects outside itself")
        reference = Reference(self._pop())
        self.made.append(reference)
        self._stack.append(reference)


def _kind(value: Any) -> str:
    return type(value).__name__


def _entries(values: list[Any]) -> dict[Any, Any]:
    """Keys and values in turn, as a dict."""
    keys = values[::2]
    if len(values) % 2:
        raise PickleError("a key has no value")
    for key in keys:
        if type(key) not in _KEY_TYPES:
            raise PickleError(f"a {_kind(key)} is the key of an entry; expected a text or a number")
        if type(key) is int and not LOWEST_INTEGER <= key <= HIGHEST_INTEGER:
            raise PickleError(
                f"a number of {key.bit_length():,} bits is the key of an entry; expected 64 at most"
            )
    return dict(zip(keys, values[1::2], strict=True))


def _pairs(arguments: tuple[Any, ...]) -> list[Any]:
    """Keys and values in turn of ``OrderedDict(*arguments)``: of no argument, or of a list of pairs (Python 2)."""
    pairs = arguments[0] if arguments else []
    if len(arguments) > 1 or type(pairs) is not list:
        raise PickleError("it makes an OrderedDict of something that is no list of pairs")
    if not all(type(pair) in (list, tuple) and len(pair) == 2 for pair in pairs):
        raise PickleError("it makes an OrderedDict of something that is no list of pairs")
    return [item for pair in pairs for item in pair]


def _utf8(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogatepass")


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, "little", signed=True)


def _unsigned(raw: bytes) -> int:
    return int.from_bytes(raw, "little")


def _decimal(line: bytes) -> int:
    """The number of an object in the memo, as text."""
    number = int(line)
    if number < 0:
        raise PickleError(f"it refers to an object {number}")
    return number


def _pushes(value: Callable[[Machine], Any]) -> Callable[[Machine], None]:
    return lambda machine: machine.push(value(machine))


_Operation = Callable[[Machine], None]
_STOP = ord(".")
_OPERATIONS: dict[int, _Operation] = {
    **{
        code: _pushes(value)
        for code, value in {
            ord("N"): lambda m: None,
            0x88: lambda m: True,
            0x89: lambda m: False,
            ord("J"): lambda m: _number(m._take(4)),
            ord("K"): lambda m: m._take(1)[0],
            ord("M"): lambda m: _unsigned(m._take(2)),
            ord("L"): lambda m: int(m._line().removesuffix(b"L")),
            0x8A: lambda m: _number(m._sized(1)),
            0x8B: lambda m: _number(m._sized(4)),
            ord("F"): lambda m: float(m._line()),
            ord("G"): lambda m: struct.unpack(">d", m._take(8))[0],
            ord("T"): lambda m: m._sized(4),
            ord("U"): lambda m: m._sized(1),
            ord("B"): lambda m: m._sized(4),
            ord("C"): lambda m: m._sized(1),
            0x8E: lambda m: m._sized(8),
            0x96: lambda m: bytearray(m._sized(8)),
            ord("V"): lambda m: m._line().decode("raw-unicode-escape"),
            ord("X"): lambda m: _utf8(m._sized(4)),
            0x8C: lambda m: _utf8(m._sized(1)),
            0x8D: lambda m: _utf8(m._sized(8)),
            ord("]"): lambda m: [],
            ord("}"): lambda m: {},
            ord(")"): lambda m: (),
            ord("l"): lambda m: m._pop_to_mark(),
            ord("t"): lambda m: tuple(m._pop_to_mark()),
            ord("d"): lambda m: _entries(m._pop_to_mark()),
            0x85: lambda m: (m._pop(),),
            0x86: lambda m: (m._pop(), m._pop())[::-1],
            0x87: lambda m: (m._pop(), m._pop(), m._pop())[::-1],
            ord("2"): lambda m: m._top(),
        }.items()
    },
    ord("("): Machine._mark,
    ord("0"): Machine._discard,
    ord("1"): Machine._discard_to_mark,
    0x80: Machine._protocol,
    0x95: Machine._frame,
    ord("I"): Machine._integer_line,
    ord("S"): Machine._string_line,
    ord("a"): lambda m: m._append([m._pop()]),
    ord("e"): lambda m: m._append(m._pop_to_mark()),
    ord("s"): lambda m: m._set([m._pop(), m._pop()][::-1]),
    ord("u"): lambda m: m._set(m._pop_to_mark()),
    ord("p"): lambda m: m._put(_decimal(m._line())),
    ord("q"): lambda m: m._put(m._take(1)[0]),
    ord("r"): lambda m: m._put(_unsigned(m._take(4))),
    0x94: lambda m: m._put(len(m._memo)),
    ord("g"): lambda m: m._get(_decimal(m._line())),
    ord("h"): lambda m: m._get(m._take(1)[0]),
    ord("j"): lambda m: m._get(_unsigned(m._take(4))),
    ord("c"): lambda m: m._global(_utf8(m._line()), _utf8(m._line())),
    0x93: lambda m: m._global(*(m._pop(), m._pop())[::-1]),
    ord("R"): Machine._reduce,
    ord("b"): Machine._build,
    ord("Q"): Machine._reference,
}
