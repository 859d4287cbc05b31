/* Every way in which something can fail, as one table: the code's name, the HTTP status and OCI error code that
 * a client sees (OCI distribution-spec "Error Codes"), and the reason in words for log and client. 0 is success.
 * A function that can fail returns int (0 or an ERR_ code) and is marked MUSTCHECK. */
#ifndef LARDER_BASE_ERR_H
#define LARDER_BASE_ERR_H

#include "base/check.h"

/* clang-format off */
/*    name                 status  OCI code             words */
#define ERR_TABLE(X)                                                                                         \
    X(OK,                  200, "",                 "ok")                                                    \
    X(BAD_REQUEST,         400, "UNSUPPORTED",      "malformed request")                                     \
    X(NAME_INVALID,        400, "NAME_INVALID",     "invalid repository name")                               \
    X(TAG_INVALID,         400, "MANIFEST_INVALID", "invalid tag")                                           \
    X(DIGEST_INVALID,      400, "DIGEST_INVALID",   "invalid digest")                                        \
    X(DIGEST_UNSUPPORTED,  400, "DIGEST_INVALID",   "digest algorithm not supported, use sha256 or sha512")  \
    X(NAME_UNKNOWN,        404, "NAME_UNKNOWN",     "no cache rule for this repository")                     \
    X(ROUTE_UNKNOWN,       404, "UNSUPPORTED",      "no such endpoint")                                      \
    X(MANIFEST_UNKNOWN,    404, "MANIFEST_UNKNOWN", "manifest unknown to the upstream registry")             \
    X(BLOB_UNKNOWN,        404, "BLOB_UNKNOWN",     "blob unknown to the upstream registry")                 \
    X(TAGS_UNKNOWN,        404, "NAME_UNKNOWN",     "repository unknown to the upstream registry")           \
    X(METHOD,              405, "UNSUPPORTED",      "this registry is a read-only cache")                    \
    X(RANGE,               416, "RANGE_INVALID",    "requested range not satisfiable")                       \
    X(URI_TOO_LONG,        414, "UNSUPPORTED",      "request target too long")                               \
    X(HEAD_TOO_LARGE,      431, "UNSUPPORTED",      "request header section too large")                      \
    X(REQUEST_TIMEOUT,     408, "UNSUPPORTED",      "request not received in time")                          \
    X(DENIED,              403, "DENIED",           "the upstream registry refused access")                  \
    X(CREDENTIALS,         403, "DENIED",           "the credentials for the upstream registry cannot be used")  \
    X(CREDENTIALS_REFUSED, 403, "DENIED",           "the upstream registry refused the credentials")         \
    X(REALM,               403, "DENIED",           "the upstream registry's token server is not trusted")   \
    X(TOO_MANY,            429, "TOOMANYREQUESTS",  "the upstream registry limits requests")                 \
    X(INTERNAL,            500, "UNKNOWN",          "internal error")                                        \
    X(UP_RESOLVE,          502, "UNAVAILABLE",      "the upstream registry's name does not resolve")         \
    X(UP_CONNECT,          502, "UNAVAILABLE",      "no connection to the upstream registry")          \
    X(UP_TLS,              502, "UNAVAILABLE",      "no trusted connection to the upstream registry")        \
    X(UP_CLOSED,           502, "UNAVAILABLE",      "the upstream registry closed the connection")           \
    X(UP_PROTOCOL,         502, "UNAVAILABLE",      "the upstream registry's answer is not valid HTTP")      \
    X(UP_STATUS,           502, "UNAVAILABLE",      "the upstream registry answered with an error")          \
    X(UP_CONTENT,          502, "UNAVAILABLE",      "the upstream registry's answer is not what was asked for") \
    X(UP_DIGEST,           502, "UNAVAILABLE",      "the upstream registry's content does not match its digest") \
    X(UP_SHORT,            502, "UNAVAILABLE",      "the upstream registry's answer ended early")            \
    X(UP_TOO_LARGE,        502, "UNAVAILABLE",      "the upstream registry's manifest is above the limit")   \
    X(UP_REDIRECT,         502, "UNAVAILABLE",      "the upstream registry's redirect was not followed")     \
    X(UP_UNAVAILABLE,      503, "UNAVAILABLE",      "the upstream registry is not available")                \
    X(BUSY,                503, "UNAVAILABLE",      "too many requests at once")                             \
    X(STOPPING,            503, "UNAVAILABLE",      "the cache is stopping")                                 \
    X(STORE,               503, "UNAVAILABLE",      "the cache's storage failed")                            \
    X(UP_TIMEOUT,          504, "UNAVAILABLE",      "the upstream registry did not answer in time")          \
    X(CLIENT_GONE,         499, "UNKNOWN",          "the client went away")

enum err {
#define X(name, status, oci, words) ERR_##name,
    ERR_TABLE(X)
#undef X
    ERR_COUNT
};
/* clang-format on */

const char *err_name(int e);  /* "UP_TIMEOUT" */
const char *err_words(int e); /* never NULL */
int err_status(int e);        /* HTTP status */
const char *err_oci(int e);   /* OCI error code */

#endif
