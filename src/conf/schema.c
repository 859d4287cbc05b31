/* Values and their types. Every type has one reader from text; the defaults in the table go through the same readers,
 * so what the table says is what happens. A reader complains about its value and leaves the default in place: one
 * mistake gives one message. */
#include "conf/schema.h"

#include "conf/complain.h"
#include "registry/name.h"

enum value_type { BOOL, INTEGER, AUTO_INTEGER, SIZE, SHARE, DURATION, STRING, ENUM, LIST, MAP };

struct schema_key {
    enum schema_section section;
    const char *name;
    enum value_type type;
    int64_t min, max;
    const char *def;   /* "": none; NULL: must be given */
    const char *words; /* ENUM */
    const char *doc;
};

static const struct schema_key keys[KEY_COUNT] = {
#define SECTION(id, path, words)
#define KEY(section, name, type, min, max, def, words, doc)                                                  \
    {SECTION_##section, #name, type, min, max, def, words, doc},
#include "conf/schema.def"
};

static const struct {
    const char *path, *words;
} sections[SECTION_COUNT] = {
#define SECTION(id, path, words) {path, words},
#define KEY(section, name, type, min, max, def, words, doc)
#include "conf/schema.def"
};

enum { SHARE_MAX = 90 }; /* percent */

struct unit {
    struct span name;
    uint64_t factor;
};

static const struct unit duration_units[] = {
    {SPAN("ms"), 1}, {SPAN("s"), SECOND}, {SPAN("m"), MINUTE}, {SPAN("h"), HOUR}, {SPAN("d"), DAY},
};

static const struct unit size_units[] = {
    {SPAN(""), 1}, {SPAN("KiB"), KIB}, {SPAN("MiB"), MIB}, {SPAN("GiB"), GIB}, {SPAN("TiB"), 1024 * GIB},
};

/* What a reader works on: the file's value, or the table's default, about which it has nothing to complain. */
struct reading {
    struct conf_loader *l;
    const struct schema_key *key;
    struct span text;
    bool quoted;
    struct conf_mark mark;
};

#define PATH_FMT      "%s%s: "
#define PATH_ARG(key) sections[(key)->section].path, (key)->name

/* "5m", "4MiB": in the largest unit that gives a whole number. */
static void add_scaled(struct str *s, int64_t v, const struct unit *units, size_t n)
{
    size_t u = n - 1;
    while (u > 0 && (v == 0 || (uint64_t)v % units[u].factor != 0))
        u--;
    str_addu(s, (uint64_t)v / units[u].factor);
    str_add(s, units[u].name);
}

static void add_number(struct str *s, const struct schema_key *k, int64_t v)
{
    if (k->type == DURATION)
        add_scaled(s, v, duration_units, ARRAY_LEN(duration_units));
    else if (k->type == SIZE || k->type == SHARE)
        add_scaled(s, v, size_units, ARRAY_LEN(size_units));
    else
        str_addi(s, v);
}

static bool check_range(const struct reading *r, int64_t n)
{
    const struct schema_key *k = r->key;
    if (n >= k->min && n <= k->max)
        return true;
    char low[32], high[32];
    struct str lo = STR_INIT(low), hi = STR_INIT(high);
    add_number(&lo, k, k->min);
    add_number(&hi, k, k->max);
    complain(r->l->errors, r->mark, PATH_FMT "'%.*s' is outside the limits; write a value from %s to %s",
             PATH_ARG(k), SHOW(r->text), low, high);
    return false;
}

/* Digits, and what follows them. *n: UINT64_MAX when it is too large for any value here. */
static bool split_number(struct span s, uint64_t *n, struct span *unit)
{
    size_t digits = 0;
    while (digits < s.n && s.p[digits] >= '0' && s.p[digits] <= '9')
        digits++;
    *unit = span_from(s, digits);
    if (!span_u64(span_sub(s, 0, digits), INT64_MAX, n))
        *n = UINT64_MAX;
    return digits > 0;
}

/* *out: -1, which is outside all limits, when the number is too large. */
static bool scale(struct span text, const struct unit *units, size_t n_units, int64_t *out)
{
    uint64_t v;
    struct span unit;
    if (!split_number(text, &v, &unit))
        return false;
    for (size_t i = 0; i < n_units; i++) {
        if (!span_eq(unit, units[i].name))
            continue;
        bool fits = v <= (uint64_t)INT64_MAX / units[i].factor;
        *out = fits ? (int64_t)(v * units[i].factor) : -1;
        return true;
    }
    return false;
}

static bool read_duration(const struct reading *r, int64_t *out)
{
    if (scale(r->text, duration_units, ARRAY_LEN(duration_units), out))
        return check_range(r, *out);
    uint64_t v;
    struct span unit;
    if (split_number(r->text, &v, &unit) && unit.n == 0)
        complain(r->l->errors, r->mark, PATH_FMT "'%.*s' has no unit; write %.*ss, %.*sm, %.*sh or %.*sd",
                 PATH_ARG(r->key), SHOW(r->text), SHOW(r->text), SHOW(r->text), SHOW(r->text), SHOW(r->text));
    else
        complain(r->l->errors, r->mark,
                 PATH_FMT
                 "'%.*s' is no duration; write one whole number and one of ms, s, m, h, d, as in 90m",
                 PATH_ARG(r->key), SHOW(r->text));
    return false;
}

static bool read_size(const struct reading *r, int64_t *out)
{
    if (scale(r->text, size_units, ARRAY_LEN(size_units), out))
        return check_range(r, *out);
    uint64_t v;
    struct span unit;
    if (split_number(r->text, &v, &unit) && v != UINT64_MAX) {
        unit = span_trim(unit);
        char letter = unit.n > 0 ? (char)(unit.p[0] & ~0x20) : '\0'; /* upper case */
        if (letter == 'K' || letter == 'M' || letter == 'G' || letter == 'T') {
            complain(r->l->errors, r->mark, PATH_FMT "'%.*s' is no size; write %llu%ciB", PATH_ARG(r->key),
                     SHOW(r->text), (unsigned long long)v, letter);
            return false;
        }
    }
    complain(r->l->errors, r->mark,
             PATH_FMT "'%.*s' is no size; write a whole number and KiB, MiB, GiB or TiB, as in 100GiB",
             PATH_ARG(r->key), SHOW(r->text));
    return false;
}

/* A size, or a whole percentage. */
static bool read_share(const struct reading *r, struct schema_value *v)
{
    uint64_t n;
    v->percent = span_ends(r->text, SPAN("%"));
    if (!v->percent)
        return read_size(r, &v->n);
    if (span_u64(span_sub(r->text, 0, r->text.n - 1), SHARE_MAX, &n)) {
        v->n = (int64_t)n;
        return true;
    }
    v->percent = false;
    complain(r->l->errors, r->mark,
             PATH_FMT "'%.*s' is no share; write a whole percentage from 0%% to %d%%, or a size",
             PATH_ARG(r->key), SHOW(r->text), SHARE_MAX);
    return false;
}

static bool read_integer(const struct reading *r, int64_t *out)
{
    bool automatic = r->key->type == AUTO_INTEGER;
    if (automatic && span_eq(r->text, SPAN("auto"))) {
        *out = 0;
        return true;
    }
    uint64_t v;
    if (r->quoted || !span_u64(r->text, INT64_MAX, &v)) {
        complain(r->l->errors, r->mark, PATH_FMT "'%.*s' is no number; write %sa whole number%s",
                 PATH_ARG(r->key), SHOW(r->text), automatic ? "auto or " : "",
                 r->quoted ? " without quotes" : "");
        return false;
    }
    *out = (int64_t)v;
    return check_range(r, *out);
}

static bool read_bool(const struct reading *r, int64_t *out)
{
    bool yes = span_eq(r->text, SPAN("true"));
    if (!r->quoted && (yes || span_eq(r->text, SPAN("false")))) {
        *out = yes;
        return true;
    }
    complain(r->l->errors, r->mark, PATH_FMT "'%.*s' is neither true nor false; write one of the two%s",
             PATH_ARG(r->key), SHOW(r->text), r->quoted ? " without quotes" : "");
    return false;
}

static bool read_enum(const struct reading *r, int64_t *out)
{
    struct span rest = span_str(r->key->words), word, nearest = SPAN_NONE;
    unsigned best = COMPLAIN_FAR;
    for (int64_t i = 0; span_next(&rest, '|', &word); i++) {
        if (span_eq(word, r->text)) {
            *out = i;
            return true;
        }
        unsigned d = complain_distance(r->text, word);
        if (d < best) {
            best = d;
            nearest = word;
        }
    }
    if (best != COMPLAIN_FAR)
        complain(r->l->errors, r->mark, PATH_FMT "'%.*s' is not one of %s; did you mean '%.*s'?",
                 PATH_ARG(r->key), SHOW(r->text), r->key->words, SHOW(nearest));
    else
        complain(r->l->errors, r->mark, PATH_FMT "'%.*s' is not one of %s; write one of them",
                 PATH_ARG(r->key), SHOW(r->text), r->key->words);
    return false;
}

/* One printable value, not a list, not nothing. */
static bool check_single(struct conf_loader *l, const struct schema_key *k, const struct conf_node *node)
{
    switch (node->kind) {
    case NODE_SCALAR:
        break;
    case NODE_NULL:
        complain(l->errors, node->mark, PATH_FMT "has no value; write one or remove the line", PATH_ARG(k));
        return false;
    case NODE_LIST:
    case NODE_MAP:
        complain(l->errors, node->mark, PATH_FMT "must be a single value, not a %s", PATH_ARG(k),
                 node->kind == NODE_LIST ? "list" : "mapping of keys");
        return false;
    case NODE_BAD:
        return false;
    }
    for (size_t i = 0; i < node->text.n; i++) {
        unsigned char c = (unsigned char)node->text.p[i];
        if (c < 0x20 || c == 0x7F) {
            complain(l->errors, node->mark,
                     PATH_FMT "holds a line break or another control character; remove it", PATH_ARG(k));
            return false;
        }
    }
    return true;
}

static bool check_length(struct conf_loader *l, const struct schema_key *k, const struct conf_node *node,
                         int64_t min, int64_t max)
{
    int64_t n = (int64_t)node->text.n;
    if (n < min)
        complain(l->errors, node->mark, PATH_FMT "is empty; write a value", PATH_ARG(k));
    else if (n > max)
        complain(l->errors, node->mark, PATH_FMT "has %lld characters; at most %lld are allowed", PATH_ARG(k),
                 (long long)n, (long long)max);
    return n >= min && n <= max;
}

static bool read_list(struct conf_loader *l, const struct schema_key *k, const struct conf_node *node,
                      struct schema_value *v)
{
    if (node->kind == NODE_BAD)
        return false;
    if (node->kind != NODE_LIST) {
        complain(l->errors, node->mark, PATH_FMT "must be a list; begin each entry with '- '", PATH_ARG(k));
        return false;
    }
    int64_t n = (int64_t)node->n;
    if (n < k->min || n > k->max) {
        complain(l->errors, node->mark, PATH_FMT "has %lld entries; write %lld to %lld, or leave the key out",
                 PATH_ARG(k), (long long)n, (long long)k->min, (long long)k->max);
        return false;
    }
    v->node = n > 0 ? node : NULL;
    return true;
}

/* A value that is one piece of text; `node` is NULL for the default. */
static bool read_scalar(struct conf_loader *l, const struct schema_key *k, const struct conf_node *node,
                        struct schema_value *v)
{
    struct reading r = {.l = l, .key = k, .text = span_str(k->def)};
    if (node != NULL) {
        r.text = node->text;
        r.quoted = node->quoted;
        r.mark = node->mark;
    }
    v->text = r.text;
    switch (k->type) {
    case BOOL:
        return read_bool(&r, &v->n);
    case INTEGER:
    case AUTO_INTEGER:
        return read_integer(&r, &v->n);
    case SIZE:
        return read_size(&r, &v->n);
    case SHARE:
        return read_share(&r, v);
    case DURATION:
        return read_duration(&r, &v->n);
    case ENUM:
        return read_enum(&r, &v->n);
    case STRING:
        return node == NULL || check_length(l, k, node, k->min, k->max);
    case LIST:
    case MAP:
        break;
    }
    check_failed(__FILE__, __LINE__, __func__, "a scalar type");
}

static void load_defaults(struct conf_loader *l, enum schema_section section, struct conf_mark mark)
{
    for (size_t i = 0; i < KEY_COUNT; i++) {
        const struct schema_key *k = &keys[i];
        if (k->section != section)
            continue;
        struct schema_value *v = &l->value[i];
        *v = (struct schema_value){.state = VALUE_ABSENT, .mark = mark};
        if (k->def != NULL && k->def[0] != '\0')
            MUST(read_scalar(l, k, NULL, v));
    }
}

static const struct schema_key *find_key(enum schema_section section, struct span name)
{
    for (size_t i = 0; i < KEY_COUNT; i++)
        if (keys[i].section == section && span_eq(span_str(keys[i].name), name))
            return &keys[i];
    return NULL;
}

/* "password:hunter2" is one word: the blank behind the colon is missing. What stands there is not repeated. */
static bool complain_colon(struct conf_loader *l, const struct conf_node *node)
{
    ptrdiff_t colon = span_find(node->text, ':');
    struct span name = span_sub(node->text, 0, colon < 0 ? 0 : (size_t)colon);
    if (colon < 0)
        return false;
    complain(l->errors, node->mark, "unknown key '%.*s:...'; write a blank behind the colon of a key",
             SHOW(name));
    return true;
}

static void complain_unknown(struct conf_loader *l, enum schema_section section, const struct conf_node *node)
{
    if (complain_colon(l, node))
        return;
    const struct schema_key *nearest = NULL, *elsewhere = NULL;
    unsigned best = COMPLAIN_FAR;
    char buf[256];
    struct str known = STR_INIT(buf);
    for (size_t i = 0; i < KEY_COUNT; i++) {
        const struct schema_key *k = &keys[i];
        if (k->section != section) {
            if (elsewhere == NULL && span_eq(span_str(k->name), node->text))
                elsewhere = k;
            continue;
        }
        str_addf(&known, "%s%s", known.n > 0 ? ", " : "", k->name);
        unsigned d = complain_distance(node->text, span_str(k->name));
        if (d < best) {
            best = d;
            nearest = k;
        }
    }
    if (nearest != NULL)
        complain(l->errors, node->mark, "unknown key '%.*s', did you mean '%s'?", SHOW(node->text),
                 nearest->name);
    else if (elsewhere != NULL)
        complain(l->errors, node->mark, "unknown key '%.*s' in %s; it belongs in %s, as %s%s",
                 SHOW(node->text), sections[section].words, sections[elsewhere->section].words,
                 PATH_ARG(elsewhere));
    else
        complain(l->errors, node->mark, "unknown key '%.*s' in %s; the keys here are %s", SHOW(node->text),
                 sections[section].words, buf);
}

static void load_value(struct conf_loader *l, const struct schema_key *k, const struct conf_node *node)
{
    struct schema_value *v = &l->value[k - keys], def = *v;
    v->mark = node->value->mark;
    if ((k->type == LIST || k->type == MAP) && node->value->kind == NODE_NULL)
        return;
    bool ok;
    if (k->type == LIST) {
        ok = read_list(l, k, node->value, v);
    } else if (k->type == MAP) {
        v->node = node->value;
        ok = true;
    } else {
        ok = check_single(l, k, node->value) && read_scalar(l, k, node->value, v);
    }
    if (!ok) {
        *v = def;
        v->mark = node->value->mark;
    }
    v->state = ok ? VALUE_SET : VALUE_BAD;
}

static bool check_required(struct conf_loader *l, enum schema_section section, const struct conf_node *map)
{
    bool ok = true;
    for (size_t i = 0; i < KEY_COUNT; i++) {
        const struct schema_key *k = &keys[i];
        if (k->section != section || k->def != NULL || l->value[i].state == VALUE_SET)
            continue;
        ok = false;
        if (l->value[i].state == VALUE_ABSENT)
            complain(l->errors, map->mark, "%s here has no '%s'; add %s: %s", sections[section].words,
                     k->name, k->name, k->doc);
    }
    return ok;
}

bool schema_load(struct conf_loader *l, enum schema_section section, const struct conf_node *map)
{
    load_defaults(l, section, map != NULL ? map->mark : (struct conf_mark){0});
    if (map == NULL)
        return true;
    if (map->kind == NODE_BAD)
        return false;
    if (map->kind != NODE_MAP) {
        complain(l->errors, map->mark, "%s must be a mapping: lines of 'key: value', the keys indented alike",
                 sections[section].words);
        return false;
    }
    for (const struct conf_node *node = map->first; node != NULL; node = node->next) {
        const struct schema_key *k = find_key(section, node->text);
        if (k != NULL)
            load_value(l, k, node);
        else
            complain_unknown(l, section, node);
    }
    return check_required(l, section, map);
}

bool schema_name(struct conf_loader *l, enum schema_id key)
{
    const struct schema_value *v = &l->value[key];
    if (v->state != VALUE_SET)
        return false;
    for (size_t i = 0; i < v->text.n; i++) {
        char c = v->text.p[i];
        bool alnum = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (alnum || c == '.' || c == '_' || c == '-')
            continue;
        complain(l->errors, v->mark,
                 PATH_FMT "'%.*s' has other characters than letters, digits, '.', '_', '-'; replace them",
                 PATH_ARG(&keys[key]), SHOW(v->text));
        return false;
    }
    return true;
}

bool schema_registry(struct conf_loader *l, enum schema_id key, struct str *out)
{
    const struct schema_value *v = &l->value[key];
    if (v->state != VALUE_SET)
        return false;
    if (name_registry_canonical(v->text, out))
        return true;
    if (span_find(v->text, '@') >= 0) /* what stands before it may be a password */
        complain(l->errors, v->mark, PATH_FMT "this holds a user name or '@'; write host or host:port",
                 PATH_ARG(&keys[key]));
    else
        complain(l->errors, v->mark,
                 PATH_FMT "'%.*s' is no registry; write host or host:port only, as in docker.io",
                 PATH_ARG(&keys[key]), SHOW(v->text));
    return false;
}

struct conf_path schema_path(const struct conf_loader *l, enum schema_id key)
{
    const struct schema_value *v = &l->value[key];
    if (v->state != VALUE_SET)
        return (struct conf_path){.path = SPAN_NONE};
    return (struct conf_path){.path = arena_span(l->conf->arena, v->text), .mark = v->mark};
}

bool schema_string(struct conf_loader *l, enum schema_id key, const struct conf_node *node, struct span *out)
{
    enum { ENTRY_MAX = 4096 };
    const struct schema_key *k = &keys[key];
    if (!check_single(l, k, node) || !check_length(l, k, node, 1, ENTRY_MAX))
        return false;
    *out = node->text;
    return true;
}

static void add_type(struct str *s, const struct schema_key *k)
{
    static const char *const names[] = {"true|false", "number", "auto|number", "size", "size|%", "duration",
                                        "text",       "",       "list",        "keys"};
    str_addz(s, k->type == ENUM ? k->words : names[k->type]);
    bool numeric = k->type == INTEGER || k->type == AUTO_INTEGER || k->type == SIZE || k->type == SHARE ||
                   k->type == DURATION;
    if (!numeric)
        return;
    str_addc(s, ' ');
    add_number(s, k, k->min);
    str_addz(s, "..");
    if (k->max != INT64_MAX)
        add_number(s, k, k->max);
}

bool conf_schema_line(size_t i, struct conf_schema_line *out)
{
    if (i >= KEY_COUNT)
        return false;
    const struct schema_key *k = &keys[i];
    *out = (struct conf_schema_line){.section = sections[k->section].path,
                                     .words = sections[k->section].words,
                                     .name = k->name,
                                     .def = k->def,
                                     .doc = k->doc};
    struct str t = STR_INIT(out->type);
    add_type(&t, k);
    return true;
}

void conf_schema_text(struct str *out)
{
    struct conf_schema_line k;
    for (size_t i = 0; conf_schema_line(i, &k); i++) {
        char path[64];
        struct str p = STR_INIT(path);
        str_addf(&p, "%s%s", k.section, k.name);
        const char *def = k.def == NULL ? "required" : k.def[0] == '\0' ? "-" : k.def;
        str_addf(out, "%-43s %-23s %-16s %s\n", path, k.type, def, k.doc);
    }
}
