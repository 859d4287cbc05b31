/* Any text, and an edit of it: it is refused with a complaint, or the new text holds what was asked for. What the editor itself promises is
 * that nothing else has changed; here the entries are counted again without it. */
#include "base/arena.h"
#include "base/check.h"
#include "conf/diff.h"
#include "conf/edit.h"
#include "conf/yaml_in.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct conf_node *value_of(const struct conf_node *map, struct span key)
{
    if (map == NULL || map->kind != NODE_MAP)
        return NULL;
    for (const struct conf_node *k = map->first; k != NULL; k = k->next)
        if (span_eq(k->text, key))
            return k->value;
    return NULL;
}

static bool holds(const struct conf_node *map, const char *key, struct span text)
{
    const struct conf_node *v = value_of(map, span_str(key));
    return v != NULL && v->kind == NODE_SCALAR && span_eq(v->text, text);
}

static const struct conf_node *read_list(struct arena *a, struct span text, enum edit_list list,
                                         const struct edit *e, const struct conf_node **item)
{
    struct conf_error first;
    struct conf_errors errors = {.list = &first, .cap = 1};
    struct conf_node *root;
    MUST(yaml_in_read(a, text, &errors, &root) && errors.n == 0);
    const struct conf_node *v = value_of(root, list == EDIT_RULES ? SPAN("rules") : SPAN("credential_sets"));
    *item = NULL;
    for (const struct conf_node *i = v != NULL ? v->first : NULL; i != NULL; i = i->next)
        if (holds(i, "name", e->name)) {
            MUST(*item == NULL);
            *item = i;
        }
    return v;
}

static void check(struct arena *a, struct span text, struct span out, const struct edit *e)
{
    const struct conf_node *before_item, *item;
    const struct conf_node *before = read_list(a, text, e->list, e, &before_item);
    const struct conf_node *after = read_list(a, out, e->list, e, &item);
    size_t n = before != NULL ? before->n : 0;
    MUST((before_item == NULL) == (e->verb == EDIT_CREATE) && (item == NULL) == (e->verb == EDIT_DELETE));
    MUST(after->n == n + (e->verb == EDIT_CREATE) - (e->verb == EDIT_DELETE));
    for (size_t i = 0; item != NULL && i < e->n_values; i++)
        MUST(e->values[i].text.p != NULL ? holds(item, e->values[i].key, e->values[i].text)
                                         : value_of(item, span_str(e->values[i].key)) == NULL);
    (void)diff_unified(a, text, out, SPAN("f"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3)
        return 0;
    static const char *const names[] = {"a", "b", "hub", "new"};
    struct edit e = {.verb = data[0] % 3, .list = data[0] / 3 % 2, .name = span_str(names[data[1] % 4])};
    struct span text = span_of((const char *)data + 3, size - 3), value = SPAN("x");
    if (data[2] >= 128) /* a piece of the text itself */
        value = span_sub(text, data[2] % 16, data[2] / 16 % 8);
    edit_value(&e, "credential_set", data[2] % 2 == 0 ? value : SPAN_NONE);
    edit_value(&e, "source", value);

    struct conf_error list[4];
    struct conf_errors errors = {.list = list, .cap = 4};
    struct arena *a = arena_new();
    struct span out;
    if (edit_apply(a, text, &e, &errors, &out)) {
        MUST(errors.n == 0);
        check(a, text, out, &e);
    } else {
        MUST(errors.n > 0 && list[0].text[0] != '\0');
    }
    arena_free(a);
    return 0;
}
