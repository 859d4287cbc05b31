"""TLS for the scripted servers: which certificate for which name, which versions, what is remembered of each handshake, and
the sockets' odd ends.

    Upstream(tls=Tls(leaf))                                  # one certificate for everything
    Upstream(tls=Tls(leaf, by_name={"cdn.test": other}, alpn=["h2", "http/1.1"], only="1.3", client_ca=root))

How a connection goes wrong before its first request is said by Upstream.accept_fault; beside "rst", "fin" and "silent", which
come before a byte is read, there is Hello(n, how): n bytes of the server's first answer, and then that."""

import contextlib
import os
import socket
import ssl
from dataclasses import dataclass

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
ALERT = 21  # type of a record


@dataclass
class Hello:
    after: int   # bytes of the server's first flight that are sent
    how: str     # silent, fin or rst


@dataclass
class Handshake:
    """One that was tried."""
    name: str = None          # SNI
    alpn: str = None          # chosen
    version: str = None
    cipher: str = None
    resumed: bool = False
    client: str = None        # common name of the client's certificate
    error: str = None         # absent: it succeeded


class Tls:
    def __init__(self, certificate, by_name=None, only=None, alpn=("http/1.1",), client_ca=None, client_optional=False,
                 ciphers=None, tickets=True):
        self.handshakes = []
        self._by_name = {name: self._context(cert, only, alpn, client_ca, client_optional, ciphers, tickets)
                         for name, cert in (by_name or {}).items()}
        self._default = self._context(certificate, only, alpn, client_ca, client_optional, ciphers, tickets)
        self._default.sni_callback = self._choose

    def replace(self, certificate):
        """From the next handshake on. For names without an own certificate."""
        self._default.load_cert_chain(certificate.chain_file, certificate.key_file)

    @staticmethod
    def _context(certificate, only, alpn, client_ca, client_optional, ciphers, tickets):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if ciphers:
            context.set_ciphers(ciphers)
        context.load_cert_chain(certificate.chain_file, certificate.key_file)
        context.minimum_version = VERSIONS[only or "1.2"]
        context.maximum_version = VERSIONS[only or "1.3"]
        if alpn:
            context.set_alpn_protocols(list(alpn))
        if not tickets:
            context.options |= ssl.OP_NO_TICKET
        if client_ca is not None:
            context.load_verify_locations(client_ca.file)
            context.verify_mode = ssl.CERT_OPTIONAL if client_optional else ssl.CERT_REQUIRED
        return context

    def _choose(self, connection, name, _):
        connection.asked_name = name
        if name in self._by_name:
            connection.context = self._by_name[name]

    def wrap(self, sock):
        """A TLS socket in the place of this one, before its handshake."""
        connection = self._default.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        connection.asked_name = None
        return connection

    def accept(self, connection):
        """The handshake on a socket of wrap(). Raises OSError, after remembering why."""
        done = Handshake()
        try:
            connection.do_handshake()
        except (OSError, ValueError) as error:
            done.name, done.error = connection.asked_name, str(error)
            self.handshakes.append(done)
            raise OSError("the handshake failed") from error
        done.name = connection.asked_name
        done.alpn, done.version = connection.selected_alpn_protocol(), connection.version()
        done.cipher, done.resumed = connection.cipher()[0], connection.session_reused
        shown = connection.getpeercert()
        if shown:
            done.client = dict(part[0] for part in shown["subject"])["commonName"]
        self.handshakes.append(done)
        return done

    def half(self, sock, hello):
        """Answers a ClientHello with the first bytes only."""
        arrived, answer = ssl.MemoryBIO(), ssl.MemoryBIO()
        engine = self._default.wrap_bio(arrived, answer, server_side=True)
        engine.asked_name = None
        while not answer.pending:
            got = sock.recv(65536)
            if not got:
                return
            arrived.write(got)
            with contextlib.suppress(ssl.SSLWantReadError):
                engine.do_handshake()
        self.handshakes.append(Handshake(name=engine.asked_name, error="left in the middle"))
        sock.sendall(answer.read()[:hello.after])


def say_goodbye(sock):
    """close_notify, without waiting for the peer's. On a socket without TLS: nothing."""
    if isinstance(sock, ssl.SSLSocket):
        sock.setblocking(False)
        with contextlib.suppress(OSError, ValueError):
            sock.unwrap()


def peek(sock):
    """The first byte that the peer has sent, left where it is; empty: the peer has left. A TLS alert, which is what close_notify is,
    counts as leaving. Raises BlockingIOError when there is none yet."""
    if not isinstance(sock, ssl.SSLSocket):
        return sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    with contextlib.closing(socket.socket(fileno=os.dup(sock.fileno()))) as twin:
        first = twin.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    return b"" if first and first[0] == ALERT else first
