#include "bench/decoder/process.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* In the child: only calls that are safe between fork and exec. */
static void become(pid_t parent, char *const argv[], int out, int err) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || dup2(out, STDOUT_FILENO) < 0 || dup2(err, STDERR_FILENO) < 0) _exit(127);
    execv("/proc/self/exe", argv);
    _exit(127);
}

/* All of a file, or NULL. */
static char *slurp(int file) {
    off_t bytes = lseek(file, 0, SEEK_END);
    char *text = bytes < 0 ? NULL : malloc((size_t)bytes + 1);
    if (!text) return NULL;
    ssize_t got = pread(file, text, (size_t)bytes, 0);
    text[got > 0 ? got : 0] = 0;
    return text;
}

static int run(char *const argv[], int out, int err, struct process_result *result, struct error *error) {
    pid_t self = getpid(), child = fork();
    if (!child) become(self, argv, out, err);
    if (child < 0) return error_set(error, "a process cannot be started: %s", strerror(errno));
    while (waitpid(child, &result->status, 0) < 0)
        if (errno != EINTR) return error_set(error, "waiting for a process: %s", strerror(errno));
    result->out = slurp(out);
    result->err = slurp(err);
    return result->out && result->err ? 0 : error_set(error, "out of memory");
}

int process_run(char *const argv[], struct process_result *result, struct error *error) {
    int out = memfd_create("stdout", MFD_CLOEXEC), err = memfd_create("stderr", MFD_CLOEXEC), status = -1;
    *result = (struct process_result){.status = 0};
    if (out < 0 || err < 0)
        error_set(error, "files for what a process prints: %s", strerror(errno));
    else
        status = run(argv, out, err, result, error);
    if (out >= 0) close(out);
    if (err >= 0) close(err);
    if (status) process_free(result);
    return status;
}

void process_free(struct process_result *result) {
    free(result->out);
    free(result->err);
    *result = (struct process_result){.status = 0};
}
