/* BearSSL's errors and the alerts of TLS, in words that say what to do. */
#include "net/tls_int.h"

struct words {
    int code;
    const char *text;
};

/* RFC 5246 section 7.2.2, RFC 6066, RFC 7301, RFC 8446. */
static const struct words alerts[] = {
    {10, "unexpected message"},
    {20, "bad record"},
    {40,
     "handshake failure: no cipher suite, curve or signature in common, or it wants a client certificate"},
    {42, "bad certificate"},
    {43, "unsupported certificate"},
    {44, "certificate revoked"},
    {45, "certificate expired"},
    {46, "certificate unknown"},
    {47, "illegal parameter"},
    {48, "unknown authority: it does not trust the certificate it was shown"},
    {49, "access denied"},
    {50, "decode error"},
    {51, "decrypt error"},
    {70, "protocol version: it does not speak TLS 1.2, and larder speaks nothing else"},
    {71, "insufficient security: it wants stronger cipher suites"},
    {80, "internal error"},
    {86, "inappropriate fallback"},
    {90, "cancelled"},
    {100, "no renegotiation"},
    {112, "unrecognised name: it has no certificate for the name it was asked for"},
    {116, "it requires a client certificate"},
    {120, "no application protocol in common (larder offers http/1.1)"},
};

static const struct words errors[] = {
    {BR_ERR_UNSUPPORTED_VERSION,
     "the answer is not TLS, or of a version that larder does not speak (it speaks TLS 1.2)"},
    {BR_ERR_BAD_VERSION, "a record has another version than was agreed"},
    {BR_ERR_BAD_LENGTH, "a record has an impossible length"},
    {BR_ERR_TOO_LARGE, "a record is too long"},
    {BR_ERR_BAD_MAC, "a record was damaged or forged on its way"},
    {BR_ERR_NO_RANDOM, "the system has no random numbers"},
    {BR_ERR_UNKNOWN_TYPE, "a record is of an unknown type"},
    {BR_ERR_UNEXPECTED, "a message came out of turn"},
    {BR_ERR_BAD_ALERT, "an alert is malformed"},
    {BR_ERR_BAD_CIPHER_SUITE, "the peer chose a cipher suite that was not offered"},
    {BR_ERR_BAD_SECRENEG, "the peer failed the check of secure renegotiation"},
    {BR_ERR_EXTRA_EXTENSION, "the peer answers an extension that was not sent"},
    {BR_ERR_BAD_FINISHED, "the handshake's checksum is wrong: it was changed on its way"},
    {BR_ERR_RESUME_MISMATCH, "the resumed session has other parameters than the original"},
    {BR_ERR_INVALID_ALGORITHM,
     "the peer uses an algorithm that was not offered, such as a signature with SHA-1"},
    {BR_ERR_BAD_SIGNATURE,
     "the signature on the key exchange is wrong: the peer does not have the certificate's key"},
    {BR_ERR_WRONG_KEY_USAGE, "the certificate's key is not for this use"},
    {BR_ERR_NO_CLIENT_AUTH, "the client shows no certificate"},
};

static const char *find(const struct words *table, size_t n, int code)
{
    for (size_t i = 0; i < n; i++)
        if (table[i].code == code)
            return table[i].text;
    return NULL;
}

/* `asked`: we are the server, and it is we who refuse: what a handshake failure means then. */
static void add_alert(struct str *out, int alert, bool asked)
{
    const char *text = find(alerts, ARRAY_LEN(alerts), alert);
    if (asked && alert == 40)
        text = "no cipher suite, curve or signature in common with what larder speaks, which is TLS 1.2 (not "
               "1.3)";
    str_addf(out, "TLS alert %d", alert);
    if (text != NULL)
        str_addf(out, ", %s", text);
}

void tls_words(struct str *out, int err, bool client)
{
    if (err >= BR_ERR_SEND_FATAL_ALERT) {
        str_addf(out, "the %s's handshake was refused with ", client ? "server" : "client");
        add_alert(out, err - BR_ERR_SEND_FATAL_ALERT, !client);
        return;
    }
    if (err >= BR_ERR_RECV_FATAL_ALERT) {
        str_addf(out, "the %s refused with ", client ? "server" : "client");
        add_alert(out, err - BR_ERR_RECV_FATAL_ALERT, false);
        return;
    }
    const char *text = find(errors, ARRAY_LEN(errors), err);
    if (text != NULL)
        str_addf(out, "TLS: %s", text);
    else
        str_addf(out, "TLS: a handshake message is malformed (BearSSL error %d)", err);
}
