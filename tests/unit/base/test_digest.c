#include "test.h"

#include "base/digest.h"
#include "child.h"

/* From FIPS 180-4's examples: "abc", nothing, and a million times "a". */
#define ABC_256 "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define ABC_512                                                                                              \
    "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"                                       \
    "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
#define EMPTY_256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define A_256     "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
#define A_512                                                                                                \
    "e718483d0ce769644e2e42c7bc15b4638e1f98b13b2044285632a803afa973eb"                                       \
    "de0ff244877ea60a4cb0432ce577c31beb009c5c2c49aa2e4eadb217ad8cc09b"

static void parse_gives_back_the_text(void **state)
{
    UNUSED(state);
    static const char *const texts[] = {"sha256:" ABC_256, "sha512:" ABC_512};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct digest d;
        char buf[DIGEST_TEXT_MAX];
        assert_int_equal(digest_parse(span_str(texts[i]), &d), DIGEST_OK);
        assert_string_equal(digest_text(&d, buf), texts[i]);

        char text[300];
        struct str s = STR_INIT(text);
        digest_add(&s, &d);
        str_addc(&s, ' ');
        digest_addhex(&s, &d);
        assert_int_equal(s.n, strlen(texts[i]) + 1 + 2 * digest_raw_len(&d));
        assert_string_equal(text + strlen(texts[i]) + 1, texts[i] + strlen("sha256:"));
    }
}

static void properties_of_the_algorithms(void **state)
{
    UNUSED(state);
    struct digest none = {.alg = DIGEST_NONE}, a, b;
    assert_int_equal(digest_parse(SPAN("sha256:" ABC_256), &a), DIGEST_OK);
    assert_int_equal(digest_parse(SPAN("sha512:" ABC_512), &b), DIGEST_OK);
    assert_int_equal(digest_raw_len(&none), 0);
    assert_int_equal(digest_raw_len(&a), 32);
    assert_int_equal(digest_raw_len(&b), 64);
    assert_string_equal(digest_alg_name(&a), "sha256");
    assert_string_equal(digest_alg_name(&b), "sha512");
    for (size_t i = 32; i < DIGEST_RAW_MAX; i++)
        assert_int_equal(a.raw[i], 0);
}

static void equal_only_with_all_bytes_and_the_algorithm(void **state)
{
    UNUSED(state);
    struct digest a, b;
    assert_int_equal(digest_parse(SPAN("sha256:" ABC_256), &a), DIGEST_OK);
    b = a;
    assert_true(digest_eq(&a, &b));
    b.raw[31] ^= 1;
    assert_false(digest_eq(&a, &b));
    b = a;
    b.alg = DIGEST_SHA512;
    assert_false(digest_eq(&a, &b));
    assert_false(digest_eq(&b, &a));
}

static void key_is_algorithm_and_raw_bytes(void **state)
{
    UNUSED(state);
    struct digest d;
    assert_int_equal(digest_parse(SPAN("sha256:" ABC_256), &d), DIGEST_OK);
    struct span key = digest_key(&d);
    assert_int_equal(key.n, 33);
    assert_int_equal(key.p[0], DIGEST_SHA256);
    assert_memory_equal(key.p + 1, "\xba\x78\x16\xbf", 4);
    assert_int_equal(digest_parse(SPAN("sha512:" ABC_512), &d), DIGEST_OK);
    assert_int_equal(digest_key(&d).n, 65);
}

static void bad_texts(void **state)
{
    UNUSED(state);
    static const char *const bad[] = {
        "",
        ":",
        "sha256",
        "sha256:",
        ABC_256,
        ":" ABC_256,
        "sha256:" ABC_256 "0",
        "sha256:" ABC_256 "00",
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015a",
        "sha256:BA7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "sha256:ga7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015a=",
        "sha256: " ABC_256,
        "sha256:" ABC_256 " ",
        " sha256:" ABC_256,
        "sha256:" ABC_512,
        "sha512:" ABC_256,
        "SHA256:" ABC_256,
        "Sha256:" ABC_256,
        "sha256:sha256:" ABC_256,
        "sha+:abc",
        "+sha:abc",
        "a..b:abc",
        "a+-b:abc",
        "a/b:abc",
        "blake3:",
        "blake3:a/b",
        "blake3:a.b",
        "blake3:../../etc/passwd",
        "blake3:a b",
        "blake3:\xc3\xa4",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct digest d = {.alg = DIGEST_SHA512};
        assert_int_equal(digest_parse(span_str(bad[i]), &d), DIGEST_BAD);
        assert_int_equal(d.alg, DIGEST_NONE);
    }
    struct digest d;
    assert_int_equal(digest_parse(SPAN_NONE, &d), DIGEST_BAD);
    assert_int_equal(digest_parse(SPAN("sha256:" ABC_256 "\0"), &d), DIGEST_BAD);
    assert_int_equal(digest_parse(SPAN("blake3:a\0b"), &d), DIGEST_BAD);
}

static void well_formed_but_unknown(void **state)
{
    UNUSED(state);
    static const char *const unknown[] = {
        "blake3:" ABC_256,
        "sha384:abc",
        "multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8",
        "sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564",
        "sha25:" ABC_256,
        "sha2560:" ABC_256,
        "a:b",
        "1.2_3-4+5:Az09=_-",
    };
    for (size_t i = 0; i < ARRAY_LEN(unknown); i++) {
        struct digest d = {.alg = DIGEST_SHA512};
        assert_int_equal(digest_parse(span_str(unknown[i]), &d), DIGEST_UNSUPPORTED);
        assert_int_equal(d.alg, DIGEST_NONE);
    }
}

static void assert_hash(enum digest_alg alg, struct span bytes, size_t step, const char *hex)
{
    struct hasher h;
    struct digest d;
    char text[DIGEST_TEXT_MAX];

    hasher_init(&h, alg);
    while (bytes.n > 0) {
        struct span part = span_sub(bytes, 0, step);
        hasher_update(&h, part.p, part.n);
        bytes = span_from(bytes, step);
    }
    hasher_finish(&h, &d);
    assert_string_equal(digest_text(&d, text) + strlen("sha256:"), hex);
    assert_int_equal(d.alg, alg);
}

static void hashes_known_texts_however_they_are_cut(void **state)
{
    UNUSED(state);
    static char million[1000000];
    memset(million, 'a', sizeof(million));
    struct span a = span_of(million, sizeof(million));

    assert_hash(DIGEST_SHA256, SPAN(""), 1, EMPTY_256);
    assert_hash(DIGEST_SHA256, SPAN("abc"), 1, ABC_256);
    assert_hash(DIGEST_SHA512, SPAN("abc"), 2, ABC_512);
    assert_hash(DIGEST_SHA256, a, sizeof(million), A_256);
    assert_hash(DIGEST_SHA256, a, 61, A_256);
    assert_hash(DIGEST_SHA512, a, sizeof(million), A_512);
    assert_hash(DIGEST_SHA512, a, 127, A_512);
}

static void hash_with_nothing(void)
{
    struct hasher h;
    hasher_init(&h, DIGEST_NONE);
}

static void bad_algorithm(void)
{
    struct digest d = {.alg = 3};
    (void)digest_raw_len(&d);
}

static void misuse_aborts(void **state)
{
    UNUSED(state);
    assert_int_equal(child_run(hash_with_nothing).signal, SIGABRT);
    assert_int_equal(child_run(bad_algorithm).signal, SIGABRT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parse_gives_back_the_text),
        cmocka_unit_test(properties_of_the_algorithms),
        cmocka_unit_test(equal_only_with_all_bytes_and_the_algorithm),
        cmocka_unit_test(key_is_algorithm_and_raw_bytes),
        cmocka_unit_test(bad_texts),
        cmocka_unit_test(well_formed_but_unknown),
        cmocka_unit_test(hashes_known_texts_however_they_are_cut),
        cmocka_unit_test(misuse_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
