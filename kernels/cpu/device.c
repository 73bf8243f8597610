#include <ctype.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif

#include "kernels/cpu/cpu.h"
#include "kernels/embedded.h"

extern const struct cpu_vectors cpu_vectors_avx512f, cpu_vectors_avx2, cpu_vectors_generic;

#ifdef __x86_64__
static bool avx2;

static void find_avx2(void) {
    unsigned a, b, c, d;
    avx2 = __get_cpuid(1, &a, &b, &c, &d) && c & bit_F16C && __builtin_cpu_supports("avx2") &&
           __builtin_cpu_supports("fma");
}

/* The processor is asked once: a virtual machine is left for the answer, which takes as long as a small kernel. */
static bool has_avx2(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find_avx2);
    return avx2;
}

static const struct cpu_vectors *const *usable(void) {
    static const struct cpu_vectors *const all[] = {&cpu_vectors_avx512f, &cpu_vectors_avx2, &cpu_vectors_generic, 0};
    return all + (!has_avx2() ? 2 : __builtin_cpu_supports("avx512f") ? 0 : 1);
}
#else
static const struct cpu_vectors *const *usable(void) {
    static const struct cpu_vectors *const all[] = {&cpu_vectors_generic, 0};
    return all;
}
#endif

const struct cpu_vectors *cpu_vectors_find(const char *architecture) {
    for (const struct cpu_vectors *const *v = usable(); *v; v++)
        if (!architecture || !strcmp((*v)->architecture, architecture)) return *v;
    return NULL;
}

const struct cpu_vectors *cpu_vectors(const struct device *device) {
    const struct cpu_vectors *vectors = cpu_vectors_find(device->architecture);
    return vectors ? vectors : &cpu_vectors_generic;
}

/* The value of the first line "KEY : VALUE" of a file under /proc into `value`; false if there is none. */
static bool proc_value(const char *path, const char *key, char *value, size_t size) {
    FILE *file = fopen(path, "r");
    if (!file) return false;
    char line[512];
    bool found = false;
    while (!found && fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (!colon || strncmp(line, key, strlen(key))) continue;
        for (colon++; isspace((unsigned char)*colon);) colon++;
        colon[strcspn(colon, "\n")] = 0;
        found = snprintf(value, size, "%s", colon) > 0;
    }
    fclose(file);
    return found;
}

static int usable_cores(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) ? (int)sysconf(_SC_NPROCESSORS_ONLN) : CPU_COUNT(&set);
}

/* Of the last cache that sysfs lists, which is the largest; else what the C library knows. */
static size_t cache_bytes(void) {
    size_t bytes = 0;
    for (int i = 0; i < 8; i++) {
        char path[96];
        size_t kib;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", i);
        FILE *file = fopen(path, "r");
        if (!file) break;
        if (fscanf(file, "%zuK", &kib) == 1 && kib << 10 > bytes) bytes = kib << 10;
        fclose(file);
    }
    long known = sysconf(_SC_LEVEL3_CACHE_SIZE) > 0 ? sysconf(_SC_LEVEL3_CACHE_SIZE) : sysconf(_SC_LEVEL2_CACHE_SIZE);
    if (!bytes && known > 0) bytes = (size_t)known;
    return bytes ? bytes : (size_t)8 << 20;
}

static void close_cpu(struct device *device) {
    cpu_pool_destroy(device->state);
    device->state = NULL;
}

static size_t memory_free(struct device *device) {
    (void)device;
    char text[64];
    return proc_value("/proc/meminfo", "MemAvailable", text, sizeof text) ? strtoull(text, NULL, 10) << 10 : SIZE_MAX;
}

static void *alloc(struct device *device, size_t bytes, struct error *error) {
    size_t available = memory_free(device);
    void *memory = bytes <= available && bytes < SIZE_MAX / 2 ? aligned_alloc(256, bytes / 256 * 256 + 256) : NULL;
    if (!memory)
        error_set(error, "cpu: %.1f MiB asked for, %.1f MiB of memory are free", (double)bytes / (1 << 20),
                  (double)available / (1 << 20));
    return memory;
}

static void free_memory(struct device *device, void *memory) {
    (void)device;
    free(memory);
}

/* Kernels on the CPU are done when they return: copies are plain ones, in order. */
static int copy(struct device *device, void *to, const void *from, size_t bytes, struct error *error) {
    (void)device, (void)error;
    memmove(to, from, bytes);
    return 0;
}

static int fill(struct device *device, void *to, unsigned char byte, size_t bytes, struct error *error) {
    (void)device, (void)error;
    memset(to, byte, bytes);
    return 0;
}

static int synchronize(struct device *device, struct error *error) {
    (void)device, (void)error;
    return 0;
}

static const struct device_functions functions = {
    .close = close_cpu,
    .alloc = alloc,
    .free = free_memory,
    .memory_free = memory_free,
    .alloc_host = alloc,
    .free_host = free_memory,
    .write = copy,
    .read = copy,
    .copy = copy,
    .fill = fill,
    .synchronize = synchronize,
};

static void read_name(char *name, size_t size) {
    struct utsname machine;
    if (proc_value("/proc/cpuinfo", "model name", name, size)) return;
    snprintf(name, size, "%s processor", uname(&machine) ? "unknown" : machine.machine);
}

int cpu_open(struct device *device, struct error *error) {
    const double ghz = 2.5, core_gbs = 20, most_gbs = 200;
    const struct cpu_vectors *vectors = cpu_vectors_find(NULL);
    int cores = usable_cores();
    *device = (struct device){
        .backend = BACKEND_CPU,
        .id = "cpu",
        .multiprocessors = cores,
        .cache_bytes = cache_bytes(),
        .memory_bytes = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE),
        .memory_gbs = cores * core_gbs < most_gbs ? cores * core_gbs : most_gbs,
        .matrix_tflops = cores * ghz * 4 * vectors->lanes / 1e3,
        .functions = &functions,
        .state = cpu_pool_create(),
    };
    if (!device->state) return error_set(error, "cpu: out of memory");
    read_name(device->name, sizeof device->name);
    snprintf(device->architecture, sizeof device->architecture, "%s", vectors->architecture);
    snprintf(device->kernels, sizeof device->kernels, "%s", kernels_hash_cpu);
#ifdef __clang__
    snprintf(device->software, sizeof device->software, "clang %d.%d.%d", __clang_major__, __clang_minor__,
             __clang_patchlevel__);
#else
    snprintf(device->software, sizeof device->software, "gcc %s", __VERSION__);
#endif
    return 0;
}
