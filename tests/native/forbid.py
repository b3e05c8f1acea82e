"""Runs a command on a system in which no memory can become executable later: seccomp fails such mprotect with EACCES.

V8 maps its memory writable and executable at once, which is still allowed; a kernel that forbids that, too (PR_SET_MDWE),
would not let Deno start. Exits with status 75 if the kernel does not support the filter. For x86-64 only.
"""

import ctypes
import os
import struct
import sys

LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # opcodes of classic BPF
ALLOW, FAIL = 0x7FFF0000, 0x00050000
MPROTECT, READ_EXECUTE, EACCES = 10, 5, 13
NUMBER, THIRD_ARGUMENT = 0, 32  # offsets in struct seccomp_data
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, MODE_FILTER = 38, 22, 2

steps = [  # code, jump if true, jump if false, operand
    (LOAD, 0, 0, NUMBER),
    (JUMP_IF_EQUAL, 0, 3, MPROTECT),
    (LOAD, 0, 0, THIRD_ARGUMENT),
    (JUMP_IF_EQUAL, 0, 1, READ_EXECUTE),
    (RETURN, 0, 0, FAIL | EACCES),
    (RETURN, 0, 0, ALLOW),
]


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]


code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = Program(len(steps), ctypes.addressof(code))
libc = ctypes.CDLL(None)
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(program), 0, 0):
    sys.exit(75)
os.execvp(sys.argv[1], sys.argv[1:])
