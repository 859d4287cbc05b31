/* Bodies made of ranges: which bytes, in which order, and how many the head may promise. Bytes of a flight are the business of
 * tests/unit/flight; here they come from memory and from a file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "proxy/proxy_int.h"

#define TEXT     "0123456789abcdefghijklmnopqrstuvwxyz"
#define BOUNDARY "0123456789abcdef01234567"

_Static_assert(sizeof(BOUNDARY) - 1 == BOUNDARY_LEN,
               "the boundary of these tests has the length of a real one");

/* Pulls everything, at most `step` bytes at a time; how many came. */
static size_t drain(struct body *b, uint64_t step, char *out, size_t cap)
{
    size_t n = 0;
    struct body_piece piece;
    enum body_status st;
    while ((st = b->ops->pull(b, &piece)) == BODY_PIECE) {
        assert_true(piece.len > 0);
        uint64_t take = piece.len < step ? piece.len : step;
        assert_true(n + take <= cap);
        if (piece.mem != NULL)
            memcpy(out + n, piece.mem, take);
        else
            assert_int_equal(pread(piece.fd, out + n, take, piece.off), take);
        b->ops->took(b, take);
        n += take;
    }
    assert_int_equal(st, BODY_END);
    return n;
}

/* The body of `content` with these ranges is `expected`, in whatever pieces it is taken, and has the length that it promised. */
static void check(struct content *content, const struct range *ranges, size_t n, const char *expected)
{
    static const uint64_t steps[] = {1, 3, 7, 4096};
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        char got[4096];
        uint64_t total = 0;
        struct body *b = content_body(content, ranges, n, SPAN(BOUNDARY), &total);
        assert_ptr_equal(content->body, b);
        size_t len = drain(b, steps[i], got, sizeof got);
        assert_int_equal(len, strlen(expected));
        assert_memory_equal(got, expected, len);
        assert_int_equal(total, len);
        b->ops->stop(b);
        assert_null(content->body);
    }
}

static struct content in_memory(void)
{
    return (struct content){.bytes = SPAN(TEXT), .length = sizeof(TEXT) - 1, .media = SPAN("application/x")};
}

static void test_whole(void **state)
{
    UNUSED(state);
    struct content c = in_memory();
    check(&c, NULL, 0, TEXT);
}

static void test_empty(void **state)
{
    UNUSED(state);
    struct content c = {.bytes = SPAN(""), .length = 0, .media = SPAN("application/x")};
    check(&c, NULL, 0, "");
}

static void test_one_range_has_no_frame(void **state)
{
    UNUSED(state);
    struct content c = in_memory();
    check(&c, &(struct range){.off = 0, .len = 1}, 1, "0");
    check(&c, &(struct range){.off = 10, .len = 5}, 1, "abcde");
    check(&c, &(struct range){.off = 35, .len = 1}, 1, "z");
    check(&c, &(struct range){.off = 0, .len = 36}, 1, TEXT);
}

/* RFC 9110 section 14.6: a delimiter, the part's type and range, an empty line, the bytes; after the last part the closing
 * delimiter. The parts keep order and number of the request, also when they overlap. */
static void test_multipart_bytes(void **state)
{
    UNUSED(state);
    struct content c = in_memory();
    struct range two[] = {{.off = 10, .len = 3}, {.off = 0, .len = 2}};
    check(&c, two, 2,
          "--" BOUNDARY "\r\nContent-Type: application/x\r\nContent-Range: bytes 10-12/36\r\n\r\nabc"
          "\r\n--" BOUNDARY "\r\nContent-Type: application/x\r\nContent-Range: bytes 0-1/36\r\n\r\n01"
          "\r\n--" BOUNDARY "--\r\n");
    struct range three[] = {{.off = 35, .len = 1}, {.off = 34, .len = 2}, {.off = 35, .len = 1}};
    check(&c, three, 3,
          "--" BOUNDARY "\r\nContent-Type: application/x\r\nContent-Range: bytes 35-35/36\r\n\r\nz"
          "\r\n--" BOUNDARY "\r\nContent-Type: application/x\r\nContent-Range: bytes 34-35/36\r\n\r\nyz"
          "\r\n--" BOUNDARY "\r\nContent-Type: application/x\r\nContent-Range: bytes 35-35/36\r\n\r\nz"
          "\r\n--" BOUNDARY "--\r\n");
}

/* The ranges are copied: the caller's array may go at once. */
static void test_ranges_are_copied(void **state)
{
    UNUSED(state);
    struct content c = in_memory();
    struct range *ranges = calloc(1, sizeof *ranges);
    *ranges = (struct range){.off = 1, .len = 2};
    uint64_t total;
    struct body *b = content_body(&c, ranges, 1, SPAN_NONE, &total);
    free(ranges);
    char got[8];
    assert_int_equal(drain(b, 8, got, sizeof got), 2);
    assert_memory_equal(got, "12", 2);
    b->ops->stop(b);
}

/* As many ranges as a request may have, of an object of terabytes: the promised length is the sum of what is sent. */
static void test_length_of_many_parts(void **state)
{
    UNUSED(state);
    struct content c = {
        .bytes = SPAN(TEXT), .length = (uint64_t)1 << 42, .media = SPAN("application/octet-stream")};
    struct range ranges[RANGE_MAX];
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < RANGE_MAX; i++) {
        ranges[i] = (struct range){.off = i << 31, .len = 1 + i};
        bytes += ranges[i].len;
    }
    uint64_t total, sent = 0, of_objects = 0;
    struct body *b = content_body(&c, ranges, RANGE_MAX, SPAN(BOUNDARY), &total);
    struct body_piece piece;
    const char *begin = c.bytes.p;
    uint64_t off = 0;
    for (size_t i = 0; b->ops->pull(b, &piece) == BODY_PIECE; i++) {
        if (i % 2 == 1 && i / 2 < RANGE_MAX) { /* head, bytes, head, bytes, ..., tail */
            off = ranges[i / 2].off;
            assert_int_equal((uintptr_t)piece.mem - (uintptr_t)begin, off);
            of_objects += piece.len;
        }
        sent += piece.len;
        b->ops->took(b, piece.len);
    }
    assert_int_equal(of_objects, bytes);
    assert_int_equal(sent, total);
    b->ops->stop(b);
}

static void test_bytes_of_a_file(void **state)
{
    UNUSED(state);
    char name[] = "content-test-XXXXXX";
    int fd = mkstemp(name);
    assert_true(fd >= 0);
    unlink(name);
    assert_int_equal(pwrite(fd, TEXT, sizeof(TEXT) - 1, 0), sizeof(TEXT) - 1);
    struct open_object object = {.fd = fd, .size = sizeof(TEXT) - 1};
    struct content c = {.object = &object, .length = object.size, .media = SPAN("application/x")};
    struct body_piece piece;
    uint64_t total;
    struct body *b = content_body(&c, &(struct range){.off = 4, .len = 8}, 1, SPAN_NONE, &total);
    assert_int_equal(b->ops->pull(b, &piece), BODY_PIECE);
    assert_null(piece.mem); /* the bytes stay in the file: sendfile takes them from there */
    assert_int_equal(piece.fd, fd);
    assert_int_equal(piece.off, 4);
    assert_int_equal(piece.len, 8);
    b->ops->took(b, 3);
    assert_int_equal(b->ops->pull(b, &piece), BODY_PIECE);
    assert_int_equal(piece.off, 7);
    assert_int_equal(piece.len, 5);
    b->ops->stop(b);
    check(&c, NULL, 0, TEXT);

    object.bytes = TEXT; /* a small manifest: kept in memory with its file */
    b = content_body(&c, NULL, 0, SPAN_NONE, &total);
    assert_int_equal(b->ops->pull(b, &piece), BODY_PIECE);
    assert_ptr_equal(piece.mem, object.bytes);
    b->ops->stop(b);
    close(fd);
}

static void test_stop_in_the_middle(void **state)
{
    UNUSED(state);
    struct content c = in_memory();
    struct range two[] = {{.off = 10, .len = 3}, {.off = 0, .len = 2}};
    struct body_piece piece;
    uint64_t total;
    for (unsigned taken = 0; taken < 5; taken++) { /* in each part: head, bytes, head, bytes, tail */
        struct body *b = content_body(&c, two, 2, SPAN(BOUNDARY), &total);
        for (unsigned i = 0; i < taken; i++) {
            assert_int_equal(b->ops->pull(b, &piece), BODY_PIECE);
            b->ops->took(b, piece.len);
        }
        b->ops->stop(b);
        assert_null(c.body);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_one_range_has_no_frame),
        cmocka_unit_test(test_multipart_bytes),
        cmocka_unit_test(test_ranges_are_copied),
        cmocka_unit_test(test_length_of_many_parts),
        cmocka_unit_test(test_bytes_of_a_file),
        cmocka_unit_test(test_stop_in_the_middle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
