"""What stands in for a MongoDB server: its protocol on a socket, and mongomock behind it, one command at a time.

pymongo itself, and several processes, can be tested on it, and so can what happens when a server fails.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

import bson
import mongomock
from pymongo.errors import PyMongoError

from tests.servers import HOST

_HEADER = struct.Struct("<iiii")
_QUERY, _REPLY, _MESSAGE = 2004, 1, 2013

HELLO = {
    "ok": 1,
    "ismaster": True,
    "isWritablePrimary": True,
    "helloOk": True,
    "minWireVersion": 0,
    "maxWireVersion": 21,
    "maxBsonObjectSize": 16 * 2**20,
    "maxMessageSizeBytes": 48_000_000,
    "maxWriteBatchSize": 100_000,
}

Trouble = Callable[[bytes], bytes | None]
"""Given the bytes of an answer, returns what is sent instead, before hanging up; None: nothing, and nobody hangs up."""


class Mongod:
    """A server in threads of this process. `trouble` comes over every command but hello; over that, too, if `rude`."""

    def __init__(self, trouble: Trouble | None = None, *, rude: bool = False) -> None:
        self.trouble = trouble
        self.rude = rude
        self.client = mongomock.MongoClient()
        self._mutex = threading.Lock()
        self._over = threading.Event()
        self._connections: list[socket.socket] = []
        self._listening = socket.create_server((HOST, 0))
        self.url = f"mongodb://{HOST}:{self._listening.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Mongod:
        self._threads[0].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        # a socket that is only closed goes on waiting
        for each in [self._listening, *self._connections]:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listening.close()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._connections.append(connection)
            self._threads.append(threading.Thread(target=self._serve, args=[connection]))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError, EOFError):
            while True:
                length, number, _, kind = _HEADER.unpack(_receive(connection, _HEADER.size))
                body = _receive(connection, length - _HEADER.size)
                command = _message(body) if kind == _MESSAGE else _query(body)
                is_hello = next(iter(command)).lower() in ("hello", "ismaster")
                found = bson.encode(HELLO if is_hello else self._answer(command))
                head = struct.pack("<Ib", 0, 0) if kind == _MESSAGE else struct.pack("<iqii", 0, 0, 0, 1)
                answer_kind = _MESSAGE if kind == _MESSAGE else _REPLY
                answer = _HEADER.pack(_HEADER.size + len(head) + len(found), 0, number, answer_kind) + head + found
                if self.trouble is None or (is_hello and not self.rude):
                    connection.sendall(answer)
                    continue
                instead = self.trouble(answer)
                if instead is None:
                    self._over.wait()
                else:
                    connection.sendall(instead)
                return

    def _answer(self, command: dict[str, Any]) -> dict[str, Any]:
        name = next(iter(command))
        try:
            with self._mutex:
                if name in ("find", "update", "delete", "findAndModify"):
                    documents = self.client[command["$db"]][command[name]]
                    found: dict[str, Any] = getattr(self, f"_{name}")(documents, command)
                    return {"ok": 1, **found}
        except PyMongoError as error:
            return {"ok": 0, "errmsg": str(error), "code": getattr(error, "code", None) or 1}
        return {"ok": 1}

    def _find(self, documents: Any, command: dict[str, Any]) -> dict[str, Any]:
        found = list(documents.find(command["filter"], command.get("projection"), limit=command.get("limit", 0)))
        return {"cursor": {"id": bson.Int64(0), "ns": documents.full_name, "firstBatch": found}}

    def _update(self, documents: Any, command: dict[str, Any]) -> dict[str, Any]:
        changed = 0
        for i, each in enumerate(command["updates"]):
            try:
                done = documents.update_many(each["q"], each["u"], upsert=each.get("upsert", False))
            except PyMongoError as error:
                return {"n": changed, "writeErrors": [{"index": i, "code": _code(error), "errmsg": str(error)}]}
            changed += done.matched_count
        return {"n": changed, "nModified": changed}

    def _delete(self, documents: Any, command: dict[str, Any]) -> dict[str, Any]:
        return {"n": sum(documents.delete_many(each["q"]).deleted_count for each in command["deletes"])}

    def _findAndModify(self, documents: Any, command: dict[str, Any]) -> dict[str, Any]:  # its name
        options = {"upsert": command.get("upsert", False), "return_document": command.get("new", False)}
        return {"value": documents.find_one_and_update(command["query"], command["update"], **options)}


def _code(error: PyMongoError) -> int:
    return getattr(error, "code", None) or 1


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def _query(body: bytes) -> dict[str, Any]:
    # flags, a name that ends with a zero, and two numbers come before
    return dict(bson.decode(body[body.index(b"\0", 4) + 9 :]))


def _message(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    at = 4
    while at < len(body):
        kind, (size,) = body[at], struct.unpack_from("<i", body, at + 1)
        part, at = body[at + 1 : at + 1 + size], at + 1 + size
        if kind == 0:
            found = {**bson.decode(part), **found}
        else:
            end = part.index(b"\0", 4)
            found[part[4:end].decode()] = bson.decode_all(part[end + 1 :])
    return found
