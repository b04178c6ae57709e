"""gRPC probes, against a server that another HTTP/2 implementation speaks for."""

import asyncio

import h2.config
import h2.connection
import h2.events
import pytest

from flyball.localcluster.node import grpchealth


class Health(asyncio.Protocol):
    """Answers Check by the service that is asked for; a service it has not heard of is not found, without a message."""

    statuses = {"": b"\x08\x01", "ill": b"\x08\x02", "x" * 300: b"\x08\x01", "young": b""}  # noqa: RUF012

    def connection_made(self, transport):
        self.transport = transport
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="ascii"))
        self.h2.initiate_connection()
        self.h2.ping(b"12345678")
        self.asked = b""
        self.acknowledged = 0
        transport.write(self.h2.data_to_send())

    def data_received(self, data):
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self.headers = dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                self.asked += event.data
            elif isinstance(event, h2.events.StreamEnded):
                self.answer(event.stream_id)
        self.transport.write(self.h2.data_to_send())

    def answer(self, stream):
        assert self.headers[":path"] == "/grpc.health.v1.Health/Check"
        assert self.headers["te"] == "trailers"
        body = self.asked[5:]
        assert int.from_bytes(self.asked[1:5], "big") == len(body)
        name = body[3 if len(body) > 130 else 2 :].decode()
        fields = [(":status", "200"), ("content-type", "application/grpc")]
        if name == "deaf":
            return
        if name not in self.statuses:
            self.h2.send_headers(stream, [*fields, ("grpc-status", "5")], end_stream=True)
            return
        status = self.statuses[name]
        self.h2.send_headers(stream, fields)
        self.h2.send_data(stream, b"\0" + len(status).to_bytes(4, "big") + status, pad_length=3)
        self.h2.send_headers(stream, [("grpc-status", "0")], end_stream=True)


@pytest.mark.parametrize(
    ("service", "said"),
    [
        ("", ""),
        ("x" * 300, ""),
        ("ill", 'service unhealthy (responded with "NOT_SERVING")'),
        ("young", 'service unhealthy (responded with "UNKNOWN")'),
        ("nobody", "health rpc failed: no health status in the answer; "
         "the server has to implement grpc.health.v1.Health"),
    ],
)  # fmt: skip
def test_a_service_is_well_when_it_says_so(service, said):
    assert asyncio.run(ask(Health, service)) == said


async def ask(protocol, service, timeout_s=10.0):
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    try:
        return await grpchealth.check("127.0.0.1", server.sockets[0].getsockname()[1], service, timeout_s)
    finally:
        server.close()


def test_silence_a_closed_port_and_another_protocol_are_told_apart():
    class Other(asyncio.Protocol):
        def connection_made(self, transport):
            transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    assert asyncio.run(ask(Health, "deaf", 0.05)) == "timeout: health rpc did not complete within 0.05s"
    assert asyncio.run(ask(Other, "")) == "health rpc failed: the port does not speak HTTP/2"
    assert "Connect call failed" in asyncio.run(grpchealth.check("127.0.0.1", 1, "", 1.0))
