/* A change of the configuration's text.
 *
 * The text is parsed; the splices are found (edit_place.c) by the places of the nodes; the same change is made to the tree; the new
 * text is parsed again, and its tree must be the changed one. So a form of YAML that was not thought of can lead to a refusal, never to
 * a file that says something else. */
#include "conf/edit.h"

#include "conf/complain.h"
#include "conf/edit_int.h"
#include "conf/scalar.h"

static const struct {
    const char *key, *words, *command;
} lists[] = {
    [EDIT_RULES] = {"rules", "rule", "cache"},
    [EDIT_CREDENTIAL_SETS] = {"credential_sets", "credential set", "credential-set"},
};

/* Of a node that is not in the text yet. */
#define NO_PLACE SIZE_MAX

struct editor {
    struct arena *arena;
    const struct edit *edit;
    struct conf_errors *errors;
    struct sheet sheet;
    struct conf_node *root; /* NULL: no document */
    struct conf_node *key;  /* of the list; NULL: not there */
    struct conf_node *item; /* the entry of that name; NULL: not there */
};

void edit_value(struct edit *e, const char *key, struct span text)
{
    MUST(e->n_values < EDIT_VALUES_MAX);
    e->values[e->n_values++] = (struct edit_value){.key = key, .text = text};
}

void edit_scalar(struct str *out, struct span text)
{
    scalar_add(out, text, 0, false);
}

/* ---- looking around ---- */

static struct conf_node *map_find(const struct conf_node *map, struct span key)
{
    if (map == NULL || map->kind != NODE_MAP)
        return NULL;
    for (struct conf_node *k = map->first; k != NULL; k = k->next)
        if (span_eq(k->text, key))
            return k;
    return NULL;
}

/* The text of a key's value; absent when there is none. */
static struct span map_text(const struct conf_node *map, struct span key)
{
    const struct conf_node *k = map_find(map, key);
    return k != NULL && k->value->kind == NODE_SCALAR ? k->value->text : SPAN_NONE;
}

static struct span item_name(const struct conf_node *item)
{
    return map_text(item, SPAN("name"));
}

static struct conf_node *list_of(const struct conf_node *key)
{
    return key != NULL && key->value->kind == NODE_LIST ? key->value : NULL;
}

static bool find_item(struct editor *ed)
{
    const struct conf_node *list = list_of(ed->key);
    for (struct conf_node *i = list != NULL ? list->first : NULL; i != NULL; i = i->next) {
        struct span name = item_name(i);
        if (name.p == NULL || !span_eq(name, ed->edit->name))
            continue;
        if (ed->item != NULL) {
            complain(ed->errors, i->mark,
                     "'%.*s' is the name of the %s on line %u already; rename one of the two first",
                     SHOW(name), lists[ed->edit->list].words, ed->item->mark.line);
            return false;
        }
        ed->item = i;
    }
    return true;
}

static void complain_missing(struct editor *ed)
{
    const struct conf_node *list = list_of(ed->key);
    struct span nearest = SPAN_NONE;
    unsigned best = COMPLAIN_FAR;
    for (const struct conf_node *i = list != NULL ? list->first : NULL; i != NULL; i = i->next) {
        struct span name = item_name(i);
        unsigned d = name.p != NULL ? complain_distance(ed->edit->name, name) : COMPLAIN_FAR;
        if (d < best) {
            best = d;
            nearest = name;
        }
    }
    const char *words = lists[ed->edit->list].words, *command = lists[ed->edit->list].command;
    if (nearest.p != NULL)
        complain(ed->errors, (struct conf_mark){0}, "no %s has the name '%.*s', did you mean '%.*s'?", words,
                 SHOW(ed->edit->name), SHOW(nearest));
    else
        complain(ed->errors, (struct conf_mark){0},
                 "no %s has the name '%.*s'; 'larder %s list' shows the names", words, SHOW(ed->edit->name),
                 command);
}

/* A credential set goes when no rule uses it. */
static bool check_users(struct editor *ed)
{
    const struct conf_node *rules = list_of(map_find(ed->root, SPAN("rules")));
    for (const struct conf_node *i = rules != NULL ? rules->first : NULL; i != NULL; i = i->next) {
        struct span set = map_text(i, SPAN("credential_set")), name = item_name(i);
        if (set.p == NULL || !span_eq(set, ed->edit->name))
            continue;
        complain(ed->errors, i->mark,
                 "rule '%.*s' uses the credential set '%.*s'; change the rule first: larder cache update -n "
                 "%.*s --remove-cred-set",
                 SHOW(name), SHOW(set), SHOW(name));
        return false;
    }
    return true;
}

static bool check_lists(struct editor *ed)
{
    const struct conf_node *root = ed->root;
    bool nothing = root == NULL || (root->kind == NODE_NULL && root->start == root->end);
    if (!nothing && root->kind != NODE_MAP) {
        complain(ed->errors, root->mark,
                 "the file is no mapping: lines of 'key: value', the keys indented alike");
        return false;
    }
    const struct conf_node *v = ed->key != NULL ? ed->key->value : NULL;
    if (v == NULL || v->kind == NODE_LIST || v->kind == NODE_NULL || (v->kind == NODE_MAP && v->n == 0))
        return true;
    complain(ed->errors, v->mark, "%s: must be a list; begin each entry with '- '",
             lists[ed->edit->list].key);
    return false;
}

static bool check_edit(struct editor *ed)
{
    const struct edit *e = ed->edit;
    if (!check_lists(ed) || !find_item(ed))
        return false;
    if (e->verb == EDIT_CREATE && ed->item != NULL) {
        complain(ed->errors, ed->item->mark,
                 "there is a %s '%.*s' already; choose another name, or change it with 'larder %s update'",
                 lists[e->list].words, SHOW(e->name), lists[e->list].command);
        return false;
    }
    if (e->verb != EDIT_CREATE && ed->item == NULL) {
        complain_missing(ed);
        return false;
    }
    return e->verb != EDIT_DELETE || e->list != EDIT_CREDENTIAL_SETS || check_users(ed);
}

/* ---- the tree ---- */

static struct conf_node *node_new(struct editor *ed, enum node_kind kind, struct span text)
{
    struct conf_node *n = arena_alloc(ed->arena, sizeof *n);
    n->kind = kind;
    n->text = text;
    n->start = n->end = NO_PLACE;
    return n;
}

static void node_append(struct conf_node *parent, struct conf_node *child)
{
    if (parent->first == NULL)
        parent->first = child;
    else
        parent->last->next = child;
    parent->last = child;
    parent->n++;
}

static void node_remove(struct conf_node *parent, const struct conf_node *child)
{
    struct conf_node *before = NULL, *n = parent->first;
    for (; n != child; n = n->next)
        before = n;
    *(before != NULL ? &before->next : &parent->first) = n->next;
    if (parent->last == n)
        parent->last = before;
    parent->n--;
}

static void map_add(struct editor *ed, struct conf_node *map, struct span key, struct conf_node *value)
{
    struct conf_node *k = node_new(ed, NODE_SCALAR, key);
    k->value = value;
    node_append(map, k);
}

static bool is_fresh(const struct conf_node *n)
{
    return n->start == NO_PLACE;
}

/* Is `got`, from the new text, what was wanted? */
static bool node_same(const struct conf_node *want, const struct conf_node *got)
{
    if (want == NULL || got == NULL)
        return want == got;
    if (want->kind != got->kind || want->n != got->n || !span_eq(want->text, got->text))
        return false;
    if (!is_fresh(want) && want->quoted != got->quoted)
        return false;
    const struct conf_node *w = want->first, *g = got->first;
    for (; w != NULL && g != NULL; w = w->next, g = g->next)
        if (!node_same(w, g) || !node_same(w->value, g->value))
            return false;
    return w == NULL && g == NULL;
}

/* ---- the three verbs: each finds its splices, then changes the tree ---- */

static bool entry_create(struct editor *ed)
{
    const struct edit *e = ed->edit;
    struct edit_pair pairs[EDIT_VALUES_MAX + 1] = {{.key = "name", .text = e->name}};
    size_t n = 1;
    for (size_t i = 0; i < e->n_values; i++)
        if (e->values[i].text.p != NULL)
            pairs[n++] = (struct edit_pair){.key = e->values[i].key, .text = e->values[i].text};
    if (!place_entry_add(&ed->sheet, ed->root, ed->key, lists[e->list].key, pairs, n))
        return false;

    struct conf_node *item = node_new(ed, NODE_MAP, SPAN_NONE);
    for (size_t i = 0; i < n; i++)
        map_add(ed, item, span_str(pairs[i].key), node_new(ed, NODE_SCALAR, pairs[i].text));
    if (ed->root == NULL || ed->root->kind != NODE_MAP)
        ed->root = node_new(ed, NODE_MAP, SPAN_NONE);
    if (ed->key == NULL) {
        map_add(ed, ed->root, span_str(lists[e->list].key), node_new(ed, NODE_LIST, SPAN_NONE));
        ed->key = ed->root->last;
    } else if (ed->key->value->kind != NODE_LIST) {
        ed->key->value = node_new(ed, NODE_LIST, SPAN_NONE);
    }
    node_append(ed->key->value, item);
    return true;
}

static bool entry_update(struct editor *ed)
{
    if (ed->edit->n_values == 0)
        return true;
    const struct edit_value *v = &ed->edit->values[0];
    struct conf_node *key = map_find(ed->item, span_str(v->key));
    if (v->text.p == NULL) {
        if (key == NULL)
            return true;
        if (!place_key_remove(&ed->sheet, ed->item, key))
            return false;
        node_remove(ed->item, key);
        return true;
    }
    struct conf_node *value = node_new(ed, NODE_SCALAR, v->text);
    if (key == NULL) {
        if (!place_key_add(&ed->sheet, ed->item, (struct edit_pair){.key = v->key, .text = v->text}))
            return false;
        map_add(ed, ed->item, span_str(v->key), value);
        return true;
    }
    if (key->value->kind == NODE_SCALAR && span_eq(key->value->text, v->text))
        return true;
    if (!place_key_set(&ed->sheet, ed->item, key, v->text))
        return false;
    key->value = value;
    return true;
}

static bool entry_delete(struct editor *ed)
{
    if (!place_entry_remove(&ed->sheet, ed->key, ed->item))
        return false;
    node_remove(ed->key->value, ed->item);
    return true;
}

/* Parses the new text; its tree must be the changed one. */
static bool check_result(struct editor *ed, struct span text)
{
    struct conf_error first;
    struct conf_errors errors = {.list = &first, .cap = 1};
    struct conf_node *root;
    return yaml_in_read(ed->arena, text, &errors, &root) && errors.n == 0 && node_same(ed->root, root);
}

static bool apply(struct arena *a, struct span text, const struct edit *e, struct conf_errors *errors,
                  struct span *out)
{
    struct editor ed = {.arena = a, .edit = e, .errors = errors, .sheet = sheet_new(a, text)};
    if (!yaml_in_read(a, text, errors, &ed.root) || errors->n > 0)
        return false;
    ed.key = map_find(ed.root, span_str(lists[e->list].key));
    if (!check_edit(&ed))
        return false;
    const struct conf_node *place = ed.item != NULL ? ed.item : ed.key;
    struct conf_mark mark = place != NULL ? place->mark : (struct conf_mark){0};
    bool ok = e->verb == EDIT_CREATE   ? entry_create(&ed)
              : e->verb == EDIT_UPDATE ? entry_update(&ed)
                                       : entry_delete(&ed);
    ok = ok && sheet_result(&ed.sheet, out) && check_result(&ed, *out);
    if (!ok)
        complain(errors, mark,
                 "the file is written here in a way, or the value has characters, that cannot be edited by "
                 "command; nothing was changed: edit the file by hand");
    return ok;
}

bool edit_apply(struct arena *a, struct span text, const struct edit *e, struct conf_errors *errors,
                struct span *out)
{
    MUST(errors->cap > 0);
    errors->n = 0;
    if (e->verb != EDIT_UPDATE || e->n_values < 2)
        return apply(a, text, e, errors, out);
    /* One value after the other: each has the places of the text that the one before it has made. */
    struct edit one = *e;
    one.n_values = 1;
    for (size_t i = 0; i < e->n_values; i++) {
        one.values[0] = e->values[i];
        if (!apply(a, text, &one, errors, out))
            return false;
        text = *out;
    }
    return true;
}
