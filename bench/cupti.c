#include "bench/cupti.h"

#include <stdbool.h>
#include <stdlib.h>

/* --- the log --- */

static uint64_t hash_name(const char *name) {
    uint64_t hash = 0xcbf29ce484222325;
    while (name && *name) hash = (hash ^ (unsigned char)*name++) * 0x100000001b3;
    return hash;
}

/* The array with room for one more element, or NULL; what was there stays. */
static void *reserve(void *array, size_t count, size_t *room, size_t element) {
    if (count < *room) return array;
    size_t more = *room ? *room * 2 : 1024;
    void *larger = realloc(array, more * element);
    if (larger) *room = more;
    return larger;
}

void cupti_log_kernel(struct cupti_log *log, uint32_t correlation, uint64_t start, uint64_t end, const char *name) {
    struct cupti_kernel *kernels = reserve(log->kernels, log->kernel_count, &log->kernel_room, sizeof *kernels);
    if (!kernels) {
        log->lost++;
        return;
    }
    log->kernels = kernels;
    kernels[log->kernel_count++] = (struct cupti_kernel){
        .start = start, .end = end, .name = hash_name(name), .label = name ? name : "", .correlation = correlation};
}

void cupti_log_tag(struct cupti_log *log, uint32_t correlation, uint64_t sample) {
    struct cupti_tag *tags = reserve(log->tags, log->tag_count, &log->tag_room, sizeof *tags);
    if (!tags) {
        log->lost++;
        return;
    }
    log->tags = tags;
    tags[log->tag_count++] = (struct cupti_tag){sample, correlation};
}

void cupti_log_free(struct cupti_log *log) {
    free(log->kernels);
    free(log->tags);
    *log = (struct cupti_log){.lost = 0};
}

static int compare_tags(const void *a, const void *b) {
    const struct cupti_tag *x = a, *y = b;
    return (x->correlation > y->correlation) - (x->correlation < y->correlation);
}

static int compare_kernels(const void *a, const void *b) {
    const struct cupti_kernel *x = a, *y = b;
    if (x->sample != y->sample) return x->sample > y->sample ? 1 : -1;
    return (x->start > y->start) - (x->start < y->start);
}

/* Keeps the kernels of the samples asked for, sorted by sample and start. */
static void select_kernels(struct cupti_log *log, uint64_t first, int count) {
    size_t kept = 0;
    if (log->tag_count) qsort(log->tags, log->tag_count, sizeof *log->tags, compare_tags);
    for (size_t i = 0; log->tag_count && i < log->kernel_count; i++) {
        struct cupti_kernel *kernel = &log->kernels[i];
        struct cupti_tag key = {.correlation = kernel->correlation};
        const struct cupti_tag *tag = bsearch(&key, log->tags, log->tag_count, sizeof key, compare_tags);
        if (!tag || tag->sample < first || tag->sample >= first + (uint64_t)count) continue;
        kernel->sample = tag->sample;
        log->kernels[kept++] = *kernel;
    }
    log->kernel_count = kept;
    if (kept) qsort(log->kernels, kept, sizeof *log->kernels, compare_kernels);
}

static int check_time(const struct cupti_kernel *kernel, struct error *error) {
    if (kernel->start && kernel->end > kernel->start) return 0;
    return error_set(error, "cupti: a kernel record has no time (start %llu ns, end %llu ns)",
                     (unsigned long long)kernel->start, (unsigned long long)kernel->end);
}

static int check_lost(const struct cupti_log *log, struct error *error) {
    if (!log->lost) return 0;
    return error_set(error, "cupti: %zu records were dropped; the times are incomplete", log->lost);
}

static void empty(struct cupti_log *log) {
    log->kernel_count = log->tag_count = log->lost = 0;
}

/* Adds up the kernels of one sample from *next on. */
static int add_sample(const struct cupti_log *log, size_t *next, uint64_t index, struct cupti_sample *sample,
                      struct error *error) {
    uint64_t sum = 0;
    *sample = (struct cupti_sample){.names = 0};
    for (; *next < log->kernel_count && log->kernels[*next].sample == index; ++*next) {
        const struct cupti_kernel *kernel = &log->kernels[*next];
        if (check_time(kernel, error)) return -1;
        if (!sample->kernels++) sample->start = kernel->start;
        if (kernel->end > sample->end) sample->end = kernel->end;
        sum += kernel->end - kernel->start;
        sample->names += kernel->name;
    }
    sample->sum_us = (double)sum / 1e3;
    sample->span_us = (double)(sample->end - sample->start) / 1e3;
    return 0;
}

static int make_samples(struct cupti_log *log, uint64_t first, int count, struct cupti_sample *samples,
                        struct error *error) {
    size_t next = 0;
    if (check_lost(log, error)) return -1;
    select_kernels(log, first, count);
    for (int i = 0; i < count; i++) {
        if (add_sample(log, &next, first + (uint64_t)i, &samples[i], error)) return -1;
        if (!samples[i].kernels) return error_set(error, "cupti: sample %d of %d has no kernel record", i + 1, count);
        if (samples[i].kernels != samples[0].kernels || samples[i].names != samples[0].names)
            return error_set(error, "cupti: sample %d of %d ran other kernels than the first (%d and %d)", i + 1, count,
                             samples[i].kernels, samples[0].kernels);
    }
    return 0;
}

int cupti_log_samples(struct cupti_log *log, uint64_t first, int count, struct cupti_sample *samples,
                      struct error *error) {
    int result = make_samples(log, first, count, samples, error);
    empty(log);
    return result;
}

static int copy_kernels(struct cupti_log *log, uint64_t first, int count, struct cupti_kernel **kernels,
                        size_t *kernel_count, struct error *error) {
    if (check_lost(log, error)) return -1;
    select_kernels(log, first, count);
    for (size_t i = 0; i < log->kernel_count; i++)
        if (check_time(&log->kernels[i], error)) return -1;
    *kernels = malloc(log->kernel_count * sizeof **kernels + 1);
    if (!*kernels) return error_set(error, "out of memory");
    *kernel_count = log->kernel_count;
    for (size_t i = 0; i < log->kernel_count; i++) (*kernels)[i] = log->kernels[i];
    return 0;
}

int cupti_log_kernels(struct cupti_log *log, uint64_t first, int count, struct cupti_kernel **kernels,
                      size_t *kernel_count, struct error *error) {
    *kernels = NULL;
    *kernel_count = 0;
    int result = copy_kernels(log, first, count, kernels, kernel_count, error);
    empty(log);
    return result;
}

/* --- the source of the records --- */

#ifdef TILEBOOK_CUDA

#include <cupti.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "kernels/cuda/driver.h"

static struct {
    __typeof__(cuptiSubscribe) *subscribe;
    __typeof__(cuptiUnsubscribe) *unsubscribe;
    __typeof__(cuptiGetVersion) *version;
    __typeof__(cuptiGetResultString) *result_string;
    __typeof__(cuptiActivityRegisterCallbacks) *register_callbacks;
    __typeof__(cuptiActivityEnable) *enable;
    __typeof__(cuptiActivityDisable) *disable;
    __typeof__(cuptiActivityFlushAll) *flush;
    __typeof__(cuptiActivityGetNextRecord) *next_record;
    __typeof__(cuptiActivityGetNumDroppedRecords) *dropped;
    __typeof__(cuptiActivityPushExternalCorrelationId) *push;
    __typeof__(cuptiActivityPopExternalCorrelationId) *pop;
} api;

static const struct {
    const char *name;
    void *pointer;
} symbols[] = {
    {"cuptiSubscribe", &api.subscribe},
    {"cuptiUnsubscribe", &api.unsubscribe},
    {"cuptiGetVersion", &api.version},
    {"cuptiGetResultString", &api.result_string},
    {"cuptiActivityRegisterCallbacks", &api.register_callbacks},
    {"cuptiActivityEnable", &api.enable},
    {"cuptiActivityDisable", &api.disable},
    {"cuptiActivityFlushAll", &api.flush},
    {"cuptiActivityGetNextRecord", &api.next_record},
    {"cuptiActivityGetNumDroppedRecords", &api.dropped},
    {"cuptiActivityPushExternalCorrelationId", &api.push},
    {"cuptiActivityPopExternalCorrelationId", &api.pop},
};

/* CUPTI calls back on threads of its own; `lock` guards the log and the pool. */
enum { POOL = 16 };
static const size_t buffer_bytes = 4 << 20;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct cupti_log records;
static uint8_t *pool[POOL];
static int pooled;
static const struct device *watched; /* NULL: every GPU */

static char version[32];

static int check(CUptiResult result, const char *what, struct error *error) {
    if (result == CUPTI_SUCCESS) return 0;
    const char *text = NULL;
    api.result_string(result, &text);
    return error_set(error, "cupti: %s: %s", what, text ? text : "unknown error");
}

static void CUPTIAPI buffer_requested(uint8_t **buffer, size_t *size, size_t *most_records) {
    pthread_mutex_lock(&lock);
    *buffer = pooled ? pool[--pooled] : NULL;
    pthread_mutex_unlock(&lock);
    if (!*buffer) *buffer = aligned_alloc(ACTIVITY_RECORD_ALIGNMENT, buffer_bytes);
    *size = *buffer ? buffer_bytes : 0;
    *most_records = 0;
}

static void read_record(const CUpti_Activity *record) {
    if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
        /* Newer versions of this record only add fields behind the ones read here. */
        const CUpti_ActivityKernel9 *kernel = (const CUpti_ActivityKernel9 *)record;
        if (!watched || kernel->deviceId == (uint32_t)watched->index)
            cupti_log_kernel(&records, kernel->correlationId, kernel->start, kernel->end, kernel->name);
    } else if (record->kind == CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION) {
        const CUpti_ActivityExternalCorrelation *tag = (const CUpti_ActivityExternalCorrelation *)record;
        if (tag->externalKind == CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0)
            cupti_log_tag(&records, tag->correlationId, tag->externalId);
    }
}

static void CUPTIAPI buffer_completed(CUcontext context, uint32_t stream, uint8_t *buffer, size_t size, size_t valid) {
    (void)size;
    CUpti_Activity *record = NULL;
    size_t dropped = 0;
    pthread_mutex_lock(&lock);
    while (valid && api.next_record(buffer, valid, &record) == CUPTI_SUCCESS) read_record(record);
    if (api.dropped(context, stream, &dropped) == CUPTI_SUCCESS) records.lost += dropped;
    if (pooled < POOL)
        pool[pooled++] = buffer;
    else
        free(buffer);
    pthread_mutex_unlock(&lock);
}

static void CUPTIAPI no_callback(void *data, CUpti_CallbackDomain domain, CUpti_CallbackId id, const void *info) {
    (void)data, (void)domain, (void)id, (void)info;
}

static int load(struct error *error) {
    static const char *const names[] = {"libcupti.so.13", "libcupti.so.12", NULL};
    void *library = cuda_library(names);
    if (!library) return error_set(error, "cupti: libcupti.so.13 or .12 is not there; it is part of the CUDA Toolkit");
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *symbol = dlsym(library, symbols[i].name);
        if (!symbol) return error_set(error, "cupti: the library lacks %s", symbols[i].name);
        memcpy(symbols[i].pointer, &symbol, sizeof symbol);
    }
    return 0;
}

static int enable_records(struct error *error) {
    static const CUpti_ActivityKind kinds[] = {CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION, CUPTI_ACTIVITY_KIND_RUNTIME,
                                               CUPTI_ACTIVITY_KIND_DRIVER, CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL};
    if (check(api.register_callbacks(buffer_requested, buffer_completed), "buffers", error)) return -1;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (!check(api.enable(kinds[i]), "enabling activity records", error)) continue;
        while (i) api.disable(kinds[--i]);
        return -1;
    }
    return 0;
}

static int attach(struct error *error) {
    CUpti_SubscriberHandle subscriber;
    uint32_t number = 0;
    if (load(error)) return -1;
    /* Nothing is called back through this: holding the one subscription shows whether another tool has it. */
    if (check(api.subscribe(&subscriber, no_callback, NULL), "attaching", error)) return -1;
    if (enable_records(error)) {
        api.unsubscribe(subscriber);
        return -1;
    }
    api.version(&number);
    /* 130001 is 13.0; before 13 the number counted releases on its own: 24. */
    if (number >= 10000)
        snprintf(version, sizeof version, "cupti %u.%u", number / 10000, number / 100 % 100);
    else
        snprintf(version, sizeof version, "cupti api %u", number);
    return 0;
}

int cupti_open(struct error *error) {
    static bool tried;
    static int result;
    static struct error answer;
    if (!tried) result = attach(&answer);
    tried = true;
    return result ? error_set(error, "%s", answer.text) : 0;
}

void cupti_watch(const struct device *device) {
    pthread_mutex_lock(&lock);
    watched = device;
    pthread_mutex_unlock(&lock);
}

int cupti_begin(uint64_t index, struct error *error) {
    return check(api.push(CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0, index), "tagging a sample", error);
}

int cupti_end(struct error *error) {
    uint64_t index;
    return check(api.pop(CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0, &index), "tagging a sample", error);
}

int cupti_collect(uint64_t first, int count, struct cupti_sample *samples, struct error *error) {
    if (check(api.flush(0), "collecting records", error)) return -1;
    pthread_mutex_lock(&lock);
    int result = cupti_log_samples(&records, first, count, samples, error);
    pthread_mutex_unlock(&lock);
    return result;
}

int cupti_kernels(uint64_t first, int count, struct cupti_kernel **kernels, size_t *kernel_count, struct error *error) {
    if (check(api.flush(0), "collecting records", error)) return -1;
    pthread_mutex_lock(&lock);
    int result = cupti_log_kernels(&records, first, count, kernels, kernel_count, error);
    pthread_mutex_unlock(&lock);
    return result;
}

const char *cupti_version(void) {
    return version;
}

#else

static int absent(struct error *error) {
    return error_set(error, "cupti: this program was built without the CUDA Toolkit");
}

int cupti_open(struct error *error) {
    return absent(error);
}

void cupti_watch(const struct device *device) {
    (void)device;
}

int cupti_begin(uint64_t index, struct error *error) {
    (void)index;
    return absent(error);
}

int cupti_end(struct error *error) {
    return absent(error);
}

int cupti_collect(uint64_t first, int count, struct cupti_sample *samples, struct error *error) {
    (void)first, (void)count, (void)samples;
    return absent(error);
}

int cupti_kernels(uint64_t first, int count, struct cupti_kernel **kernels, size_t *kernel_count, struct error *error) {
    (void)first, (void)count, (void)kernels, (void)kernel_count;
    return absent(error);
}

const char *cupti_version(void) {
    return "";
}

#endif
