/* From older formats of the index to the present one, in the transaction that opens it: all of it or nothing.
 *
 * Format 1 had the tables tags (as they are now), links (repo 00 digest -> media type) and objects (digest -> size, when stored),
 * each record with a sum of 64 bits and its key. What is damaged in it is left out, as if it were not there. */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "store/index_int.h"

struct migration {
    struct itxn *t;
    uint64_t objects, links, damaged;
};

static int object_from_1(struct migration *m, struct span key, struct span value)
{
    struct pool_entry e = {.o.kind = STORE_BLOB};
    struct fields f;
    struct span full;
    struct digest d;
    bool good = record_open_1(key, value, &f, &full) && key_split_digest(full, &d);
    if (good) {
        e.o.size = fields_number(&f, 8);
        e.o.stored_ms = e.o.access_ms = (int64_t)fields_number(&f, 8);
    }
    if (!good || f.bad) {
        m->damaged++;
        return 0;
    }
    m->objects++;
    return itxn_put_object(m->t, &d, &e);
}

static int link_from_1(struct migration *m, struct span key, struct span value)
{
    struct store_link link;
    struct fields f;
    struct span full;
    struct digest d;
    ptrdiff_t zero = -1;
    if (record_open_1(key, value, &f, &full) && record_owner(&f, &link))
        zero = span_find(full, '\0');
    if (zero < 0 || zero > STORE_REPO_MAX || !key_split_digest(span_from(full, (size_t)zero + 1), &d)) {
        m->damaged++;
        return 0;
    }
    struct key k;
    struct record r;
    key_of_owner(&k, &d, span_sub(full, 0, (size_t)zero));
    record_of_owner(&r, &k, &link);
    m->links++;
    int rc = itxn_put(m->t, &k, &r);
    return rc == 0 && link.media[0] != '\0' ? itxn_set_kind(m->t, &d, &link) : rc;
}

static int each_record(struct migration *m, const char *name,
                       int (*each)(struct migration *m, struct span key, struct span value))
{
    struct db_cursor *c = NULL;
    struct span key, value;
    unsigned table;
    int rc = db_table(m->t->t, name, false, &table);
    if (rc == DB_NOTFOUND)
        return 0;
    if (rc == 0)
        rc = db_cursor_open(m->t->t, table, &c);
    if (rc == 0)
        rc = db_seek(c, span_of("", 0), &key, &value);
    while (rc == 0) {
        rc = each(m, key, value);
        if (rc == 0)
            rc = db_next(c, &key, &value);
    }
    db_cursor_close(c);
    return rc == DB_NOTFOUND ? db_drop(m->t->t, table, true) : rc;
}

int migrate_from_1(struct itxn *t)
{
    struct migration m = {.t = t};
    log_info("store", "bringing the index to the present format; this takes seconds for each million objects",
             LOG_S("path", t->x->store->path));
    int rc = each_record(&m, "objects", object_from_1);
    if (rc == 0)
        rc = each_record(&m, "links", link_from_1);
    if (rc == 0)
        rc = itxn_put_totals(t);
    if (rc == 0)
        log_info("store", "the index has the present format", LOG_U("objects", m.objects),
                 LOG_U("links", m.links), LOG_U("damaged_records", m.damaged));
    return rc;
}
