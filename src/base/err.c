/* The table of errors, unfolded from err.h. */
#include "base/err.h"

static const struct {
    const char *name;
    int status;
    const char *oci;
    const char *word;
    const char *words;
} err_table[ERR_COUNT] = {
#define X(name, status, oci, word, words) [ERR_##name] = {#name, status, oci, word, words},
    ERR_TABLE(X)
#undef X
};

/* A number that is no error of ours is a bug of the caller, and is shown as one. */
static int err_known(int e)
{
    return e >= 0 && e < ERR_COUNT ? e : ERR_INTERNAL;
}

const char *err_name(int e)
{
    return err_table[err_known(e)].name;
}

const char *err_word(int e)
{
    return err_table[err_known(e)].word;
}

const char *err_words(int e)
{
    return err_table[err_known(e)].words;
}

int err_status(int e)
{
    return err_table[err_known(e)].status;
}

const char *err_oci(int e)
{
    return err_table[err_known(e)].oci;
}
