"""A gRPC server without generated code: messages are bytes."""

import threading
from concurrent import futures

import grpc


class GrpcUpstream:
    def __init__(self, authority, host: str):
        certificate, key = authority.issue(host)
        credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
        self.calls: list[tuple[str, dict[str, str]]] = []
        self.released = threading.Event()
        self.server = grpc.server(futures.ThreadPoolExecutor(8))
        self.server.add_generic_rpc_handlers((Handler(self),))
        self.port = self.server.add_secure_port("127.0.0.1:0", credentials)
        self.server.start()

    def close(self) -> None:
        self.server.stop(0.2).wait()


class Handler(grpc.GenericRpcHandler):
    def __init__(self, upstream: GrpcUpstream):
        self.upstream = upstream

    def service(self, details):
        metadata = {item.key: item.value for item in details.invocation_metadata}
        self.upstream.calls.append((details.method, metadata))
        method = details.method.rsplit("/", 1)[1]
        if method == "Unary":
            return grpc.unary_unary_rpc_method_handler(self.unary)
        if method == "Fail":
            return grpc.unary_unary_rpc_method_handler(self.fail)
        if method == "Down":
            return grpc.unary_stream_rpc_method_handler(self.down)
        if method == "Chat":
            return grpc.stream_stream_rpc_method_handler(self.chat)
        return None

    def unary(self, request, context):
        context.set_trailing_metadata((("x-probe", "trailer"), ("x-probe-bin", b"\x00\x01")))
        return b"echo " + request

    def fail(self, request, context):
        context.set_trailing_metadata((("x-probe", "failed"),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not so")

    def down(self, request, context):
        for number in range(5):
            yield b"%d" % number

    def chat(self, requests, context):
        # Answers each message before the next is read.
        for request in requests:
            yield b"echo " + request
        context.set_trailing_metadata((("x-probe", "chatted"),))
