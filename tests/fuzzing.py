"""Shared code of the fuzz tests: monitored and limited cases, damaged files, unusual values."""

import contextlib
import copy
import json
import math
import os
import resource
import signal
import sys
import warnings

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dcgan_jax.runtime.errors import UserError

SECONDS = 20  # Time limit of a case.
MEMORY = 2**31  # Limit of the address space that a case may add, in bytes.
STATM = '/proc/self/statm'


def fuzz(check, cases, **strategies):
    """Call `check` with drawn arguments, which are the same in every run of the tests."""
    profile = settings(
        max_examples=max(1, round(cases)),
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )

    def case(**arguments):
        check(**arguments)

    profile(given(**strategies)(case))()


class Hang(BaseException):
    """A case exceeds its time limit.

    It is no `TimeoutError`, which is an `OSError` that code may report as a user error.
    """


class Watch:
    """Audit hook that records forbidden writes, executions, unpickling and network access.

    Attributes:
        folders: Folders that may be written to; None while no case runs.
        wrong: Forbidden events that occurred.
    """

    WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    CHANGES = ('os.mkdir', 'os.remove', 'os.rename', 'os.rmdir', 'os.symlink', 'os.link')
    NEVER = (
        *('pickle.find_class', 'os.system', 'os.exec', 'subprocess.Popen'),
        *('socket.connect', 'socket.getaddrinfo', 'socket.sendto', 'socket.bind'),
    )

    def __init__(self):
        self.folders, self.wrong = None, []
        sys.addaudithook(self._audit)

    def _audit(self, event, arguments):
        if self.folders is None:
            return
        if event in self.NEVER:
            self.wrong.append((event, *map(repr, arguments)))
        elif event in self.CHANGES or (event == 'open' and arguments[2] & self.WRITING):
            paths = arguments[: 2 if event in ('os.rename', 'os.link') else 1]
            for path in paths:
                if isinstance(path, (str, bytes, os.PathLike)):  # Not a file descriptor.
                    path = os.path.realpath(os.fsdecode(path))
                    inside = any(os.path.commonpath([path, one]) == one for one in self.folders)
                    if not inside and path != os.devnull:
                        self.wrong.append((event, path))


_WATCH = Watch()


@contextlib.contextmanager
def guarded(folder):
    """Limit the time and memory of the block, and fail if it writes elsewhere or runs its input."""

    def hang(*_):
        raise Hang(f'not finished after {SECONDS} s')

    before = signal.signal(signal.SIGALRM, hang)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    if os.path.exists(STATM):
        with open(STATM) as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, limits[1]))
    folders = (folder, os.environ['JAX_COMPILATION_CACHE_DIR'])
    _WATCH.folders, _WATCH.wrong = [os.path.realpath(one) for one in folders], []
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # Decoders warn about data that they ignore.
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        _WATCH.folders = None
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert not _WATCH.wrong, _WATCH.wrong


def user_error_message(function, *arguments, folder):
    """Return the message of the UserError that a call raises, or None if it raises none."""
    user_error = None
    with guarded(folder):
        try:
            function(*arguments)
        except UserError as error:
            user_error = error
    if user_error is None:
        return None
    # A MemoryError shows that memory was allocated according to a header instead of the content.
    assert not isinstance(user_error.__cause__, MemoryError)
    assert str(user_error).strip()
    return str(user_error)


def is_convertible(number):
    """Return whether a number is small enough for Python's conversion from and to strings."""
    return not isinstance(number, int) or abs(number) < 10**1000


HUGE = (2**31, 2**32 - 1, 2**63, -(2**63) - 1, 10**30, 10**400)
INTEGERS = st.one_of(st.integers(-4, 70), st.integers(), st.sampled_from(HUGE))
FLOATS = st.one_of(st.floats(), st.sampled_from([math.inf, -math.inf, math.nan, 1e-320, 1e308]))
TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        [
            *('', ' ', 'a\nb', '\0', '\udcff', '%s{0}', 'None', '-1', '1e999', '1' * 5000),
            *('()', "('a',)", '[1,', '{}', '(' * 500, 'train[:1]', 'train[5%:', 'a+b'),
            *('~no-such-user/x', 'x' * 300, 'a/../../b', '..', 'gs://b/x', 's3://b', 'ftp://h/x'),
        ]
    ),
)


@st.composite
def damaged(draw, *contents):
    """Draw one of the contents, with bytes flipped, set, removed, inserted, or spliced."""
    content, other = bytearray(draw(st.sampled_from(contents))), draw(st.sampled_from(contents))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(content) - 1)))
        end = min(len(content), start + draw(st.sampled_from([1, 2, 4, 8, 64, 10**9])))
        kind = draw(st.sampled_from(['flip', 'flip', 'set', 'cut', 'insert', 'splice']))
        if kind == 'flip' and content:
            content[min(start, len(content) - 1)] ^= 1 << draw(st.integers(0, 7))
        elif kind == 'set':
            end = min(end, start + 8)
            content[start:end] = draw(st.sampled_from([b'\0', b'\xff', b'\x7f'])) * (end - start)
        elif kind == 'cut':
            del content[start:end]
        elif kind == 'insert':
            content[start:start] = draw(st.binary(max_size=16))
        else:
            content[start:end] = other[draw(st.integers(0, len(other))) :]
    return bytes(content)


# JSON texts that `json.dumps` does not write.
RAW = {
    'nested lists': '[' * 100_000 + ']' * 100_000,
    'nested dicts': '{"a":' * 100_000 + '1' + '}' * 100_000,
    '5,000 digits': '1' * 5000,
    '1e999': '1e999',
    'nothing': '',
    'no UTF-8': '"\xff"',
}


class Raw(str):
    """Name of one of `RAW`, in place of its text, so that failures are readable."""


JSON = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), INTEGERS.filter(is_convertible), FLOATS, TEXTS),
        st.sampled_from([Raw(name) for name in RAW]),
    ),
    lambda children: st.one_of(
        st.lists(children, max_size=3), st.dictionaries(TEXTS, children, max_size=3)
    ),
    max_leaves=4,
)


def dumped(tree):
    """Return the JSON file of a tree in which `Raw` leaves are replaced by their texts."""
    raw = []

    def mark(node):
        if isinstance(node, Raw):
            raw.append(RAW[node])
            return f'@raw{len(raw) - 1}@'
        if isinstance(node, dict):
            return {key: mark(value) for key, value in node.items()}
        return [mark(value) for value in node] if isinstance(node, list) else node

    text = json.dumps(mark(tree))
    for index, words in enumerate(raw):
        text = text.replace(f'"@raw{index}@"', words)
    return text.encode('latin-1')


@st.composite
def changed(draw, tree):
    """Draw a copy of a JSON tree in which some nodes are replaced, removed or added."""
    tree = {'': copy.deepcopy(tree)}  # The root can be replaced too.
    for _ in range(draw(st.integers(1, 3))):
        holder, key = tree, ''
        for _ in range(draw(st.integers(0, 4))):
            node = holder[key]
            if not node or not isinstance(node, (dict, list)):
                break
            names = sorted(node) if isinstance(node, dict) else range(len(node))
            holder, key = node, draw(st.sampled_from(names))
        kind = draw(st.sampled_from(['replace', 'replace', 'replace', 'remove', 'add']))
        if kind == 'remove' and holder is not tree:
            del holder[key]
        elif kind == 'add' and isinstance(holder[key], dict):
            holder[key][draw(TEXTS)] = draw(JSON)
        elif kind == 'add' and isinstance(holder[key], list):
            holder[key].append(draw(JSON))
        else:
            holder[key] = draw(JSON)
    return tree['']
