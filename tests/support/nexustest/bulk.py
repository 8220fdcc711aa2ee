"""A TLS server for very large bodies, in a process of its own: HTTP/1.1, one request a connection.

`PUT /…` counts what it gets, `GET /N` sends N bytes. Prints its port.
"""

import socket
import ssl
import sys
import threading

BLOCK = b"\0" * (1 << 18)


def one(connection: socket.socket, context: ssl.SSLContext) -> None:
    try:
        with context.wrap_socket(connection, server_side=True) as tls:
            stream = tls.makefile("rb", buffering=1 << 18)
            method, path, _ = stream.readline().decode().split(" ", 2)
            headers = {}
            while (line := stream.readline().decode().strip()) != "":
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            if headers.get("expect", "").lower() == "100-continue":
                tls.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            total = 0
            if headers.get("transfer-encoding") == "chunked":
                while (size := int(stream.readline(), 16)) > 0:
                    total += size
                    while size > 0:
                        size -= len(stream.read(min(size, len(BLOCK))))
                    stream.readline()
                stream.readline()
            else:
                left = int(headers.get("content-length", 0))
                while left > 0:
                    block = stream.read(min(left, len(BLOCK)))
                    if not block:
                        return
                    total, left = total + len(block), left - len(block)
            if method == "GET":
                size = int(path.rsplit("/", 1)[1])
                tls.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % size)
                while size > 0:
                    tls.sendall(BLOCK[: min(size, len(BLOCK))])
                    size -= min(size, len(BLOCK))
            else:
                credential = headers.get("authorization", "none") != "none"
                body = b"%d %s" % (total, b"injected" if credential else b"bare")
                tls.sendall(
                    b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
                )
    except OSError:
        pass


def main() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=one, args=(connection, context), daemon=True).start()


main()
