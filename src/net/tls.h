/* TLS 1.2 as a stream over a stream, with BearSSL.
 *
 * A TLS stream takes over the stream below and closes it with itself. It keeps stream.h's promises: `ready` is called when what was
 * wanted may be possible, also when the reason is plaintext that is already decrypted and no byte is left in the socket.
 * After tls_client or tls_server want STREAM_WRITE; when it is ready the handshake is over, and stream_connected tells
 * how; stream_why names the certificate and what is wrong with it, or what the peer said. Transfers before that say AGAIN.
 *
 * Ends. A peer that ends the connection without close_notify: recv gives 0, as TCP would; whether that is a truncation is for
 * the framing above to say (HTTP knows), and tls_ended_well tells for bodies that end with the connection. In the middle of a record
 * it is STREAM_BROKEN. TLS 1.2 has no half-closed connections: after the peer's close_notify nothing can be written, and
 * after stream_shut (close_notify and the end of the stream below) what the peer still sends is thrown away until it ends.
 * stream_close without reset sends what was written and close_notify, for which the stream lives on by itself for 10 s at most.
 *
 * sendfile reads from the file into records, at most 128 KiB per call. A record that "more" left short goes out at the end of the turn.
 *
 * Memory. The record buffers (20 KiB per direction) are there while a record is under way in their direction, and belong to the
 * core otherwise, which keeps up to 64 spare ones. An idle stream costs its contexts: 4.4 KiB, without the stream below.
 *
 * A peer that sends without end. A handshake has at most 256 KiB, and records with nothing in them (empty, or warnings) at most 64 KiB
 * between two with something: more breaks the stream. In one turn of the loop at most 512 KiB of records are read, then recv says AGAIN.
 *
 * Certificates. A chain may be out of order and have others in it (16, and 128 KiB at most). Names count as in RFC 6125; the common name
 * only where there are no others; addresses must be among the alternative names. An extended key usage must allow servers.
 * Refused, because BearSSL cannot check them: name constraints, an extended key usage that is marked critical, RSA-PSS, Ed25519.
 * And what has an extension twice. Revocation is not looked at.
 *
 * Thread: the core's. */
#ifndef LARDER_NET_TLS_H
#define LARDER_NET_TLS_H

#include "net/stream.h"
#include "net/trust.h"

/* What of a session is kept to resume it (RFC 5246 session ids; the peer may refuse). One per origin and core; wiped by its owner
 * with tls_session_clear. All zero: nothing to resume. No certificate is looked at when it is resumed, so it is offered for an hour after
 * they were, at most, and not beyond the end of one of them. */
#define TLS_SESSION_SIZE 128
struct tls_session {
    _Alignas(8) unsigned char opaque[TLS_SESSION_SIZE];
    int64_t until_ms; /* wall clock */
};
void tls_session_clear(struct tls_session *s);
bool tls_session_is_some(const struct tls_session *s); /* there is something to resume */

struct tls_client {
    const struct trust *trust;       /* the stream keeps a reference */
    const struct identity *identity; /* NULL: none is shown; the stream keeps a reference */
    struct span
        host; /* name or IP literal (no brackets) to verify, of 1 to 255 bytes, a dot at its end is ignored; an IP is
                       * matched against IP SANs, and no SNI is sent */
    struct tls_session *
        session; /* offered, and updated when the handshake is done; NULL: none. Stays until then or until close.
                  * Several streams may have the same at once */
};

/* Takes `under` over, a connected stream. Offers http/1.1 by ALPN, AES-GCM before ChaCha20 where the processor has AES instructions,
 * TLS 1.2 only, no renegotiation, no SHA-1 signatures, RSA keys of at least 2048 bits. Never NULL. */
struct stream *tls_client(struct stream *under, const struct tls_client *how);

/* The listener's side. One session cache per core and listener (tls_cache_new); the stream keeps references. */
struct tls_cache;
struct tls_cache *tls_cache_new(void);
void tls_cache_free(struct tls_cache *c);
struct stream *tls_server(struct stream *under, const struct identity *identity, struct tls_cache *cache);

bool tls_is(const struct stream *s);
/* What is read from now on is a secret, or is none any more: the memory of its records is wiped before others get it. A plain stream: a
 * no-op. */
void tls_secret(struct stream *s, bool secret);
bool tls_ended_well(
    const struct stream *s); /* recv gave 0 after the peer's close_notify; true also for a plain stream */
bool tls_resumed(const struct stream *s);
/* Something has come from the peer, and the handshake has not come to its end: if the stream has broken, that is why. */
bool tls_unfinished(const struct stream *s);

#endif
