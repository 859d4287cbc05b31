/* Every way in which something can fail, as one table: the code's name, the HTTP status and OCI error code that
 * a client sees (OCI distribution-spec "Error Codes"), and the reason: in one word for Cache-Status, in words for log and
 * client. 0 is success. A function that can fail returns int (0 or an ERR_ code) and is marked MUSTCHECK. */
#ifndef LARDER_BASE_ERR_H
#define LARDER_BASE_ERR_H

#include "base/check.h"

/* clang-format off */
/*    name                 status  OCI code        word            words */
#define ERR_TABLE(X)                                                                                                                \
    X(OK,                  200, "",                 "ok",           "ok")                                                           \
    X(BAD_REQUEST,         400, "UNSUPPORTED",      "request",      "malformed request")                                            \
    X(NAME_INVALID,        400, "NAME_INVALID",     "name",         "invalid repository name")                                      \
    X(NS_INVALID,          400, "NAME_INVALID",     "name",         "the parameter ns is longer than a name of a registry")         \
    X(DIGEST_INVALID,      400, "DIGEST_INVALID",   "digest",       "invalid digest")                                               \
    X(DIGEST_UNSUPPORTED,  400, "DIGEST_INVALID",   "digest",       "digest algorithm not supported, use sha256 or sha512")         \
    X(SCHEMA1,             400, "MANIFEST_INVALID", "schema",       "signed manifests of schema 1 are not supported")               \
    X(RANGES,              400, "RANGE_INVALID",    "ranges",       "too many ranges in one request")                               \
    X(PAGE_INVALID,        400, "UNSUPPORTED",      "page",         "the parameter n is not a number")                              \
    X(UP_REFUSED,          400, "UNSUPPORTED",      "refused",      "the upstream registry does not take such a request")           \
    X(NAME_UNKNOWN,        404, "NAME_UNKNOWN",     "no-rule",      "no cache rule for this repository")                            \
    X(NAME_PREFIXED,       404, "NAME_UNKNOWN",     "prefixed",     "?ns= wants the registry's own name: mirror without a path")    \
    X(ROUTE_UNKNOWN,       404, "UNSUPPORTED",      "no-endpoint",  "no such endpoint")                                             \
    X(TAG_INVALID,         404, "MANIFEST_UNKNOWN", "tag",          "manifest unknown: the tag is not valid")                       \
    X(MANIFEST_UNKNOWN,    404, "MANIFEST_UNKNOWN", "unknown",      "manifest unknown to the upstream registry")                    \
    X(BLOB_UNKNOWN,        404, "BLOB_UNKNOWN",     "unknown",      "blob unknown to the upstream registry")                        \
    X(TAGS_UNKNOWN,        404, "NAME_UNKNOWN",     "unknown",      "repository unknown to the upstream registry")                  \
    X(METHOD,              405, "UNSUPPORTED",      "method",       "this registry is a read-only cache")                           \
    X(RANGE,               416, "RANGE_INVALID",    "range",        "requested range not satisfiable")                              \
    X(URI_TOO_LONG,        414, "UNSUPPORTED",      "too-long",     "request target too long")                                      \
    X(HEAD_TOO_LARGE,      431, "UNSUPPORTED",      "too-large",    "request header section too large")                             \
    X(REQUEST_TIMEOUT,     408, "UNSUPPORTED",      "timeout",      "request not received in time")                                 \
    X(DENIED,              403, "DENIED",           "denied",       "the upstream registry refused access")                         \
    X(CREDENTIALS,         403, "DENIED",           "credentials",  "the credentials for the upstream registry cannot be used")     \
    X(CREDENTIALS_REFUSED, 403, "DENIED",           "credentials",  "the upstream registry refused the credentials")                \
    X(REALM,               403, "DENIED",           "token-server", "the upstream registry's token server is not trusted")          \
    X(TOO_MANY,            429, "TOOMANYREQUESTS",  "limited",      "the upstream registry limits requests")                        \
    X(INTERNAL,            500, "UNKNOWN",          "internal",     "internal error")                                               \
    X(UP_RESOLVE,          502, "UNAVAILABLE",      "unresolved",   "the upstream registry's name does not resolve")                \
    X(UP_CONNECT,          502, "UNAVAILABLE",      "unreachable",  "no connection to the upstream registry")                       \
    X(UP_TLS,              502, "UNAVAILABLE",      "untrusted",    "no trusted connection to the upstream registry")               \
    X(UP_CLOSED,           502, "UNAVAILABLE",      "closed",       "the upstream registry closed the connection")                  \
    X(UP_PROTOCOL,         502, "UNAVAILABLE",      "invalid",      "the upstream registry's answer is not valid HTTP")             \
    X(UP_STATUS,           502, "UNAVAILABLE",      "error",        "the upstream registry answered with an error")                 \
    X(UP_CONTENT,          502, "UNAVAILABLE",      "invalid",      "the upstream registry's answer is not what was asked for")     \
    X(UP_VAGUE,            502, "UNAVAILABLE",      "invalid",      "the upstream registry does not prove that it has the content") \
    X(UP_DIGEST,           502, "UNAVAILABLE",      "digest",       "the upstream registry's content does not match its digest")    \
    X(UP_SHORT,            502, "UNAVAILABLE",      "closed",       "the upstream registry's answer ended early")                   \
    X(UP_TOO_LARGE,        502, "UNAVAILABLE",      "too-large",    "the upstream registry's manifest is above the limit")          \
    X(UP_LIST,             502, "UNAVAILABLE",      "too-large",    "the upstream registry's list is too long or lacks its next page") \
    X(UP_REDIRECT,         502, "UNAVAILABLE",      "redirect",     "the upstream registry's redirect was not followed")            \
    X(UP_UNAVAILABLE,      503, "UNAVAILABLE",      "unavailable",  "the upstream registry is not available")                       \
    X(BUSY,                503, "UNAVAILABLE",      "busy",         "too many requests at once")                                    \
    X(STOPPING,            503, "UNAVAILABLE",      "stopping",     "the cache is stopping")                                        \
    X(STORE,               503, "UNAVAILABLE",      "store",        "the cache's storage failed")                                   \
    X(UP_TIMEOUT,          504, "UNAVAILABLE",      "timeout",      "the upstream registry did not answer in time")                 \
    X(CLIENT_GONE,         499, "UNKNOWN",          "client-gone",  "the client went away")

enum err {
#define X(name, status, oci, word, words) ERR_##name,
    ERR_TABLE(X)
#undef X
    ERR_COUNT
};
/* clang-format on */

const char *err_name(int e);  /* "UP_TIMEOUT" */
const char *err_word(int e);  /* "timeout", of a-z and "-" */
const char *err_words(int e); /* never NULL */
int err_status(int e);        /* HTTP status */
const char *err_oci(int e);   /* OCI error code */

#endif
