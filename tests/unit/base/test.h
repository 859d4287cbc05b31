/* cmocka with the headers it wants before it. */
#ifndef LARDER_TEST_H
#define LARDER_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define assert_str(s, text) assert_string_equal((s).p, text)
#define assert_span(s, text)                                                                                 \
    do {                                                                                                     \
        assert_int_equal((s).n, sizeof(text) - 1);                                                           \
        assert_memory_equal((s).p, text, sizeof(text) - 1);                                                  \
    } while (0)

#endif
