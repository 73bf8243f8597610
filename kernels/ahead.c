#include "kernels/ahead.h"

#include <pthread.h>
#include <stdlib.h>

enum { MOST_THREADS = 64, MOST_JOBS = 4096 };
enum { WAVE = 4 }; /* of what is planned for a problem, before the next problem's */

/* NONE is a place that is free. DONE stays as long as there is room, so that nothing is queued twice. */
enum state { NONE, WAITING, RUNNING, DONE };

struct job {
    enum state state;
    bool announced;
    int last_turn;        /* the last problem that it is planned for; -1 without */
    int wave;             /* of what was planned for the same problem in a row */
    unsigned long number; /* the order of queueing */
    uint64_t key;         /* of source and options; without a launch, of all that is known */
    const struct kernel *kernel;
    struct problem problem;
    struct config config;
};

struct ahead {
    const struct device *device;
    ahead_compiler *compile;
    pthread_t threads[MOST_THREADS];
    int thread_count;
    pthread_mutex_t mutex;
    pthread_cond_t work, finished;
    struct job jobs[MOST_JOBS];
    int used; /* places that were ever taken */
    unsigned long numbers;
    int planned_turn, planned; /* for that turn in a row */
    int waiting, running;
    bool ending;
};

/* --- the queue; all with the mutex held --- */

static uint64_t hash(uint64_t seed, const char *text) {
    do seed = (seed ^ (unsigned char)*text) * 0x100000001b3; /* FNV-1a, with the NUL */
    while (*text++);
    return seed;
}

static bool compiles(const struct kernel *kernel) {
    return kernel->launch || kernel->compile;
}

static uint64_t key_of(const struct ahead *ahead, const struct kernel *kernel, const struct problem *problem,
                       const struct config *config) {
    struct launch launch = {0};
    char options[LAUNCH_OPTIONS], name[64], text[128];
    if (!kernel->launch) {
        uint64_t key = hash(hash(0xcbf29ce484222325, kernel_full_name(kernel, name)), problem_text(problem, text));
        return hash(key, config_text(kernel, config, options));
    }
    kernel->launch(ahead->device, problem, config, &launch);
    launch_options(kernel, problem, config, &launch, options);
    return hash(hash(0xcbf29ce484222325, launch.source), options);
}

static struct job *find(struct ahead *ahead, uint64_t key) {
    for (int i = 0; i < ahead->used; i++)
        if (ahead->jobs[i].state != NONE && ahead->jobs[i].key == key) return &ahead->jobs[i];
    return NULL;
}

static bool before(const struct job *a, const struct job *b) {
    if (a->announced != b->announced) return a->announced;
    return !a->announced && a->wave != b->wave ? a->wave < b->wave : a->number < b->number;
}

/* What is announced first, in order, then what is planned, wave by wave; NULL if nothing waits. */
static struct job *next(struct ahead *ahead) {
    struct job *best = NULL;
    for (int i = 0; i < ahead->used; i++) {
        struct job *job = &ahead->jobs[i];
        if (job->state == WAITING && (!best || before(job, best))) best = job;
    }
    return best;
}

static void set(struct ahead *ahead, struct job *job, enum state state) {
    ahead->waiting += (state == WAITING) - (job->state == WAITING);
    ahead->running += (state == RUNNING) - (job->state == RUNNING);
    job->state = state;
}

/* A free place, else that of the first that was done; for what is announced also that of the last that is planned. */
static struct job *make_room(struct ahead *ahead, bool announced) {
    struct job *done = NULL, *last = NULL;
    for (int i = 0; i < ahead->used; i++) {
        struct job *job = &ahead->jobs[i];
        if (job->state == NONE) return job;
        if (job->state == DONE && (!done || job->number < done->number)) done = job;
        if (job->state == WAITING && !job->announced && (!last || before(last, job))) last = job;
    }
    if (ahead->used < MOST_JOBS) return &ahead->jobs[ahead->used++];
    return done || !announced ? done : last;
}

/* The wave of one more that is planned. */
static int next_wave(struct ahead *ahead, int turn) {
    if (turn != ahead->planned_turn) ahead->planned = 0;
    ahead->planned_turn = turn;
    return ahead->planned++ / WAVE;
}

/* `turn` is -1 for what is announced. */
static void add(struct ahead *ahead, int turn, const struct kernel *kernel, const struct problem *problem,
                const struct config *config) {
    if (!compiles(kernel)) return;
    uint64_t key = key_of(ahead, kernel, problem, config);
    pthread_mutex_lock(&ahead->mutex);
    int wave = turn < 0 ? 0 : next_wave(ahead, turn);
    struct job *job = find(ahead, key), *room = job ? NULL : make_room(ahead, turn < 0);
    if (room) {
        set(ahead, room, WAITING);
        *room = (struct job){WAITING, false, -1, wave, ahead->numbers++, key, kernel, *problem, *config};
        pthread_cond_signal(&ahead->work);
        job = room;
    }
    if (job && turn < 0) job->announced = true;
    if (job && turn > job->last_turn) job->last_turn = turn;
    if (job && turn >= 0 && wave < job->wave) job->wave = wave;
    pthread_mutex_unlock(&ahead->mutex);
}

void ahead_plan(struct ahead *ahead, int turn, const struct kernel *kernel, const struct problem *problem,
                const struct config *config) {
    add(ahead, turn, kernel, problem, config);
}

void ahead_announce(struct ahead *ahead, const struct kernel *kernel, const struct problem *problem,
                    const struct config *config) {
    add(ahead, -1, kernel, problem, config);
}

void ahead_turn(struct ahead *ahead, int turn) {
    pthread_mutex_lock(&ahead->mutex);
    for (int i = 0; i < ahead->used; i++) {
        struct job *job = &ahead->jobs[i];
        job->announced = false;
        if (job->state == WAITING && job->last_turn < turn) set(ahead, job, NONE);
    }
    pthread_cond_broadcast(&ahead->finished);
    pthread_mutex_unlock(&ahead->mutex);
}

/* A compiler that hangs is left to the worker, which has a limit. */
static void wait_for(struct ahead *ahead, uint64_t key) {
    struct timespec limit;
    struct job *job;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += 60;
    while ((job = find(ahead, key)) && job->state == RUNNING)
        if (pthread_cond_timedwait(&ahead->finished, &ahead->mutex, &limit)) return;
}

void ahead_take(struct ahead *ahead, const struct kernel *kernel, const struct problem *problem,
                const struct config *config) {
    if (!compiles(kernel)) return;
    uint64_t key = key_of(ahead, kernel, problem, config);
    pthread_mutex_lock(&ahead->mutex);
    struct job *job = find(ahead, key);
    if (job && job->state == WAITING) {
        set(ahead, job, DONE);
        pthread_cond_broadcast(&ahead->finished);
    }
    wait_for(ahead, key);
    pthread_mutex_unlock(&ahead->mutex);
}

void ahead_wait(struct ahead *ahead) {
    pthread_mutex_lock(&ahead->mutex);
    while (ahead->waiting || ahead->running) pthread_cond_wait(&ahead->finished, &ahead->mutex);
    pthread_mutex_unlock(&ahead->mutex);
}

/* --- the threads --- */

/* Compiles one job after the other; with the mutex held except while it compiles. A job that runs keeps its place. */
static void *run(void *context) {
    struct ahead *ahead = context;
    pthread_mutex_lock(&ahead->mutex);
    for (;;) {
        while (!ahead->waiting && !ahead->ending) pthread_cond_wait(&ahead->work, &ahead->mutex);
        if (ahead->ending) break;
        struct job *job = next(ahead);
        set(ahead, job, RUNNING);
        pthread_mutex_unlock(&ahead->mutex);
        ahead->compile(ahead->device, job->kernel, &job->problem, &job->config, NULL);
        pthread_mutex_lock(&ahead->mutex);
        set(ahead, job, DONE);
        pthread_cond_broadcast(&ahead->finished);
    }
    pthread_mutex_unlock(&ahead->mutex);
    return NULL;
}

struct ahead *ahead_create(const struct device *device, ahead_compiler *compile, int threads) {
    struct ahead *ahead = calloc(1, sizeof *ahead);
    if (!ahead) return NULL;
    ahead->device = device;
    ahead->compile = compile;
    pthread_mutex_init(&ahead->mutex, NULL);
    pthread_cond_init(&ahead->work, NULL);
    pthread_cond_init(&ahead->finished, NULL);
    if (threads < 1) threads = 1;
    if (threads > MOST_THREADS) threads = MOST_THREADS;
    while (ahead->thread_count < threads && !pthread_create(&ahead->threads[ahead->thread_count], NULL, run, ahead))
        ahead->thread_count++;
    if (ahead->thread_count) return ahead;
    ahead_destroy(ahead);
    return NULL;
}

void ahead_destroy(struct ahead *ahead) {
    if (!ahead) return;
    pthread_mutex_lock(&ahead->mutex);
    ahead->ending = true;
    pthread_cond_broadcast(&ahead->work);
    pthread_mutex_unlock(&ahead->mutex);
    for (int i = 0; i < ahead->thread_count; i++) pthread_join(ahead->threads[i], NULL);
    pthread_cond_destroy(&ahead->work);
    pthread_cond_destroy(&ahead->finished);
    pthread_mutex_destroy(&ahead->mutex);
    free(ahead);
}
