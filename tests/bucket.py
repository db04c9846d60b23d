"""A local server that implements the part of Google Cloud Storage's JSON API that runs use."""

import contextlib
import http.server
import itertools
import json
import re
import sys
import threading
import urllib.parse
from typing import NamedTuple

NAME = 'bucket'


class Object(NamedTuple):
    """Content of an object and its generation number, which is unique per change."""

    content: bytes
    generation: int


class Server(http.server.ThreadingHTTPServer):
    """HTTP server of one bucket.

    Attributes:
        objects: Objects by name.
        lock: Lock that is held during each request.
        generations: Iterator over the generation numbers of changes and the ids of uploads.
        uploads: (object name, content received so far) of resumable uploads by id.
    """

    daemon_threads = True
    request_queue_size = 128  # TensorStore opens many connections at once.

    def __init__(self):
        super().__init__(('127.0.0.1', 0), _Handler)
        self.objects: dict[str, Object] = {}
        self.lock = threading.Lock()
        self.generations = itertools.count(1)
        self.uploads: dict[str, tuple[str, bytes]] = {}

    def handle_error(self, request, client_address):
        """Do not report connections that are closed by the client."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """Address of the server."""
        return f'http://127.0.0.1:{self.server_address[1]}'

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables that make gcsfs and TensorStore use this server."""
        return {'STORAGE_EMULATOR_HOST': self.url, 'TENSORSTORE_GCS_HTTP_URL': self.url,
                'GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT': 'false'}  # fmt: skip


@contextlib.contextmanager
def served():
    """Run a server within the block."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True  # Otherwise each response takes 40 ms.

    def log_message(self, *arguments):
        """Do not log requests."""

    def do_GET(self):
        self._answer('GET')

    def do_POST(self):
        self._answer('POST')

    def do_PUT(self):
        self._answer('PUT')

    def do_DELETE(self):
        self._answer('DELETE')

    def _answer(self, method):
        body = self._body()
        parts = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        with self.server.lock:
            status, headers, content = self._route(method, parts.path, query, body)
        if not isinstance(content, bytes):
            content, headers = json.dumps(content).encode(), {
                **headers, 'Content-Type': 'application/json',
            }  # fmt: skip
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header('Content-Length', len(content))
        self.end_headers()
        self.wfile.write(content)

    def _body(self):
        if self.headers.get('Transfer-Encoding') != 'chunked':
            return self.rfile.read(int(self.headers.get('Content-Length', 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b''.join(parts)

    def _route(self, method, path, query, body):
        if path == '/batch/storage/v1':
            return self._batch(body)
        if path == f'/storage/v1/b/{NAME}':
            return 200, {}, {'kind': 'storage#bucket', 'name': NAME}
        found = re.fullmatch(r'(?:/(upload|download))?/storage/v1/b/([^/]*)/o(?:/(.*))?', path)
        if not found or found[2] != NAME:
            return 404, {}, {'error': {'message': path}}
        name = found[3]
        if found[1] == 'upload':
            return self._upload(query, body)
        if name is None:
            return self._list(query)
        if method == 'POST':
            source, verb, target = re.fullmatch(
                rf'(.*)/(copyTo|rewriteTo|moveTo)/(?:b/{NAME}/)?o/(.*)', name
            ).groups()
            source, target = map(urllib.parse.unquote, (source, target))
            if source not in self.server.objects:
                return 404, {}, {}
            content = self.server.objects[source].content
            if verb == 'moveTo':
                del self.server.objects[source]
            kept = self._store(target, content)
            return 200, {}, {'done': True, 'resource': kept} if verb == 'rewriteTo' else kept
        return self._object(method, urllib.parse.unquote(name), query)

    def _object(self, method, name, query):
        """Read or delete an object."""
        known = self.server.objects.get(name)
        failed_status = self._precondition(known, query)
        if known is None or failed_status:
            return failed_status or 404, {}, b''  # A 304 must not have a body.
        if method == 'DELETE':
            del self.server.objects[name]
            return 204, {}, b''
        if query.get('alt') != 'media':
            return 200, {}, _resource(name, known)
        headers = {'x-goog-generation': known.generation}
        byte_range = re.fullmatch(r'bytes=(\d*)-(\d*)', self.headers.get('Range', ''))
        if not byte_range:
            return 200, headers, known.content
        size = len(known.content)
        start = int(byte_range[1]) if byte_range[1] else size - int(byte_range[2])
        end = min(int(byte_range[2]) + 1 if byte_range[1] and byte_range[2] else size, size)
        if start >= size:
            return 416, {'Content-Range': f'bytes */{size}'}, b''
        headers['Content-Range'] = f'bytes {start}-{end - 1}/{size}'
        return 206, headers, known.content[start:end]

    def _list(self, query):
        prefix, delimiter = query.get('prefix', ''), query.get('delimiter')
        names = sorted(name for name in self.server.objects if name.startswith(prefix))
        names = [name for name in names if name >= query.get('startOffset', '')]
        if 'endOffset' in query:
            names = [name for name in names if name < query['endOffset']]
        items, prefixes = [], []
        for name in names:
            head, found, _ = name[len(prefix) :].partition(delimiter or '\n')
            if found:
                prefixes.append(prefix + head + found)
            else:
                items.append(_resource(name, self.server.objects[name]))
        return 200, {}, {'items': items, 'prefixes': sorted(set(prefixes))}

    def _upload(self, query, body):
        kind = query['uploadType']
        if kind == 'resumable' and 'upload_id' not in query:
            name = query.get('name') or json.loads(body)['name']
            number = str(next(self.server.generations))
            self.server.uploads[number] = (name, b'')
            where = f'{self.server.url}/upload/storage/v1/b/{NAME}/o?uploadType=resumable'
            return 200, {'Location': f'{where}&upload_id={number}'}, b''
        if kind == 'resumable':
            name, before = self.server.uploads[query['upload_id']]
            content = before + body
            self.server.uploads[query['upload_id']] = (name, content)
            if self.headers['Content-Range'].endswith('/*'):
                return 308, {'Range': f'bytes=0-{len(content) - 1}'}, b''
        elif kind == 'multipart':
            described, content = _multipart(self.headers['Content-Type'], body)
            name = json.loads(described)['name']
        else:
            name, content = query['name'], body
        failed_status = self._precondition(self.server.objects.get(name), query)
        return (failed_status, {}, {}) if failed_status else (200, {}, self._store(name, content))

    def _batch(self, body):
        """Perform the deletions of a batch request."""
        answers = []
        for part in _multipart(self.headers['Content-Type'], body):
            method, path, _ = part.decode().split(maxsplit=2)
            inner = urllib.parse.urlsplit(path)
            query = dict(urllib.parse.parse_qsl(inner.query))
            status, _, _ = self._route(method, inner.path, query, b'')
            answers.append(
                f'--x\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 {status} x\r\n\r\n\r\n'
            )
        content = ''.join([*answers, '--x--\r\n']).encode()
        return 200, {'Content-Type': 'multipart/mixed; boundary=x'}, content

    def _precondition(self, known, query):
        """Return the status of a failed precondition, or 0."""
        generation = known.generation if known else 0
        if int(query.get('ifGenerationMatch', generation)) != generation:
            return 412
        return 304 if query.get('ifGenerationNotMatch') == str(generation) and known else 0

    def _store(self, name, content):
        kept = Object(content, next(self.server.generations))
        self.server.objects[name] = kept
        return _resource(name, kept)


def _multipart(kind, body):
    boundary = re.search('boundary="?([^";]*)', kind)[1].encode()
    first, *parts, _ = body.split(b'--' + boundary)
    assert not first.strip()
    end = b'\r\n' if parts[0].startswith(b'\r\n') else b'\n'  # gcsfs sends '\n'.
    return [part.partition(2 * end)[2].removesuffix(end) for part in parts]


def _resource(name, known):
    return {
        'kind': 'storage#object', 'bucket': NAME, 'name': name, 'size': str(len(known.content)),
        'generation': str(known.generation), 'timeCreated': '2026-01-01T00:00:00.000Z',
        'updated': '2026-01-01T00:00:00.000Z', 'contentType': 'application/octet-stream',
    }  # fmt: skip
