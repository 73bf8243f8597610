#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "kernels/cpu/cpu.h"

struct worker {
    struct cpu_pool *pool;
    pthread_t thread;
    int index;
    void *scratch;
};

/* A call opens a job; threads that wake in time join it, and those that wake too late sleep on. */
struct cpu_pool {
    pthread_mutex_t mutex;
    pthread_cond_t work, done;
    struct worker **workers; /* the caller is worker 0 and has no thread */
    int count;
    size_t scratch_bytes;
    bool open, stop;
    unsigned long job;
    int threads; /* that may join the job */
    int active;  /* that did and are not done */
    void (*task)(const void *context, int index, void *scratch);
    const void *context;
    int tasks;
    atomic_int next;
};

static void work(struct cpu_pool *pool, void *scratch) {
    for (int i; (i = atomic_fetch_add(&pool->next, 1)) < pool->tasks;) pool->task(pool->context, i, scratch);
}

static void *worker_main(void *argument) {
    struct worker *self = argument;
    struct cpu_pool *pool = self->pool;
    unsigned long seen = 0;
    pthread_mutex_lock(&pool->mutex);
    while (!pool->stop) {
        if (!pool->open || pool->job == seen || self->index >= pool->threads) {
            pthread_cond_wait(&pool->work, &pool->mutex);
            continue;
        }
        seen = pool->job;
        pool->active++;
        pthread_mutex_unlock(&pool->mutex);
        work(pool, self->scratch);
        pthread_mutex_lock(&pool->mutex);
        if (!--pool->active) pthread_cond_signal(&pool->done);
    }
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

struct cpu_pool *cpu_pool_create(void) {
    struct cpu_pool *pool = calloc(1, sizeof *pool);
    if (!pool) return NULL;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->done, NULL);
    return pool;
}

void cpu_pool_destroy(struct cpu_pool *pool) {
    if (!pool) return;
    pthread_mutex_lock(&pool->mutex);
    pool->stop = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
    for (int i = 0; i < pool->count; i++) {
        if (i) pthread_join(pool->workers[i]->thread, NULL);
        free(pool->workers[i]->scratch);
        free(pool->workers[i]);
    }
    free(pool->workers);
    pthread_cond_destroy(&pool->work);
    pthread_cond_destroy(&pool->done);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}

static int grow_scratch(struct cpu_pool *pool, size_t bytes, struct error *error) {
    if (bytes <= pool->scratch_bytes) return 0;
    bytes = (bytes + 63) / 64 * 64;
    for (int i = 0; i < pool->count; i++) {
        void *scratch = aligned_alloc(64, bytes);
        if (!scratch) return error_set(error, "cpu: no memory for %zu bytes of scratch for each thread", bytes);
        free(pool->workers[i]->scratch);
        pool->workers[i]->scratch = scratch;
    }
    pool->scratch_bytes = bytes;
    return 0;
}

static int add_worker(struct cpu_pool *pool, struct error *error) {
    struct worker *worker = calloc(1, sizeof *worker);
    struct worker **workers = realloc(pool->workers, (size_t)(pool->count + 1) * sizeof *workers);
    if (workers) pool->workers = workers;
    if (worker && pool->scratch_bytes) worker->scratch = aligned_alloc(64, pool->scratch_bytes);
    if (!worker || !workers || (pool->scratch_bytes && !worker->scratch)) {
        if (worker) free(worker->scratch);
        free(worker);
        return error_set(error, "cpu: no memory for thread %d", pool->count + 1);
    }
    worker->pool = pool;
    worker->index = pool->count;
    if (worker->index && pthread_create(&worker->thread, NULL, worker_main, worker)) {
        free(worker->scratch);
        free(worker);
        return error_set(error, "cpu: thread %d could not be started; try a configuration with fewer threads",
                         pool->count + 1);
    }
    pool->workers[pool->count++] = worker;
    return 0;
}

int cpu_reserve(const struct device *device, int threads, size_t scratch_bytes, struct error *error) {
    struct cpu_pool *pool = device->state;
    if (grow_scratch(pool, scratch_bytes, error)) return -1;
    while (pool->count < threads)
        if (add_worker(pool, error)) return -1;
    return 0;
}

void cpu_parallel(const struct device *device, int threads, int tasks,
                  void (*task)(const void *context, int index, void *scratch), const void *context) {
    struct cpu_pool *pool = device->state;
    bool alone = threads < 2 || tasks < 2;
    pthread_mutex_lock(&pool->mutex);
    pool->task = task;
    pool->context = context;
    pool->tasks = tasks;
    pool->threads = threads;
    atomic_store(&pool->next, 0);
    pool->open = !alone;
    pool->job++;
    if (!alone) pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
    work(pool, pool->workers[0]->scratch);
    pthread_mutex_lock(&pool->mutex);
    pool->open = false;
    while (pool->active) pthread_cond_wait(&pool->done, &pool->mutex);
    pthread_mutex_unlock(&pool->mutex);
}

int cpu_threads_legal(const struct device *device, int threads, struct error *why) {
    if (threads <= device->multiprocessors) return 0;
    return error_set(why, "threads=%d is more than the %d usable cores", threads, device->multiprocessors);
}

double cpu_estimate(const struct device *device, const struct problem *problem, int threads, int tasks,
                    double operations) {
    const double operations_per_us = 5000, overlap = 0.75, wake_us = 5, each_thread_us = 0.5;
    int rounds = (tasks + threads - 1) / threads;
    double arithmetic = operations / operations_per_us * rounds / tasks;
    double share = device->memory_gbs * threads / device->multiprocessors;
    double memory = problem_bytes(problem) / (share * 1e3);
    double wake = threads > 1 ? wake_us + each_thread_us * threads : 0;
    double hidden = overlap * (arithmetic < memory ? arithmetic : memory);
    return arithmetic + memory - hidden + wake;
}
