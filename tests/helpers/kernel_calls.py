"""Writes calls of the C kernels to a file, with their memory before and after, for replay.c.

    python tests/helpers/kernel_calls.py FOLDER COUNT

takes those of COUNT random inputs of fuzz_kernels.py.
"""

import ctypes
import pickle
import struct
import sys
import types
from collections import deque
from pathlib import Path

import torch

if __name__ == '__main__':  # `mmsnn.ops` alone, for the stack takes longer to import than to test
    ROOT = Path(__file__).resolve().parents[2]
    parent = types.ModuleType('mmsnn')
    parent.__path__ = [str(ROOT / 'mmsnn')]
    sys.modules['mmsnn'] = parent

from mmsnn.ops.backends.c import calls

#: What only x86 has, and what computes nothing.
LEFT_OUT = ('mmsnn_conv_lif', 'mmsnn_has_dot_products', 'mmsnn_code', 'mmsnn_source')


def numbers(*values):
    return struct.pack(f'<{len(values)}q', *values)


class Memory:
    """The stretches of memory that a call refers to, each once."""

    def __init__(self, storages):
        self.storages = storages
        self.places = {}  # first address to (number, bytes, dtype)

    def add(self, address, size, dtype=torch.uint8):
        number = self.places.setdefault(address, (len(self.places), size, dtype))[0]
        return number, 0

    def find(self, address):
        """Number of the stretch that holds an address, and where in it."""
        for storage, dtype in reversed(self.storages):
            first, size = storage.data_ptr(), storage.nbytes()
            if first <= address < first + size or (not size and first == address):
                return self.add(first, size, dtype)[0], address - first
        raise LookupError(f'{address:#x} is of no tensor that calls.py took an address of')

    def bytes(self):
        return [ctypes.string_at(first, size) for first, (_, size, _) in self.places.items()]


class Recorder:
    """Stands before the library, and keeps what goes through."""

    def __init__(self, library):
        self.library = library
        # The latest: a call may be told an address that was taken for the one before.
        self.storages = deque(maxlen=64)
        self.written = []  # each call as replay.c reads it
        self.after = []  # (name, what it gave, [(bytes, dtype)]) of each

    def pointer(self, tensor, *args):
        address = _POINTER(tensor, *args)
        if tensor is not None:
            self.storages.append((tensor.untyped_storage(), tensor.dtype))
        return address

    def __getattr__(self, name):
        function = getattr(self.library, name)
        if name in LEFT_OUT:
            return function
        return lambda *args: self.record(name.removeprefix('mmsnn_'), function, args)

    def record(self, name, function, args):
        memory, pointers, given, kept = Memory(self.storages), [], [], []
        for arg, kind in zip(args, function.argtypes):
            if isinstance(arg, (ctypes.Structure, ctypes.Array)):
                # A copy, for the addresses in it are this process's.
                own = type(arg).from_buffer_copy(arg)
                kept.append(own)
                number, _ = memory.add(ctypes.addressof(own), ctypes.sizeof(own))
                for at, address in addresses(own):
                    pointers.append((number, at, *memory.find(address)))
                    ctypes.c_void_p.from_address(ctypes.addressof(own) + at).value = None
                given.append((ord('p'), number, 0))
            elif kind is ctypes.c_void_p:
                given.append((ord('p'), *memory.find(arg)))
            elif kind is ctypes.c_float:
                given.append((ord('f'), *struct.unpack('<q', struct.pack('<d', arg)), 0))
            else:
                given.append((ord('i'), int(arg), 0))
        parts = [numbers(len(name)), name.encode(), numbers(len(memory.places))]
        for content in memory.bytes():
            parts += [numbers(len(content)), content]
        parts.append(numbers(len(pointers), *(v for p in pointers for v in p)))
        parts.append(numbers(len(given), *(v for g in given for v in g)))
        done = function(*args)
        dtypes = [dtype for _, _, dtype in memory.places.values()]
        structs = [ctypes.addressof(own) for own in kept]
        after = [
            (None if first in structs else content, dtype)
            for first, content, dtype in zip(memory.places, memory.bytes(), dtypes)
        ]
        self.written.append(b''.join(parts))
        self.after.append((name, done, after, [len(content) for content in memory.bytes()]))
        return done


def addresses(value, at=0):
    """Where a struct has addresses that aren't NULL, and which."""
    for name, kind in getattr(value, '_fields_', ()):
        offset = at + getattr(type(value), name).offset
        field = getattr(value, name)
        if isinstance(field, ctypes.Structure):
            yield from addresses(field, offset)
        elif kind is ctypes.c_void_p and field:
            yield offset, field


_POINTER = calls._pointer


def main(folder, count):
    import fuzz_kernels

    torch.set_num_threads(1)
    recorder = Recorder(calls.load())
    calls._pointer = recorder.pointer
    calls.load = lambda: recorder
    wrong = fuzz_kernels.main(int(count), threads=1)
    written = b''.join([numbers(len(recorder.written)), *recorder.written])
    Path(folder, 'calls').write_bytes(written)
    Path(folder, 'after').write_bytes(pickle.dumps(recorder.after))
    return wrong > 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
