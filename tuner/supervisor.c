#include "tuner/supervisor.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/progress.h"

enum { ATTEMPTS = 2 }; /* of a trial whose worker is killed from outside */

static const double open_limit_s = 60, data_limit_s = 300, compile_limit_s = 120;
static const double run_limit_s = 10, run_limit_calls = 50;
static const double slow_cpu_flops = 1e9, slow_gpu_flops = 1e13; /* what no legal configuration should fall below */
static const double farewell_s = 5, death_s = 30;
static const double look_s = 0.1;

/* --- the worker's life --- */

/* In the child: only calls that are safe between fork and exec. */
static void become_worker(pid_t supervisor, int socket, const char *device) {
    const struct rlimit no_core = {0, 0};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != supervisor) _exit(1);
    /* What a terminal sends reaches both: the supervisor decides when to stop, and takes the worker along. */
    signal(SIGHUP, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGQUIT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    setrlimit(RLIMIT_CORE, &no_core);
    if (dup2(socket, WORKER_SOCKET) < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0) _exit(1);
    execl("/proc/self/exe", "tilebook", WORKER_COMMAND, device, (char *)NULL);
    _exit(127);
}

static int spawn(struct supervisor *s, const char *device, struct error *error) {
    int ends[2];
    pid_t self = getpid();
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
        return error_set(error, "the worker's socket: %s", strerror(errno));
    s->worker = fork();
    if (!s->worker) become_worker(self, ends[1], device);
    close(ends[1]);
    s->socket = ends[0];
    if (s->worker > 0) {
        s->workers++;
        return 0;
    }
    s->worker = 0;
    close(s->socket);
    return error_set(error, "the worker cannot be started: %s", strerror(errno));
}

static bool reap(struct supervisor *s, double seconds) {
    for (double start = progress_now(); progress_now() - start < seconds; usleep(2000))
        if (waitpid(s->worker, &s->exit_status, WNOHANG)) return true;
    return false;
}

/* How a worker that has ended did so is not changed by the signal. One that a device holds in the kernel is left
 * behind; whether the device is of use is for the next one to find out. */
static void end_worker(struct supervisor *s) {
    close(s->socket);
    kill(s->worker, SIGKILL);
    reap(s, death_s);
    s->worker = 0;
}

void supervisor_close(struct supervisor *s) {
    if (!s->worker) return;
    shutdown(s->socket, SHUT_RDWR);
    if (reap(s, farewell_s))
        close(s->socket);
    else
        end_worker(s);
    s->worker = 0;
}

/* The one signal that no fault raises; those of a terminal are ignored. */
static bool killed_from_outside(const struct supervisor *s) {
    return WIFSIGNALED(s->exit_status) && WTERMSIG(s->exit_status) == SIGKILL;
}

static const char *how_it_ended(const struct supervisor *s, char text[96]) {
    if (WIFSIGNALED(s->exit_status))
        snprintf(text, 96, "the worker was ended by signal %d (%s)", WTERMSIG(s->exit_status),
                 strsignal(WTERMSIG(s->exit_status)));
    else
        snprintf(text, 96, "the worker exited with code %d", WEXITSTATUS(s->exit_status));
    return text;
}

/* --- records --- */

enum outcome { ANSWERED, SILENT, GONE };

/* Each look counts for as long as it may take, and not by the clock: a supervisor that was stopped, and its worker with
 * it, goes on where it was. */
static enum outcome await(struct supervisor *s, double limit_s) {
    struct pollfd ready = {.fd = s->socket, .events = POLLIN};
    for (double waited = 0; waited < limit_s; waited += look_s) {
        if (poll(&ready, 1, (int)(look_s * 1e3)) <= 0) continue;
        ssize_t bytes = recv(s->socket, &s->answer, sizeof s->answer, 0);
        return bytes >= (ssize_t)offsetof(struct worker_answer, sample_us) ? ANSWERED : GONE;
    }
    return SILENT;
}

static int start_worker(struct supervisor *s, const char *device, struct error *error) {
    char text[96];
    for (int attempt = 1;; attempt++) {
        if (spawn(s, device, error)) return -1;
        enum outcome outcome = await(s, open_limit_s);
        if (outcome == ANSWERED && !s->answer.error.text[0]) return 0;
        end_worker(s);
        if (outcome == ANSWERED) return error_set(error, "%s", s->answer.error.text);
        if (outcome == SILENT)
            return error_set(error, "%s: not open after %.0f s; does the device hang? Look with nvidia-smi", device,
                             open_limit_s);
        if (!killed_from_outside(s) || attempt == ATTEMPTS)
            return error_set(error, "%s: cannot be opened: %s", device, how_it_ended(s, text));
    }
}

/* The description is taken once: other threads may read it while another worker starts. */
int supervisor_open(struct supervisor *s, const char *device, struct error *error) {
    if (start_worker(s, device, error)) return -1;
    s->device = s->answer.device;
    return 0;
}

/* --- one trial --- */

static double limit(const struct supervisor *s, const struct worker_request *request, enum worker_stage stage) {
    if (stage == WORKER_DATA) return data_limit_s;
    if (stage == WORKER_COMPILE) return request->arms * compile_limit_s;
    if (s->limit_s > 0) return request->arms * s->limit_s;
    double slow = s->device.backend == BACKEND_CPU ? slow_cpu_flops : slow_gpu_flops;
    return request->arms * (run_limit_s + run_limit_calls * problem_flops(&request->problem) / slow);
}

/* Follows the worker from stage to stage; `stage` is the one that it did not pass, or the last. */
static enum outcome follow(struct supervisor *s, const struct worker_request *request, enum worker_stage *stage) {
    *stage = WORKER_DATA;
    if (send(s->socket, request, sizeof *request, MSG_NOSIGNAL) != (ssize_t)sizeof *request) return GONE;
    for (;;) {
        enum outcome outcome = await(s, limit(s, request, *stage));
        if (outcome != ANSWERED || s->answer.error.text[0] || s->answer.stage == WORKER_RESULT) return outcome;
        *stage = s->answer.stage + 1;
    }
}

/* Data that cannot be made are not the configuration's fault. */
static int data_failed(const struct problem *problem, const char *why, struct error *error) {
    char text[128];
    error_set(error, "data for %s: %s", problem_text(problem, text), why);
    return 1;
}

/* What failed while it ran may have written anywhere: the next trial gets a new worker. */
static int take_answer(struct supervisor *s, struct trial_result *result, struct error *error) {
    const struct worker_answer *answer = &s->answer;
    if (answer->error.text[0]) {
        *error = answer->error;
        end_worker(s);
        return 1;
    }
    *result = answer->result;
    if (result->status == TRIAL_RUNTIME || result->status == TRIAL_CORRECTNESS) end_worker(s);
    size_t bytes = (size_t)result->samples * sizeof *result->sample_us;
    if (!bytes) return 0;
    result->sample_us = malloc(bytes);
    if (!result->sample_us) return error_set(error, "out of memory");
    memcpy(result->sample_us, answer->sample_us, bytes);
    return 0;
}

static int blame(struct supervisor *s, const struct worker_request *request, enum worker_stage stage,
                 enum outcome outcome, struct trial_result *result, struct error *error) {
    char text[96];
    how_it_ended(s, text);
    if (outcome == SILENT) {
        snprintf(text, sizeof text, "no answer within %.3g s of %s", limit(s, request, stage),
                 stage == WORKER_COMPILE ? "compiling" : "running");
        result->status = TRIAL_TIMEOUT;
    } else if (killed_from_outside(s)) {
        result->status = TRIAL_CONSTRAINT;
    } else {
        result->status = stage == WORKER_COMPILE ? TRIAL_COMPILE : TRIAL_RUNTIME;
    }
    if (stage == WORKER_DATA)
        return data_failed(&request->problem, outcome == SILENT ? "not made in time" : text, error);
    snprintf(result->message, sizeof result->message, "%s", text);
    return 0;
}

/* Request to result, with new workers where that takes some. */
static int ask(struct supervisor *s, const struct worker_request *request, struct trial_result *result,
               struct error *error) {
    enum worker_stage stage;
    enum outcome outcome;
    double start = progress_now();
    int status;
    *result = (struct trial_result){.status = TRIAL_OK};
    for (int attempt = 1;; attempt++) {
        if (!s->worker && start_worker(s, s->device.id, error)) return -1;
        outcome = follow(s, request, &stage);
        if (outcome != ANSWERED) end_worker(s);
        if (outcome != GONE || !killed_from_outside(s) || attempt == ATTEMPTS) break;
    }
    if (outcome == ANSWERED)
        status = take_answer(s, result, error);
    else
        status = blame(s, request, stage, outcome, result, error);
    result->seconds = progress_now() - start;
    return status;
}

static void add_arm(const struct supervisor *s, struct worker_request *request, const struct kernel *kernel,
                    const struct config *config) {
    int place = 0;
    while (s->kernels[place] != kernel) place++;
    request->arm[request->arms].kernel = place;
    request->arm[request->arms++].config = *config;
}

int supervisor_trial(struct supervisor *s, const struct kernel *kernel, const struct problem *problem,
                     const struct config *config, const struct measure_options *options, struct trial_result *result,
                     struct error *error) {
    struct worker_request request = {.problem = *problem, .measure = *options};
    if (request.measure.max_samples > WORKER_SAMPLES) request.measure.max_samples = WORKER_SAMPLES;
    add_arm(s, &request, kernel, config);
    return ask(s, &request, result, error);
}

int supervisor_rounds(struct supervisor *s, const struct problem *problem, const struct trial *const *arms, int count,
                      double round_s, enum regime regime, struct trial_result *result, struct error *error) {
    struct worker_request request = {
        .problem = *problem, .measure.regime = regime, .rounds = FINAL_ROUNDS, .round_s = round_s};
    for (int arm = 0; arm < count; arm++) add_arm(s, &request, arms[arm]->kernel, &arms[arm]->config);
    return ask(s, &request, result, error);
}

int supervisor_chain(struct supervisor *s, const struct chain_gemm gemms[CHAIN_GEMMS], int layers,
                     const struct measure_options *options, struct trial_result *result, struct error *error) {
    struct worker_request request = {.problem = gemms[CHAIN_GATE_UP].problem, .layers = layers, .measure = *options};
    if (request.measure.max_samples > WORKER_SAMPLES) request.measure.max_samples = WORKER_SAMPLES;
    for (int g = 0; g < CHAIN_GEMMS; g++) {
        request.chain[g] = gemms[g].problem;
        add_arm(s, &request, gemms[g].kernel, &gemms[g].config);
    }
    return ask(s, &request, result, error);
}
