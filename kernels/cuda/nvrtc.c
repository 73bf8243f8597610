#include "kernels/cuda/nvrtc.h"

#include <dlfcn.h>
#include <nvrtc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cache.h"
#include "kernels/cuda/driver.h"
#include "kernels/embedded.h"

#define CALLS(X)                                                                                                       \
    X(nvrtcVersion)                                                                                                    \
    X(nvrtcGetErrorString)                                                                                             \
    X(nvrtcCreateProgram)                                                                                              \
    X(nvrtcCompileProgram)                                                                                             \
    X(nvrtcGetProgramLogSize)                                                                                          \
    X(nvrtcGetProgramLog)                                                                                              \
    X(nvrtcGetCUBINSize)                                                                                               \
    X(nvrtcGetCUBIN)                                                                                                   \
    X(nvrtcDestroyProgram)

static struct {
#define MEMBER(name) __typeof__(&name) name;
    CALLS(MEMBER)
    char version[24];
    struct error error; /* why it is not open; empty when it is */
} nvrtc;

static void load(void) {
    void *library = cuda_library((const char *const[]){"libnvrtc.so.13", "libnvrtc.so.12", NULL});
    if (!library) {
        error_set(&nvrtc.error, "no NVRTC: neither libnvrtc.so.13 nor libnvrtc.so.12 is on the library path, below "
                                "$CUDA_HOME or below /usr/local/cuda; install the CUDA Toolkit's NVRTC package");
        return;
    }
#define LOAD(name)                                                                                                     \
    if (!(nvrtc.name = (__typeof__(&name))dlsym(library, #name))) error_set(&nvrtc.error, "NVRTC has no " #name);
    CALLS(LOAD)
    int major = 0, minor = 0;
    if (!nvrtc.error.text[0] && nvrtc.nvrtcVersion(&major, &minor)) error_set(&nvrtc.error, "NVRTC has no version");
    snprintf(nvrtc.version, sizeof nvrtc.version, "nvrtc %d.%d", major, minor);
}

int nvrtc_open(char *version, struct error *error) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    if (nvrtc.error.text[0]) return error_set(error, "%s", nvrtc.error.text);
    if (version) snprintf(version, sizeof nvrtc.version, "%s", nvrtc.version);
    return 0;
}

static const char *find_source(const char *name) {
    for (const struct embedded_source *s = embedded_sources; s->name; s++)
        if (!strcmp(s->name, name)) return s->text;
    return NULL;
}

/* All embedded sources, under the names by which they include each other. */
struct headers {
    int count;
    const char **names, **texts;
};

static int collect_headers(struct headers *headers) {
    int count = 0;
    while (embedded_sources[count].name) count++;
    *headers = (struct headers){count, calloc((size_t)count, sizeof(char *)), calloc((size_t)count, sizeof(char *))};
    if (!headers->names || !headers->texts) return -1;
    for (int i = 0; i < count; i++) {
        headers->names[i] = embedded_sources[i].name;
        headers->texts[i] = embedded_sources[i].text;
    }
    return 0;
}

/* The compiler's log from its first error on, as far as it fits; from its beginning if it names none. */
static int log_error(nvrtcProgram program, const char *source, const char *options, const char *architecture,
                     const char *result, struct error *error) {
    size_t size = 0;
    nvrtc.nvrtcGetProgramLogSize(program, &size);
    char *log = calloc(1, size + 1);
    if (!log) return error_set(error, "out of memory");
    if (size) nvrtc.nvrtcGetProgramLog(program, log);
    for (size_t end = strlen(log); end && log[end - 1] == '\n';) log[--end] = 0;
    const char *first = strstr(log, "error");
    if (!first) first = log;
    while (first > log && first[-1] != '\n') first--;
    error_set(error, "compiling %s for %s with '%s': %s\n%.400s", source, architecture, options, result, first);
    free(log);
    return -1;
}

static int fetch_cubin(nvrtcProgram program, void **cubin, size_t *bytes) {
    if (nvrtc.nvrtcGetCUBINSize(program, bytes) || !*bytes || !(*cubin = malloc(*bytes))) return -1;
    if (!nvrtc.nvrtcGetCUBIN(program, *cubin)) return 0;
    free(*cubin);
    return -1;
}

enum { MAX_OPTIONS = 48 };

/* `options` split at spaces behind the ones that every compilation has; `text` holds the copies. */
static int split_options(char *text, const char *architecture, const char **list) {
    int count = 0;
    char *rest;
    list[count++] = architecture;
    list[count++] = "-std=c++17";
    list[count++] = "-lineinfo";
    for (char *word = strtok_r(text, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        if (count == MAX_OPTIONS) return -1;
        list[count++] = word;
    }
    return count;
}

static int compile(const char *source, const char *text, const struct headers *headers, const char *options,
                   const char *architecture, void **cubin, size_t *bytes, struct error *error) {
    char option_text[1024], architecture_option[64];
    const char *list[MAX_OPTIONS];
    int length = snprintf(option_text, sizeof option_text, "%s", options);
    snprintf(architecture_option, sizeof architecture_option, "--gpu-architecture=%s", architecture);
    int count = split_options(option_text, architecture_option, list);
    if (length >= (int)sizeof option_text || count < 0)
        return error_set(error, "compiling %s: too many options: %s", source, options);
    nvrtcProgram program;
    nvrtcResult result =
        nvrtc.nvrtcCreateProgram(&program, text, source, headers->count, headers->texts, headers->names);
    if (result) return error_set(error, "compiling %s: %s", source, nvrtc.nvrtcGetErrorString(result));
    int status = 0;
    result = nvrtc.nvrtcCompileProgram(program, count, list);
    if (result)
        status = log_error(program, source, options, architecture, nvrtc.nvrtcGetErrorString(result), error);
    else if (fetch_cubin(program, cubin, bytes))
        status = error_set(error, "compiling %s for %s: NVRTC gave no cubin", source, architecture);
    nvrtc.nvrtcDestroyProgram(&program);
    return status;
}

int cuda_compile(const char *source, const char *options, const char *architecture, void **cubin, size_t *bytes,
                 struct error *error) {
    char version[sizeof nvrtc.version];
    if (nvrtc_open(version, error)) return -1;
    const char *text = find_source(source);
    if (!text) return error_set(error, "there is no embedded device source '%s'", source);
    struct cache_key key = cache_key((const char *const[]){source, options, architecture, version}, 4);
    if (!cache_read(&key, cubin, bytes)) return 0;
    struct headers headers;
    int status = collect_headers(&headers)
                     ? error_set(error, "out of memory")
                     : compile(source, text, &headers, options, architecture, cubin, bytes, error);
    free(headers.names);
    free(headers.texts);
    if (!status) cache_write(&key, *cubin, *bytes);
    return status;
}
