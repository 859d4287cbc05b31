/* Docker's config.json and the answers of credential helpers. Room as large as the document is enough; what is found lies in it; a refusal
 * says why. */
#include "base/check.h"
#include "base/mem.h"
#include "registry/docker_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void inside(struct span s, const struct str *room)
{
    MUST(s.p == NULL || (s.p >= room->p && s.p + s.n <= room->p + room->n));
}

static void look(bool ok, const struct docker_credentials *c, const struct str *room, const struct str *why)
{
    MUST(!room->cut && !why->cut);
    MUST(ok || why->n > 0);
    if (!ok)
        return;
    inside(c->helper, room);
    inside(c->user, room);
    inside(c->password, room);
    inside(c->refresh_token, room);
    MUST(c->helper.p == NULL || docker_helper_ok(c->helper));
    MUST(c->helper.p != NULL || c->refresh_token.n > 0 || (c->user.n > 0 && c->password.n > 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct span registries[] = {{"docker.io", 9}, {"a.example", 9}, {"r.example:8443", 14}};
    struct span doc = span_of((const char *)data, size);
    char *text = mem_alloc(2 * size + 1);
    struct docker_credentials found;
    for (size_t i = 0; i <= ARRAY_LEN(registries); i++) {
        char why_text[256];
        struct str room = str_init(text, 2 * size + 1), why = STR_INIT(why_text);
        bool ok = i < ARRAY_LEN(registries) ? docker_config_find(doc, registries[i], &room, &found, &why)
                                            : docker_helper_read(doc, &room, &found, &why);
        look(ok, &found, &room, &why);
    }
    mem_free(text);
    return 0;
}
