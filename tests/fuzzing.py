"""What fuzz tests share: cases that are watched and bounded, damaged files, wild values."""

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

SECONDS = 20  # of a case: more is a hang
MEMORY = 2**31  # bytes of address space that a case may take
STATM = '/proc/self/statm'


def fuzz(check, cases, **strategies):
    """Calls `check` with drawn arguments, the same ones in every run of the tests."""
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
    """No TimeoutError: that is an OSError, which code may take for the user's mistake."""


class Watch:
    """Hears Python's audit events, which can't be hushed: what a case writes, runs and unpickles.

    Attributes:
        folders: that may be written in; None while no case runs.
        wrong: what happened and must not.
    """

    WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    CHANGES = ('os.mkdir', 'os.remove', 'os.rename', 'os.rmdir', 'os.symlink', 'os.link')
    NEVER = (
        *('pickle.find_class', 'os.system', 'os.exec', 'subprocess.Popen'),
        *('socket.connect', 'socket.getaddrinfo', 'socket.sendto', 'socket.bind'),
    )

    def __init__(self):
        self.folders, self.wrong = None, []
        sys.addaudithook(self._hear)

    def _hear(self, event, arguments):
        if self.folders is None:
            return
        if event in self.NEVER:
            self.wrong.append((event, *map(repr, arguments)))
        elif event in self.CHANGES or (event == 'open' and arguments[2] & self.WRITING):
            paths = arguments[: 2 if event in ('os.rename', 'os.link') else 1]
            for path in paths:
                if isinstance(path, (str, bytes, os.PathLike)):  # Else a file that is open.
                    path = os.path.realpath(os.fsdecode(path))
                    inside = any(os.path.commonpath([path, one]) == one for one in self.folders)
                    if not inside and path != os.devnull:
                        self.wrong.append((event, path))


_WATCH = Watch()


@contextlib.contextmanager
def guarded(folder):
    """A case: ends in time, takes little memory, writes only in `folder`, runs nothing it read."""

    def hang(*_):
        raise Hang(f'not done after {SECONDS} s')

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
            warnings.simplefilter('ignore')  # As for users: decoders warn of what they pass over.
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        _WATCH.folders = None
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert not _WATCH.wrong, _WATCH.wrong


def refusal(function, *arguments, folder):
    """The message of the UserError that a call raised, or None where it worked."""
    refused = None
    with guarded(folder):
        try:
            function(*arguments)
        except UserError as error:
            refused = error
    if refused is None:
        return None
    # What ran out of memory had taken what a file said, not what it held.
    assert not isinstance(refused.__cause__, MemoryError)
    assert str(refused).strip()
    return str(refused)


def size_of(number):
    """Whether Python turns an integer into digits, and back."""
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
    """One of some files, cut, changed, and spliced with another."""
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


# What `json.dumps` would not write.
RAW = {
    'nested lists': '[' * 100_000 + ']' * 100_000,
    'nested dicts': '{"a":' * 100_000 + '1' + '}' * 100_000,
    '5,000 digits': '1' * 5000,
    '1e999': '1e999',
    'nothing': '',
    'no UTF-8': '"\xff"',
}


class Raw(str):
    """Stands for one of `RAW`, by name, so that failures can be read."""


JSON = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), INTEGERS.filter(size_of), FLOATS, TEXTS),
        st.sampled_from([Raw(name) for name in RAW]),
    ),
    lambda children: st.one_of(
        st.lists(children, max_size=3), st.dictionaries(TEXTS, children, max_size=3)
    ),
    max_leaves=4,
)


def dumped(tree):
    """A tree with `Raw` leaves as the bytes of a JSON file."""
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
    """A JSON tree some of whose nodes are replaced, taken out or added to."""
    tree = {'': copy.deepcopy(tree)}  # so that the root can be replaced too
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
