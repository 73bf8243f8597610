#include "tuner/ahead.h"

#include <pthread.h>
#include <stdlib.h>

enum { MOST_THREADS = 64, MOST_QUEUED = 256 };

struct job {
    const struct kernel *kernel;
    struct problem problem;
    struct config config;
};

struct ahead {
    const struct device *device;
    pthread_t threads[MOST_THREADS];
    int thread_count;
    pthread_mutex_t mutex;
    pthread_cond_t work, idle;
    struct job queue[MOST_QUEUED]; /* a ring */
    int first, count, running;
    bool ending;
};

/* Compiles one job after the other; with the mutex held except while it compiles. */
static void *run(void *context) {
    struct ahead *ahead = context;
    pthread_mutex_lock(&ahead->mutex);
    for (;;) {
        while (!ahead->count && !ahead->ending) pthread_cond_wait(&ahead->work, &ahead->mutex);
        if (ahead->ending) break;
        struct job job = ahead->queue[ahead->first];
        ahead->first = (ahead->first + 1) % MOST_QUEUED;
        ahead->count--;
        ahead->running++;
        pthread_mutex_unlock(&ahead->mutex);
        plan_compile(ahead->device, job.kernel, &job.problem, &job.config, NULL);
        pthread_mutex_lock(&ahead->mutex);
        if (!--ahead->running && !ahead->count) pthread_cond_broadcast(&ahead->idle);
    }
    pthread_mutex_unlock(&ahead->mutex);
    return NULL;
}

struct ahead *ahead_create(const struct device *device, int threads) {
    struct ahead *ahead = calloc(1, sizeof *ahead);
    if (!ahead) return NULL;
    ahead->device = device;
    pthread_mutex_init(&ahead->mutex, NULL);
    pthread_cond_init(&ahead->work, NULL);
    pthread_cond_init(&ahead->idle, NULL);
    if (threads < 1) threads = 1;
    if (threads > MOST_THREADS) threads = MOST_THREADS;
    while (ahead->thread_count < threads && !pthread_create(&ahead->threads[ahead->thread_count], NULL, run, ahead))
        ahead->thread_count++;
    if (ahead->thread_count) return ahead;
    ahead_destroy(ahead);
    return NULL;
}

void ahead_add(struct ahead *ahead, const struct kernel *kernel, const struct problem *problem,
               const struct config *config) {
    pthread_mutex_lock(&ahead->mutex);
    if (ahead->count < MOST_QUEUED) {
        ahead->queue[(ahead->first + ahead->count++) % MOST_QUEUED] = (struct job){kernel, *problem, *config};
        pthread_cond_signal(&ahead->work);
    }
    pthread_mutex_unlock(&ahead->mutex);
}

void ahead_clear(struct ahead *ahead) {
    pthread_mutex_lock(&ahead->mutex);
    ahead->count = 0;
    if (!ahead->running) pthread_cond_broadcast(&ahead->idle);
    pthread_mutex_unlock(&ahead->mutex);
}

void ahead_wait(struct ahead *ahead) {
    pthread_mutex_lock(&ahead->mutex);
    while (ahead->count || ahead->running) pthread_cond_wait(&ahead->idle, &ahead->mutex);
    pthread_mutex_unlock(&ahead->mutex);
}

void ahead_destroy(struct ahead *ahead) {
    if (!ahead) return;
    pthread_mutex_lock(&ahead->mutex);
    ahead->ending = true;
    pthread_cond_broadcast(&ahead->work);
    pthread_mutex_unlock(&ahead->mutex);
    for (int i = 0; i < ahead->thread_count; i++) pthread_join(ahead->threads[i], NULL);
    pthread_cond_destroy(&ahead->work);
    pthread_cond_destroy(&ahead->idle);
    pthread_mutex_destroy(&ahead->mutex);
    free(ahead);
}
