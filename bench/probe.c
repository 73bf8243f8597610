#include "bench/probe.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

struct probe *probe_create(struct error *error) {
    struct probe *probe = mmap(NULL, sizeof *probe, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (probe == MAP_FAILED) {
        error_set(error, "memory to share with the process that tries peers: %s", strerror(errno));
        return NULL;
    }
    probe->watch.seconds = PROBE_SECONDS;
    return probe;
}

void probe_destroy(struct probe *probe) {
    if (probe) munmap(probe, sizeof *probe);
}

/* --- in the forked process --- */

/* Signals end it as if nobody had caught them, and it leaves no core behind; with its parent it goes too. */
static void become_expendable(void) {
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGALRM};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) signal(signals[i], SIG_DFL);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static const struct verdict *find(const struct probe *probe, const struct sweep_point *point) {
    char name[64];
    kernel_full_name(point->kernel, name);
    for (int i = 0; i < probe->count; i++)
        if (!strcmp(probe->verdicts[i].kernel, name) && problem_equal(&probe->verdicts[i].problem, &point->problem))
            return &probe->verdicts[i];
    return NULL;
}

static int make_data(struct sweep *sweep, const struct problem *problem, struct error *error) {
    if (sweep->instance && problem_equal(&sweep->instance->problem, problem)) return 0;
    instance_destroy(sweep->instance);
    sweep->instance = NULL;
    return instance_create_copies(sweep->device, problem, sweep->options.seed, 2, &sweep->instance, error);
}

static bool judge(struct sweep_point *point, struct verdict *verdict) {
    struct sweep *sweep = point->sweep;
    struct plan *plan = NULL;
    bool wrong = make_data(sweep, &point->problem, &verdict->why) || sweep_make(point, &plan, NULL, &verdict->why) ||
                 instance_verify_second(sweep->instance, plan, &verdict->why);
    plan_destroy(plan);
    verdict->state = wrong ? VERDICT_WRONG : VERDICT_RIGHT;
    return !wrong;
}

bool probe_points(struct probe *probe, struct sweep *sweep) {
    for (int i = 0; i < sweep->count && probe->count < PROBE_VERDICTS; i++) {
        struct sweep_point *point = &sweep->points[i];
        if (!point->kernel->accepts || find(probe, point)) continue;
        struct verdict *verdict = &probe->verdicts[probe->count];
        *verdict = (struct verdict){.problem = point->problem};
        kernel_full_name(point->kernel, verdict->kernel);
        probe->watch.function = NULL;
        probe->count++;
        if (!judge(point, verdict)) return false;
    }
    return true;
}

/* --- in the one that goes on --- */

/* "signal 11 (Segmentation fault) in run" */
static void describe_end(const struct probe *probe, int status, char *text, size_t size) {
    const char *function = probe->watch.function, *where = probe->watch.inside ? "in" : "after";
    char end[96];
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
        snprintf(end, sizeof end, "no end within %u s", probe->watch.seconds);
    else if (WIFSIGNALED(status))
        snprintf(end, sizeof end, "signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(end, sizeof end, "the process ended with exit code %d", WEXITSTATUS(status));
    snprintf(text, size, "%s %s %s", end, function ? where : "before any call of", function ? function : "the library");
}

static int fork_once(struct probe *probe, probe_work *work, void *context, int *status, struct error *error) {
    fflush(NULL);
    pid_t child = fork();
    if (child < 0) return error_set(error, "a process to try peers in: %s", strerror(errno));
    if (!child) {
        become_expendable();
        peer_set_watch(&probe->watch);
        probe->complete = work(context, probe);
        _exit(0);
    }
    while (waitpid(child, status, 0) < 0)
        if (errno != EINTR) return error_set(error, "waiting for the process that tries peers: %s", strerror(errno));
    return 0;
}

int probe_run(struct probe *probe, probe_work *work, void *context, const char *const *libraries, struct error *error) {
    while (!probe->complete) {
        int before = probe->count, status;
        char end[192];
        if (fork_once(probe, work, context, &status, error)) return -1;
        if (probe->complete) break;
        describe_end(probe, status, end, sizeof end);
        struct verdict *last = probe->count > before ? &probe->verdicts[probe->count - 1] : NULL;
        if (!last) return error_set(error, "--peer %s: %s; nothing was measured", libraries[probe->watch.library], end);
        if (last->state == VERDICT_OPEN) error_set(&last->why, "%s", end);
        if (last->state == VERDICT_OPEN) last->state = VERDICT_WRONG;
    }
    if (probe->count == PROBE_VERDICTS)
        return error_set(error, "peers have %d points or more; sweep fewer at once", PROBE_VERDICTS);
    return 0;
}

void probe_refuse(const struct probe *probe, struct sweep *sweep) {
    for (int i = 0; i < sweep->count; i++) {
        struct sweep_point *point = &sweep->points[i];
        const struct verdict *verdict = point->kernel->accepts ? find(probe, point) : NULL;
        if (verdict && verdict->state == VERDICT_WRONG) point->refused = verdict->why.text;
    }
}
