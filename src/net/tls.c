/* TLS as a stream over a stream: BearSSL's engine between `under` and the owner.
 *
 *   HANDSHAKE -> OPEN -> CLOSED   the peer has sent close_notify, or we have and it has answered
 *        \________\______-> BROKEN
 *
 * The handshake runs by itself from the first turn of the loop; in OPEN everything happens in the owner's calls.
 *
 * Reading. The owner's buffer is where records arrive: as many bytes as fit are read into it in one go, and fed to the engine
 * from there, which decrypts in a buffer of its own; the plaintext is copied to the front of the owner's buffer. Plaintext is
 * shorter than the records it came in, so it never catches up with what is still to be fed, provided that room is left for
 * what the engine holds of a record already. So no byte of a record is ever kept here, the only state is the engine's, and streams
 * nest.
 *
 * What a peer may make us do. The engine goes on without end over what is nothing to it: records of length 0, warnings. So a handshake has
 * a maximum of bytes, and so have records that nothing comes out of. And a peer that is never out of breath keeps the loop from
 * nobody else: in one turn of it (on_under, on_later) so much is read and no more, then a call says AGAIN as if the stream
 * below had said it. That is safe because whoever is told AGAIN wants to be told, and the stream below tells of what is there still.
 *
 * Writing. Plaintext goes into the engine's record until that is full or the burst ends; then the record goes down. What is
 * counted as written may still be in that one record, so a stream that is given up first sends it (`lingering`).
 *
 * The engine's buffers. br_ssl_engine_set_buffers_bidi starts the engine afresh, but the engine finds its place in the buffers by
 * offsets only (ixa, ixb, ixc in; oxa, oxb, oxc out), fetches every pointer anew from ibuf and obuf when it is entered, and leaves
 * nothing in a buffer between two records. So each entry of this file lends it two buffers (tls_enter), and takes
 * each back when that direction is between records (tls_leave). They must differ: equal pointers mean half-duplex to it.
 *
 * Invariants: the engine is called between tls_enter and tls_leave only; `ready` is called from the loop only (on_under,
 * on_later), as the last thing. */
#include "net/tls.h"

#include <errno.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "core/core.h"
#include "net/tls_int.h"

#define TLS_MAGIC   0x7c900002u
#define CACHE_MAGIC 0x7c900003u

#define IN_SIZE     (16384 + 325) /* what BearSSL needs for full records */
#define OUT_SIZE    (16384 + 85)
#define FILE_TURN   (128u << 10) /* bytes of a file per call, so that others have their turn */
#define READ_TURNS  8            /* reads of the stream below per call */
#define TURN_BYTES  (512u << 10) /* of records that are read in one turn of the loop */
#define HOLLOW_MAX  (64u << 10)  /* of records with nothing in them, one after the other */
#define SHAKE_TURNS 16           /* reads of a handshake in one turn of the loop */
#define SHAKE_MAX   (256u << 10) /* bytes of one: certificates, and names of those that are wanted */
#define LINGER_MS   10000        /* for the last record of a stream that was given up */
#define SESSION_MS  (60 * 60 * 1000)
#define CACHE_BYTES (256u << 10) /* about 2,600 sessions */

_Static_assert(IN_SIZE <= TLS_BUFFER && OUT_SIZE <= TLS_BUFFER, "TLS_BUFFER is too small");

enum phase { HANDSHAKE, OPEN, CLOSED, BROKEN };

struct tls {
    struct stream base;
    unsigned magic;
    uint8_t phase;
    bool is_client, resumed;
    bool finished;  /* the handshake */
    bool eof;       /* the stream below has ended */
    bool shut;      /* we have sent close_notify, or will with the next record */
    bool shut_down; /* and ended the stream below */
    bool answered;  /* bytes have come from the peer */
    bool secret;    /* what is read: see tls_secret */
    bool mute;      /* in the handshake: nothing can be sent any more */
    bool lingering, dead;
    unsigned wanted;
    size_t turn;   /* bytes that were read from below in this turn of the loop */
    size_t hollow; /* and since something came out of them; in the handshake since its beginning */
    struct stream *under;
    br_ssl_engine_context *eng;
    struct tls_check *check;     /* client, until the handshake is over */
    struct tls_session *session; /* client, until the handshake is over; or NULL. Others may change it */
    int64_t offered_until_ms;    /* its until_ms when it was offered */
    const struct identity *identity;
    struct tls_cache *cache;
    char *why; /* of what broke it */
    struct defer later;
    struct timer limit; /* of lingering */
    union {
        br_ssl_client_context client;
        br_ssl_server_context server;
    } ctx;
};

struct tls_cache {
    const br_ssl_session_cache_class *vtable; /* first: BearSSL's pointer to us */
    unsigned magic, refs;
    br_ssl_session_cache_lru lru;
    unsigned char store[CACHE_BYTES];
};

static const struct stream_ops tls_ops;

static struct tls *tls_of(struct stream *s)
{
    struct tls *t = CONTAINER_OF(s, struct tls, base);
    CHECK_MAGIC(t, TLS_MAGIC);
    return t;
}

/* ---- the engine and its buffers ---- */

static bool holds_in(const struct tls *t)
{
    const br_ssl_engine_context *e = t->eng;
    return e->ixa != e->ixb || e->ixa != 0;
}

/* Bytes are gathered for a record, or one is on its way down. */
static bool holds_out(const struct tls *t)
{
    return t->eng->oxa != t->eng->oxc;
}

static void tls_enter(struct tls *t)
{
    br_ssl_engine_context *e = t->eng;
    if (e->ibuf == NULL)
        e->ibuf = tls_buffer_take(t->base.core);
    if (e->obuf == NULL)
        e->obuf = tls_buffer_take(t->base.core);
}

/* A record is decrypted in place: the plaintext of the last one is still there. */
static void give_in(struct tls *t)
{
    if (t->eng->ibuf != NULL && t->secret)
        mem_wipe(t->eng->ibuf, IN_SIZE);
    if (t->eng->ibuf != NULL)
        tls_buffer_give(t->base.core, t->eng->ibuf);
    t->eng->ibuf = NULL;
}

/* Encrypted in place, too, unless the stream has ended before. */
static void give_out(struct tls *t)
{
    if (t->eng->obuf != NULL && holds_out(t))
        mem_wipe(t->eng->obuf, OUT_SIZE);
    if (t->eng->obuf != NULL)
        tls_buffer_give(t->base.core, t->eng->obuf);
    t->eng->obuf = NULL;
}

static void tls_arm(struct tls *t);

static void tls_leave(struct tls *t)
{
    bool over = t->phase == CLOSED || t->phase == BROKEN;
    if (over || !holds_in(t))
        give_in(t);
    if (over || !holds_out(t))
        give_out(t);
    tls_arm(t);
}

static bool plaintext_waits(const struct tls *t)
{
    size_t n;
    return t->eng->ibuf != NULL && br_ssl_engine_recvapp_buf(t->eng, &n) != NULL;
}

static bool record_waits(const struct tls *t)
{
    size_t n;
    return t->eng->obuf != NULL && br_ssl_engine_sendrec_buf(t->eng, &n) != NULL;
}

/* ---- failing ---- */

static void tls_broke(struct tls *t, const char *text)
{
    if (t->phase == BROKEN)
        return;
    t->phase = BROKEN;
    t->why = mem_strdup(text);
    if (t->session != NULL)
        tls_session_clear(t->session); /* the next handshake is a full one */
}

/* The engine has stopped: well, or with an error. */
static void tls_stopped(struct tls *t)
{
    char text[TLS_WHY];
    struct str why = STR_INIT(text);
    int err = br_ssl_engine_last_error(t->eng);
    if (err == BR_ERR_OK && t->phase != HANDSHAKE) {
        if (t->phase == OPEN)
            t->phase = CLOSED;
        return;
    }
    if (t->check != NULL && tls_check_why(t->check)[0] != '\0')
        str_addz(&why, tls_check_why(t->check));
    else if (err == BR_ERR_OK)
        str_addz(&why, "the peer ended the TLS handshake");
    else
        tls_words(&why, err, t->is_client);
    tls_broke(t, text);
}

static bool engine_stopped(struct tls *t)
{
    if (br_ssl_engine_current_state(t->eng) != BR_SSL_CLOSED)
        return false;
    tls_stopped(t);
    return true;
}

/* ---- records down ---- */

/* Sends the record that waits. more: another follows within this call. */
static void send_records(struct tls *t, bool more)
{
    size_t n;
    unsigned char *p;
    while ((p = br_ssl_engine_sendrec_buf(t->eng, &n)) != NULL) {
        struct iovec v = {p, n};
        ssize_t put = stream_writev(t->under, &v, 1, more);
        if (put == STREAM_AGAIN)
            return;
        if (put < 0) {
            if (t->phase == HANDSHAKE)
                t->mute = true; /* why may be there to be read */
            else if (t->eng->shutdown_recv)
                t->phase = CLOSED; /* it has said goodbye and does not wait for ours */
            else
                tls_broke(t, stream_why(t->under));
            return;
        }
        br_ssl_engine_sendrec_ack(t->eng, (size_t)put);
    }
    if (t->shut && !t->shut_down && br_ssl_engine_last_error(t->eng) == BR_ERR_OK) {
        t->shut_down = true;
        stream_shut(t->under);
    }
}

/* ---- the handshake ---- */

/* Something else than TLS is told apart by its first byte, before BearSSL calls it a version. */
static bool looks_like_tls(struct tls *t, const unsigned char *p, size_t n)
{
    char text[TLS_WHY];
    struct str why = STR_INIT(text);
    if (t->answered || n == 0)
        return true;
    t->answered = true;
    if (p[0] >= 20 && p[0] <= 23)
        return true;
    str_addf(&why, "the %s does not speak TLS here: its first bytes are \"",
             t->is_client ? "server" : "client");
    for (size_t i = 0; i < n; i++)
        str_addc(&why, p[i] >= 0x20 && p[i] < 0x7f ? (char)p[i] : '?');
    str_addz(&why, "\"");
    if (p[0] == 'H' || (!t->is_client && p[0] >= 'A' && p[0] <= 'Z'))
        str_addz(&why, " (plain HTTP)");
    tls_broke(t, text);
    return false;
}

static void handshake_ended_below(struct tls *t, ssize_t got)
{
    char text[TLS_WHY];
    struct str why = STR_INIT(text);
    if (got == STREAM_BROKEN || t->mute)
        str_addf(&why, "in the TLS handshake: %s", stream_why(t->under));
    else
        str_addz(&why, t->answered ? "the peer closed the connection in the middle of the TLS handshake"
                                   : "the peer closed the connection without a word of TLS");
    tls_broke(t, text);
}

/* Until when the session may be offered that the handshake has made; the one that it has resumed is as old as it was. */
static int64_t session_until(const struct tls *t)
{
    if (t->resumed)
        return t->offered_until_ms;
    int64_t most = clock_wall_ms() + SESSION_MS, end = tls_check_until(t->check);
    return end < most ? end : most;
}

static void session_keep(struct tls *t)
{
    br_ssl_session_parameters session;
    int64_t until = session_until(t);
    tls_session_clear(t->session);
    br_ssl_engine_get_session_parameters(t->eng, &session);
    if (session.session_id_len > 0) {
        memcpy(t->session->opaque, &session, sizeof session);
        t->session->until_ms = until;
    }
    mem_wipe(&session, sizeof session);
    t->session = NULL;
}

static void handshake_done(struct tls *t)
{
    t->phase = OPEN;
    t->finished = true;
    t->hollow = 0;
    if (t->is_client)
        t->resumed = !tls_check_asked(t->check);
    if (t->session != NULL)
        session_keep(t);
    /* No certificate is looked at again: renegotiation is off. */
    tls_check_free(t->check);
    t->check = NULL;
    t->eng->x509ctx = NULL;
}

/* Counts what has come from below without anything for the owner. False: it is more than anybody needs, and the stream has broken. */
static bool bear(struct tls *t, size_t n, size_t most)
{
    t->hollow += n;
    if (t->hollow > most)
        tls_broke(t, t->phase == HANDSHAKE ? "the peer sends more than a TLS handshake can have"
                                           : "the peer sends TLS records with nothing in them");
    return t->phase != BROKEN;
}

static void handshake_run(struct tls *t)
{
    tls_enter(t);
    for (unsigned reads = 0; !engine_stopped(t); reads++) {
        if (!t->mute)
            send_records(t, false);
        if ((record_waits(t) && !t->mute) || engine_stopped(t))
            break;
        if ((br_ssl_engine_current_state(t->eng) & (BR_SSL_SENDAPP | BR_SSL_RECVAPP)) != 0) {
            handshake_done(t);
            break;
        }
        if (reads == SHAKE_TURNS) /* of more there will be word */
            break;
        size_t n;
        unsigned char *p = br_ssl_engine_recvrec_buf(t->eng, &n);
        ssize_t got = stream_recv(t->under, p, n);
        if (got == STREAM_AGAIN && !t->mute)
            break;
        if (got <= 0) {
            handshake_ended_below(t, got);
            break;
        }
        if (!looks_like_tls(t, p, (size_t)got) || !bear(t, (size_t)got, SHAKE_MAX))
            break;
        br_ssl_engine_recvrec_ack(t->eng, (size_t)got);
    }
    tls_leave(t);
}

/* ---- reading ---- */

/* Takes plaintext out of the engine; at most n bytes. */
static size_t take_plaintext(struct tls *t, char *to, size_t n)
{
    size_t have;
    const unsigned char *p = br_ssl_engine_recvapp_buf(t->eng, &have);
    if (p == NULL)
        return 0;
    if (have > n)
        have = n;
    memcpy(to, p, have);
    br_ssl_engine_recvapp_ack(t->eng, have);
    return have;
}

/* Feeds n bytes of records at `from` to the engine and gathers plaintext at `to`, which lies before `from` in the same buffer.
 * Returns how much. */
static size_t feed(struct tls *t, const char *from, size_t n, char *to)
{
    size_t got = 0;
    while (n > 0) {
        size_t room;
        unsigned char *p = br_ssl_engine_recvrec_buf(t->eng, &room);
        if (p == NULL) /* close_notify was before this, or an error */
            break;
        if (room > n)
            room = n;
        memcpy(p, from, room);
        br_ssl_engine_recvrec_ack(t->eng, room);
        from += room;
        n -= room;
        MUST(!plaintext_waits(t) || t->eng->ixb - t->eng->ixa <= (size_t)(from - (to + got)));
        got += take_plaintext(t, to + got, (size_t)(from - (to + got)));
    }
    return got;
}

/* Nothing more comes from below. */
static void ended_below(struct tls *t, ssize_t got)
{
    if (got == STREAM_BROKEN)
        tls_broke(t, stream_why(t->under));
    else if (holds_in(t))
        tls_broke(t, "the peer closed the connection in the middle of a TLS record");
    else
        t->eof = true;
}

/* One read from below, of what fits into n bytes at buf. Returns the plaintext that came out. *full: what was asked for came, so there
 * may be more. */
static size_t read_below(struct tls *t, char *buf, size_t n, bool *full)
{
    size_t wants, held = t->eng->ixa; /* of a record under way */
    unsigned char *p = br_ssl_engine_recvrec_buf(t->eng, &wants);
    *full = false;
    if (p == NULL)
        return 0;
    bool direct = n < held + wants;
    size_t ask = direct ? wants : n - held;
    if (ask > TURN_BYTES - t->turn)
        ask = TURN_BYTES - t->turn;
    if (ask == 0)
        return 0;
    ssize_t got = stream_recv(t->under, direct ? (char *)p : buf + held, ask);
    if (got <= 0) {
        if (got != STREAM_AGAIN)
            ended_below(t, got);
        return 0;
    }
    *full = (size_t)got == ask;
    t->turn += (size_t)got;
    size_t out;
    if (direct) {
        br_ssl_engine_recvrec_ack(t->eng, (size_t)got);
        out = take_plaintext(t, buf, n);
    } else {
        out = feed(t, buf + held, (size_t)got, buf);
    }
    if (out > 0)
        t->hollow = 0;
    else if (!t->shut) /* else it is thrown away, and its owner does not wait for long */
        (void)bear(t, (size_t)got, HOLLOW_MAX);
    return out;
}

static ssize_t tls_recv(struct stream *s, void *buf, size_t n)
{
    struct tls *t = tls_of(s);
    char *to = buf;
    size_t got = 0;
    bool full = true;
    if (t->phase == HANDSHAKE)
        return STREAM_AGAIN;
    if (t->phase == OPEN) {
        tls_enter(t);
        got = take_plaintext(t, to, n);
        for (unsigned i = 0; full && got < n && i < READ_TURNS && !t->eof; i++) {
            got += read_below(t, to + got, n - got, &full);
            if (t->phase != OPEN || engine_stopped(t))
                break;
            if (record_waits(t))
                send_records(t, false); /* an answer of the engine's: close_notify, or an alert */
        }
        (void)(t->phase == OPEN && engine_stopped(t));
        tls_leave(t);
    }
    if (got > 0)
        return (ssize_t)got;
    if (t->phase == BROKEN)
        return STREAM_BROKEN;
    return t->phase == CLOSED || t->eof || t->eng->shutdown_recv ? 0 : STREAM_AGAIN;
}

/* ---- writing ---- */

static bool can_write(const struct tls *t)
{
    return t->phase == OPEN && !t->shut && (t->eng->application_data & 1) != 0;
}

static ssize_t write_result(struct tls *t, size_t put)
{
    if (put > 0)
        return (ssize_t)put;
    return can_write(t) ? STREAM_AGAIN : STREAM_BROKEN;
}

/* Room for plaintext in the record under way; a full one that waits is sent first. NULL: not now. */
static unsigned char *record_room(struct tls *t, size_t *n)
{
    unsigned char *p = br_ssl_engine_sendapp_buf(t->eng, n);
    if (p != NULL)
        return p;
    send_records(t, true);
    return t->phase == OPEN ? br_ssl_engine_sendapp_buf(t->eng, n) : NULL;
}

/* The end of a call that wrote. A record that is not full waits for what follows, until the end of this turn of the loop. */
static void write_end(struct tls *t, bool more)
{
    if (t->phase == OPEN && !more)
        br_ssl_engine_flush(t->eng, 0);
    if (t->phase == OPEN && record_waits(t))
        send_records(t, false);
    else if (t->phase == OPEN && holds_out(t))
        defer_start(t->base.core, &t->later);
    tls_leave(t);
}

/* What is written at one go is several records below; the last of them is sent without "more", because it may be the last of all. */
static ssize_t tls_writev(struct stream *s, const struct iovec *iov, unsigned n, bool more)
{
    struct tls *t = tls_of(s);
    size_t put = 0;
    if (t->phase == HANDSHAKE)
        return STREAM_AGAIN;
    if (!can_write(t))
        return STREAM_BROKEN;
    tls_enter(t);
    bool stuck = false;
    for (unsigned i = 0; i < n && !stuck; i++) {
        const char *from = iov[i].iov_base;
        for (size_t left = iov[i].iov_len, room; left > 0;) {
            unsigned char *p = record_room(t, &room);
            stuck = p == NULL;
            if (stuck)
                break;
            if (room > left)
                room = left;
            memcpy(p, from, room);
            br_ssl_engine_sendapp_ack(t->eng, room);
            from += room;
            left -= room;
            put += room;
        }
    }
    write_end(t, more);
    return write_result(t, put);
}

static ssize_t tls_sendfile(struct stream *s, int fd, off_t off, size_t n, bool more)
{
    struct tls *t = tls_of(s);
    size_t put = 0, room;
    ssize_t got = 1;
    unsigned char *p;
    if (t->phase == HANDSHAKE)
        return STREAM_AGAIN;
    if (!can_write(t))
        return STREAM_BROKEN;
    if (n > FILE_TURN) {
        n = FILE_TURN;
        more = true;
    }
    tls_enter(t);
    while (put < n && (p = record_room(t, &room)) != NULL) {
        if (room > n - put)
            room = n - put;
        do
            got = pread(fd, p, room, off + (off_t)put);
        while (got < 0 && errno == EINTR);
        if (got <= 0)
            break;
        br_ssl_engine_sendapp_ack(t->eng, (size_t)got);
        put += (size_t)got;
    }
    if (got < 0)
        tls_broke(t, strerror(errno));
    write_end(t, more && got > 0);
    return got == 0 && put == 0 ? 0 : write_result(t, put);
}

/* ---- telling the owner ---- */

static unsigned possible(const struct tls *t)
{
    if (t->phase == CLOSED || t->phase == BROKEN)
        return STREAM_READ | STREAM_WRITE;
    if (t->phase == OPEN && (t->eof || t->eng->shutdown_recv || plaintext_waits(t)))
        return STREAM_READ;
    return 0;
}

/* Asks the stream below for what can bring us on, and the loop for what needs nothing from below. */
static void tls_arm(struct tls *t)
{
    unsigned events = 0;
    if (t->dead)
        return;
    bool out = record_waits(t);
    if (t->phase == HANDSHAKE) {
        events = out ? STREAM_WRITE : STREAM_READ;
    } else if (t->phase == OPEN) {
        unsigned now = possible(t);
        if (out || (t->wanted & STREAM_WRITE) != 0)
            events |= STREAM_WRITE;
        if ((t->wanted & STREAM_READ & ~now) != 0)
            events |= STREAM_READ;
    }
    stream_want(t->under, events);
    if ((t->wanted & possible(t)) != 0)
        defer_start(t->base.core, &t->later);
}

static void tls_want(struct stream *s, unsigned events)
{
    struct tls *t = tls_of(s);
    t->wanted = events;
    tls_arm(t);
}

static void linger_end(struct tls *t, bool reset);

static void on_under(struct stream *under, unsigned events)
{
    struct tls *t = under->owner;
    CHECK_MAGIC(t, TLS_MAGIC);
    t->turn = 0;
    if (t->phase == HANDSHAKE) {
        handshake_run(t);
        if (t->phase == OPEN && (t->wanted & STREAM_WRITE) != 0)
            t->base.ready(&t->base, STREAM_WRITE);
        return; /* that it broke is told by on_later */
    }
    if ((events & STREAM_WRITE) != 0 && record_waits(t)) {
        tls_enter(t);
        send_records(t, false);
        (void)(t->phase == OPEN && engine_stopped(t));
        tls_leave(t);
    }
    if (t->lingering) {
        if (t->phase == BROKEN || !record_waits(t))
            linger_end(t, false);
        return;
    }
    if (t->phase != OPEN || record_waits(t))
        events &= ~STREAM_WRITE;
    if ((events & t->wanted) != 0)
        t->base.ready(&t->base, events & t->wanted);
}

static void tls_free(struct tls *t);

/* What was put off to the end of the turn: a record that nothing followed, what is possible without the stream below, and
 * the end. */
static void on_later(struct defer *d)
{
    struct tls *t = CONTAINER_OF(d, struct tls, later);
    CHECK_MAGIC(t, TLS_MAGIC);
    if (t->dead) {
        tls_free(t);
        return;
    }
    t->turn = 0;
    if (t->phase == OPEN && holds_out(t)) {
        tls_enter(t);
        br_ssl_engine_flush(t->eng, 0);
        send_records(t, false);
        tls_leave(t);
    }
    unsigned now = possible(t) & t->wanted;
    if (now == 0)
        return;
    t->base.ready(&t->base, now);
    tls_arm(
        t); /* again, until the owner has taken it or wants it no more; if it has closed us, the struct is still there */
}

/* ---- the end ---- */

static void tls_free(struct tls *t)
{
    give_in(t);
    give_out(t);
    tls_buffers_leave(t->base.core);
    tls_check_free(t->check);
    identity_unref(t->identity);
    tls_cache_free(t->cache);
    mem_free(t->why);
    mem_wipe(t, sizeof *t);
    mem_free(t);
}

/* The struct stays until the end of the turn: frames of this file may be below us. */
static void linger_end(struct tls *t, bool reset)
{
    t->lingering = false;
    t->dead = true;
    timer_disarm(&t->limit);
    stream_close(t->under, reset);
    t->under = NULL;
    defer_start(t->base.core, &t->later);
}

static void on_limit(struct timer *timer)
{
    struct tls *t = CONTAINER_OF(timer, struct tls, limit);
    CHECK_MAGIC(t, TLS_MAGIC);
    linger_end(t, true);
}

/* The last bytes and close_notify. */
static void say_goodbye(struct tls *t)
{
    if (t->phase != OPEN || t->shut)
        return;
    br_ssl_engine_flush(t->eng, 0);
    br_ssl_engine_close(t->eng);
    t->shut = true;
    send_records(t, false);
    (void)(t->phase == OPEN && engine_stopped(t));
}

static void tls_shut(struct stream *s)
{
    struct tls *t = tls_of(s);
    tls_enter(t);
    say_goodbye(t);
    tls_leave(t);
}

static void tls_close(struct stream *s, bool reset)
{
    struct tls *t = tls_of(s);
    MUST(!t->dead && !t->lingering);
    t->session = NULL;
    t->wanted = 0;
    t->base.ready = NULL;
    if (!reset) {
        tls_enter(t);
        say_goodbye(t);
        tls_leave(t);
    }
    if (!reset && t->phase == OPEN && record_waits(t)) {
        t->lingering = true;
        timer_arm(t->base.core, &t->limit, LINGER_MS);
        return;
    }
    linger_end(t, reset);
}

static const char *tls_why(const struct stream *s)
{
    const struct tls *t = (const struct tls *)(const void *)s;
    if (t->why != NULL)
        return t->why;
    return t->phase == HANDSHAKE ? "the TLS handshake is not over" : "closed by the peer";
}

static bool tls_connected(struct stream *s)
{
    return tls_of(s)->phase == OPEN;
}

static bool tls_idle_ok(struct stream *s)
{
    struct tls *t = tls_of(s);
    return can_write(t) && !t->eof && !t->eng->shutdown_recv && !holds_in(t) && stream_idle_ok(t->under);
}

static const struct stream_ops tls_ops = {
    .recv = tls_recv,
    .writev = tls_writev,
    .sendfile = tls_sendfile,
    .want = tls_want,
    .shut = tls_shut,
    .close = tls_close,
    .why = tls_why,
    .connected = tls_connected,
    .idle_ok = tls_idle_ok,
};

/* ---- the beginning ---- */

/* AES-GCM where the processor does it, because it is twice as fast there; else ChaCha20, which needs no instructions of its own. */
static void set_suites(br_ssl_engine_context *e)
{
    static const uint16_t suites[] = {
        BR_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, BR_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        BR_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,       BR_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        BR_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,       BR_TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        BR_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, BR_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    };
    bool aes = br_aes_x86ni_ctr_get_vtable() != NULL && br_ghash_pclmul_get() != 0;
    br_ssl_engine_set_suites(e, suites + (aes ? 2 : 0), ARRAY_LEN(suites) - 2);
}

static void set_engine(br_ssl_engine_context *e)
{
    static const char *protocols[] = {"http/1.1"};
    br_ssl_engine_set_versions(e, BR_TLS12, BR_TLS12);
    set_suites(e);
    br_ssl_engine_set_hash(e, br_md5_ID, NULL);
    br_ssl_engine_set_hash(e, br_sha1_ID, NULL);
    br_ssl_engine_add_flags(e, BR_OPT_NO_RENEGOTIATION);
    br_ssl_engine_set_protocol_names(e, protocols, ARRAY_LEN(protocols));
}

static struct tls *tls_new(struct stream *under, bool client)
{
    struct tls *t;
    NEW(t);
    t->magic = TLS_MAGIC;
    t->base.ops = &tls_ops;
    t->base.core = under->core;
    t->is_client = client;
    t->under = under;
    t->eng = client ? &t->ctx.client.eng : &t->ctx.server.eng;
    under->owner = t;
    under->ready = on_under;
    defer_init(&t->later, on_later);
    timer_init(&t->limit, on_limit);
    tls_buffers_join(under->core);
    return t;
}

static void lend_first_buffers(struct tls *t)
{
    br_ssl_engine_set_buffers_bidi(t->eng, tls_buffer_take(t->base.core), IN_SIZE,
                                   tls_buffer_take(t->base.core), OUT_SIZE);
}

static struct stream *tls_start(struct tls *t, int ok)
{
    if (!ok)
        tls_stopped(t);
    tls_leave(t);
    return &t->base;
}

struct stream *tls_client(struct stream *under, const struct tls_client *how)
{
    struct tls *t = tls_new(under, true);
    br_ssl_client_context *cc = &t->ctx.client;
    br_x509_minimal_context unused;
    t->check = tls_check_new(how->trust, how->host);
    br_ssl_client_init_full(cc, &unused, NULL, 0);
    set_engine(t->eng);
    br_ssl_engine_set_x509(t->eng, tls_check_class(t->check));
    if (how->identity != NULL) {
        const struct identity *i = t->identity = identity_ref(how->identity);
        if (br_skey_decoder_key_type(&i->key) == BR_KEYTYPE_RSA)
            br_ssl_client_set_single_rsa(cc, i->chain, i->n, br_skey_decoder_get_rsa(&i->key),
                                         br_rsa_pkcs1_sign_get_default());
        else
            br_ssl_client_set_single_ec(cc, i->chain, i->n, br_skey_decoder_get_ec(&i->key), BR_KEYTYPE_SIGN,
                                        i->signer_key_type, br_ec_get_default(),
                                        br_ecdsa_sign_asn1_get_default());
    }
    lend_first_buffers(t);
    t->session = how->session;
    bool offered = t->session != NULL && clock_wall_ms() < t->session->until_ms;
    if (offered) {
        t->offered_until_ms = t->session->until_ms;
        br_ssl_session_parameters session;
        memcpy(&session, t->session->opaque, sizeof session);
        br_ssl_engine_set_session_parameters(t->eng, &session);
        mem_wipe(&session, sizeof session);
    }
    return tls_start(t, br_ssl_client_reset(cc, tls_check_sni(t->check), offered));
}

struct stream *tls_server(struct stream *under, const struct identity *identity, struct tls_cache *cache)
{
    struct tls *t = tls_new(under, false);
    br_ssl_server_context *sc = &t->ctx.server;
    const struct identity *i = t->identity = identity_ref(identity);
    if (br_skey_decoder_key_type(&i->key) == BR_KEYTYPE_RSA)
        br_ssl_server_init_full_rsa(sc, i->chain, i->n, br_skey_decoder_get_rsa(&i->key));
    else
        br_ssl_server_init_full_ec(sc, i->chain, i->n, i->signer_key_type, br_skey_decoder_get_ec(&i->key));
    set_engine(t->eng);
    if (cache != NULL) {
        CHECK_MAGIC(cache, CACHE_MAGIC);
        cache->refs++;
        t->cache = cache;
        br_ssl_server_set_cache(sc, &cache->vtable);
    }
    lend_first_buffers(t);
    return tls_start(t, br_ssl_server_reset(sc));
}

/* ---- sessions ---- */

_Static_assert(sizeof(br_ssl_session_parameters) <= TLS_SESSION_SIZE, "TLS_SESSION_SIZE is too small");

void tls_session_clear(struct tls_session *s)
{
    mem_wipe(s, sizeof *s);
}

bool tls_session_is_some(const struct tls_session *s)
{
    br_ssl_session_parameters session;
    memcpy(&session, s->opaque, sizeof session);
    bool some = session.session_id_len > 0;
    mem_wipe(&session, sizeof session);
    return some;
}

static struct tls_cache *cache_of(const br_ssl_session_cache_class **ctx)
{
    struct tls_cache *c = CONTAINER_OF(ctx, struct tls_cache, vtable);
    CHECK_MAGIC(c, CACHE_MAGIC);
    return c;
}

static void cache_save(const br_ssl_session_cache_class **ctx, br_ssl_server_context *sc,
                       const br_ssl_session_parameters *params)
{
    struct tls_cache *c = cache_of(ctx);
    CONTAINER_OF(sc, struct tls, ctx.server)->resumed = false;
    c->lru.vtable->save(&c->lru.vtable, sc, params);
}

static int cache_load(const br_ssl_session_cache_class **ctx, br_ssl_server_context *sc,
                      br_ssl_session_parameters *params)
{
    struct tls_cache *c = cache_of(ctx);
    int found = c->lru.vtable->load(&c->lru.vtable, sc, params);
    CONTAINER_OF(sc, struct tls, ctx.server)->resumed = found != 0;
    return found;
}

static const br_ssl_session_cache_class cache_class = {
    .context_size = sizeof(struct tls_cache),
    .save = cache_save,
    .load = cache_load,
};

struct tls_cache *tls_cache_new(void)
{
    struct tls_cache *c;
    NEW(c);
    c->vtable = &cache_class;
    c->magic = CACHE_MAGIC;
    c->refs = 1;
    br_ssl_session_cache_lru_init(&c->lru, c->store, sizeof c->store);
    return c;
}

void tls_cache_free(struct tls_cache *c)
{
    if (c == NULL)
        return;
    CHECK_MAGIC(c, CACHE_MAGIC);
    if (--c->refs > 0)
        return;
    mem_wipe(c, sizeof *c);
    mem_free(c);
}

/* ---- questions ---- */

bool tls_is(const struct stream *s)
{
    return s->ops == &tls_ops;
}

void tls_secret(struct stream *s, bool secret)
{
    if (!tls_is(s))
        return;
    struct tls *t = tls_of(s);
    t->secret = secret || (t->secret && t->eng->ibuf != NULL); /* a record under way lies over the last one */
}

bool tls_ended_well(const struct stream *s)
{
    const struct tls *t = (const struct tls *)(const void *)s;
    return !tls_is(s) || t->eng->shutdown_recv;
}

bool tls_unfinished(const struct stream *s)
{
    const struct tls *t = (const struct tls *)(const void *)s;
    return tls_is(s) && t->answered && !t->finished;
}

bool tls_resumed(const struct stream *s)
{
    const struct tls *t = (const struct tls *)(const void *)s;
    return tls_is(s) && t->resumed;
}
