/* What an image consists of. */
#include "base/mem.h"
#include "rig.h"
#include "store/image.h"

enum { INDEX, AMD, ARM, CONFIG, LAYER, MISSING, SUBJECT, ALL };

static void put(struct rig *r, unsigned i, enum store_kind kind)
{
    struct store_change c = {
        .what = CHANGE_PUT_OBJECT, .digest = rig_digest(i), .size = 1u << i, .kind = kind};
    assert_int_equal(rig_apply(r, &c), 0);
}

static void put_refs(struct rig *r, unsigned i, const struct store_ref *refs, size_t n)
{
    struct store_change c = {.what = CHANGE_PUT_REFS, .digest = rig_digest(i), .refs = refs, .n_refs = n};
    assert_int_equal(rig_apply(r, &c), 0);
}

static struct store_ref ref(unsigned i, enum store_role role)
{
    return (struct store_ref){.digest = rig_digest(i), .role = role, .size = 1u << i};
}

/* An index with two platforms, of which one has everything, the other nothing but a layer that both have. */
static void fill(struct rig *r)
{
    put(r, INDEX, STORE_INDEX);
    put(r, AMD, STORE_MANIFEST);
    put(r, CONFIG, STORE_CONFIG);
    put(r, LAYER, STORE_BLOB);
    put(r, SUBJECT, STORE_MANIFEST);
    struct store_ref index[] = {ref(AMD, REF_MANIFEST), ref(ARM, REF_MANIFEST), ref(SUBJECT, REF_SUBJECT)};
    struct store_ref amd[] = {ref(CONFIG, REF_CONFIG), ref(LAYER, REF_LAYER), ref(LAYER, REF_LAYER)};
    struct store_ref arm[] = {ref(MISSING, REF_CONFIG), ref(LAYER, REF_LAYER)};
    put_refs(r, INDEX, index, ARRAY_LEN(index));
    put_refs(r, AMD, amd, ARRAY_LEN(amd));
    put_refs(r, ARM, arm, ARRAY_LEN(arm));
}

/* The objects of `top` as a set of bits; their sizes are the same bits. */
static unsigned members(struct rig *r, unsigned top)
{
    struct digest d = rig_digest(top), *list;
    uint64_t bytes;
    unsigned set = 0;
    size_t n = store_image_objects(r->store, &d, &list, &bytes);
    for (size_t k = 0; k < n; k++) {
        for (unsigned i = 0; i < ALL; i++) {
            struct digest other = rig_digest(i);
            if (digest_eq(&list[k], &other)) {
                assert_int_equal(set & 1u << i, 0);
                set |= 1u << i;
            }
        }
    }
    mem_free(list);
    assert_int_equal(bytes, set);
    return set;
}

static void what_is_here_of_it(void **state)
{
    struct rig *r = *state;
    fill(r);
    assert_int_equal(members(r, INDEX), 1u << INDEX | 1u << AMD | 1u << CONFIG | 1u << LAYER);
    assert_int_equal(members(r, AMD), 1u << AMD | 1u << CONFIG | 1u << LAYER);
    assert_int_equal(members(r, ARM), 1u << LAYER);
    assert_int_equal(members(r, LAYER), 1u << LAYER);
    assert_int_equal(members(r, SUBJECT), 1u << SUBJECT);
    assert_int_equal(members(r, MISSING), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_here_of_it, rig_setup, rig_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
