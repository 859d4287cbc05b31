#include "registry/error.h"

#define BODY_END "\",\"detail\":null}]}"

/* As much of detail as fits when escaped; what is left out is marked. The escaped length is not known before,
 * so the piece shrinks until it fits. */
static void add_detail(struct str *body, struct span detail)
{
    struct span piece = span_sub(detail, 0, ERROR_BODY_MAX);
    for (;;) {
        char buf[ERROR_BODY_MAX];
        struct str text = str_init(buf, body->cap - body->n);
        str_addjson(&text, piece);
        if (piece.n < detail.n)
            str_add(&text, SPAN("..."));
        if (!text.cut) {
            str_add(body, str_span(&text));
            return;
        }
        MUST(piece.n > 0);
        piece.n -= piece.n / 8 + 1;
        /* not in the middle of a UTF-8 sequence */
        while (piece.n > 0 && ((unsigned char)detail.p[piece.n] & 0xc0) == 0x80)
            piece.n--;
    }
}

void error_body(struct str *out, int err, struct span detail)
{
    char buf[ERROR_BODY_MAX];
    struct str body = str_init(buf, sizeof(buf) - (sizeof(BODY_END) - 1));
    str_add(&body, SPAN("{\"errors\":[{\"code\":\""));
    str_addz(&body, err_oci(err));
    str_add(&body, SPAN("\",\"message\":\""));
    str_addjson(&body, span_str(err_words(err)));
    if (detail.n > 0) {
        str_add(&body, SPAN(": "));
        add_detail(&body, detail);
    }
    str_add(out, str_span(&body));
    str_add(out, SPAN(BODY_END));
}
