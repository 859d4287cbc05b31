/* Runs a function in a child process: for what must end the process, or may hang it. */
#ifndef LARDER_TEST_CHILD_H
#define LARDER_TEST_CHILD_H

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"

struct child {
    int signal;      /* that ended it, 0: none */
    int status;      /* of exit; 0 when fn returned */
    char text[4096]; /* the start of what it wrote to standard error */
};

static inline struct child child_run(void (*fn)(void))
{
    struct child c = {.signal = 0};
    int ends[2], state;
    size_t n = 0;

    MUST(pipe(ends) == 0);
    pid_t pid = fork();
    MUST(pid >= 0);
    if (pid == 0) {
        MUST(dup2(ends[1], STDERR_FILENO) == STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        fn();
        _exit(0);
    }
    close(ends[1]);
    for (char block[4096];;) {
        ssize_t got = read(ends[0], block, sizeof(block));
        if (got <= 0)
            break;
        size_t room = sizeof(c.text) - 1 - n;
        size_t kept = (size_t)got < room ? (size_t)got : room;
        memcpy(c.text + n, block, kept);
        n += kept;
    }
    close(ends[0]);
    MUST(waitpid(pid, &state, 0) == pid);
    c.signal = WIFSIGNALED(state) ? WTERMSIG(state) : 0;
    c.status = WIFEXITED(state) ? WEXITSTATUS(state) : 0;
    return c;
}

#endif
