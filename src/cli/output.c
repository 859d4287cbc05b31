/* See output_int.h. A table is for people: columns as wide as they must be, names in upper case. The values of tab-separated output hold no
 * tabs: the configuration's loader refuses control characters. */
#include <stdio.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/output_int.h"
#include "conf/edit.h"

struct rows {
    const char *const *keys;
    size_t n_keys;
    const struct output_value *values;
    size_t n_rows;
    bool one;
};

static void print_json_text(struct span text)
{
    if (text.p == NULL) {
        fputs("null", stdout);
        return;
    }
    size_t cap = 6 * text.n + 1;
    struct str s = str_init(mem_alloc(cap), cap);
    str_addjson(&s, text);
    printf("\"%s\"", s.p);
    mem_free(s.p);
}

static void print_json_value(const struct output_value *v)
{
    if (v->list == NULL) {
        if (v->bare)
            printf(SPAN_FMT, SPAN_ARG(v->text));
        else
            print_json_text(v->text);
        return;
    }
    putchar('[');
    for (size_t i = 0; i < v->n; i++) {
        fputs(i > 0 ? ", " : "", stdout);
        print_json_text(v->list[i]);
    }
    putchar(']');
}

static void print_json(const struct rows *t)
{
    const char *indent = t->one ? "" : "  ";
    fputs(t->one ? "" : t->n_rows > 0 ? "[\n" : "[", stdout);
    for (size_t r = 0; r < t->n_rows; r++) {
        printf("%s{\n", indent);
        for (size_t k = 0; k < t->n_keys; k++) {
            printf("%s  \"%s\": ", indent, t->keys[k]);
            print_json_value(&t->values[r * t->n_keys + k]);
            fputs(k + 1 < t->n_keys ? ",\n" : "\n", stdout);
        }
        printf("%s}%s\n", indent, r + 1 < t->n_rows ? "," : "");
    }
    fputs(t->one ? "" : "]\n", stdout);
}

static void print_yaml_text(struct span text)
{
    if (text.p == NULL) {
        fputs("null", stdout);
        return;
    }
    size_t cap = 4 * text.n + 3;
    struct str s = str_init(mem_alloc(cap), cap);
    edit_scalar(&s, text);
    fputs(s.p, stdout);
    mem_free(s.p);
}

static void print_yaml(const struct rows *t)
{
    if (!t->one && t->n_rows == 0)
        puts("[]");
    for (size_t i = 0; i < t->n_rows * t->n_keys; i++) {
        const struct output_value *v = &t->values[i];
        const char *indent = t->one ? "" : i % t->n_keys == 0 ? "- " : "  ";
        printf("%s%s:", indent, t->keys[i % t->n_keys]);
        if (v->list != NULL && v->n == 0)
            fputs(" []", stdout);
        for (size_t k = 0; k < v->n && v->list != NULL; k++) {
            printf("\n%s  - ", t->one ? "" : "  ");
            print_yaml_text(v->list[k]);
        }
        if (v->list == NULL) {
            putchar(' ');
            if (v->bare)
                printf(SPAN_FMT, SPAN_ARG(v->text));
            else
                print_yaml_text(v->text);
        }
        putchar('\n');
    }
}

static void print_plain(const struct output_value *v, const char *none)
{
    if (v->list == NULL && v->text.p == NULL)
        fputs(none, stdout);
    else if (v->list == NULL)
        printf(SPAN_FMT, SPAN_ARG(v->text));
    for (size_t i = 0; i < v->n && v->list != NULL; i++)
        printf("%s" SPAN_FMT, i > 0 ? "," : "", SPAN_ARG(v->list[i]));
}

static void print_tsv(const struct rows *t)
{
    for (size_t i = 0; i < t->n_rows * t->n_keys; i++) {
        print_plain(&t->values[i], "");
        putchar((i + 1) % t->n_keys == 0 ? '\n' : '\t');
    }
}

static size_t characters(struct span s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += ((unsigned char)s.p[i] & 0xC0) != 0x80;
    return n;
}

static size_t width_of(const struct output_value *v)
{
    size_t n = v->list != NULL && v->n > 0 ? v->n - 1 : 0;
    for (size_t i = 0; i < v->n && v->list != NULL; i++)
        n += characters(v->list[i]);
    return v->list != NULL ? n : v->text.p != NULL ? characters(v->text) : 1;
}

static size_t column_width(const struct rows *t, size_t k)
{
    size_t width = strlen(t->keys[k]);
    for (size_t r = 0; r < t->n_rows; r++) {
        size_t w = width_of(&t->values[r * t->n_keys + k]);
        width = w > width ? w : width;
    }
    return width;
}

static void print_table(const struct rows *t)
{
    size_t *widths = mem_alloc(t->n_keys * sizeof *widths);
    for (size_t k = 0; k < t->n_keys; k++) {
        widths[k] = column_width(t, k);
        for (const char *c = t->keys[k]; *c != '\0'; c++)
            putchar(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c);
        if (k + 1 < t->n_keys)
            printf("%*s", (int)(widths[k] - strlen(t->keys[k]) + 2), "");
    }
    putchar('\n');
    for (size_t i = 0; i < t->n_rows * t->n_keys; i++) {
        const struct output_value *v = &t->values[i];
        print_plain(v, "-");
        if ((i + 1) % t->n_keys == 0)
            putchar('\n');
        else
            printf("%*s", (int)(widths[i % t->n_keys] - width_of(v) + 2), "");
    }
    mem_free(widths);
}

void output_rows(const char *format, const char *const *keys, size_t n_keys,
                 const struct output_value *values, size_t n_rows, bool one)
{
    const struct rows t = {.keys = keys, .n_keys = n_keys, .values = values, .n_rows = n_rows, .one = one};
    if (format == NULL || strcmp(format, "table") == 0)
        print_table(&t);
    else if (strcmp(format, "json") == 0)
        print_json(&t);
    else if (strcmp(format, "yaml") == 0)
        print_yaml(&t);
    else
        print_tsv(&t);
}
