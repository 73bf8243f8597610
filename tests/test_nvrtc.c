/* Device code without a GPU: every CUDA kernel's corners compile for three architectures, the cache survives
 * damage, errors say where. Skips where there is no NVRTC. */
#include <dirent.h>
#include <elf.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "kernels/kernel.h"

#ifdef TILEBOOK_CUDA
#include "kernels/cuda/driver.h"
#include "kernels/cuda/nvrtc.h"
#include "kernels/embedded.h"
#include "kernels/ahead.h"

static char folder[] = "/tmp/tilebook-nvrtc-XXXXXX";

static int make_cache(void **state) {
    (void)state;
    return !mkdtemp(folder) || setenv("TILEBOOK_CACHE", folder, 1);
}

/* Calls `each` with the path of every file in the cache; returns how many there are. */
static int for_each_entry(void (*each)(const char *path)) {
    int count = 0;
    DIR *directory = opendir(folder);
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory));) {
        char path[512];
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (each) each(path);
        count++;
    }
    closedir(directory);
    return count;
}

static void remove_entry(const char *path) {
    unlink(path);
}

static int remove_cache(void **state) {
    (void)state;
    for_each_entry(remove_entry);
    return rmdir(folder);
}

static void need_nvrtc(void) {
    struct error error;
    if (!nvrtc_open(NULL, &error)) return;
    print_message("skipped: %s\n", error.text);
    skip();
}

/* --- the corners of the space --- */

static const struct device devices[] = {
    {.backend = BACKEND_CUDA,
     .id = "cuda:0",
     .architecture = "sm_80",
     .compute_capability = 80,
     .multiprocessors = 108,
     .cache_bytes = 40 << 20,
     .shared_block_bytes = 163 << 10,
     .shared_sm_bytes = 164 << 10,
     .memory_gbs = 2039,
     .matrix_tflops = 312},
    {.backend = BACKEND_CUDA,
     .id = "cuda:0",
     .architecture = "sm_89",
     .compute_capability = 89,
     .multiprocessors = 142,
     .cache_bytes = 96 << 20,
     .shared_block_bytes = 99 << 10,
     .shared_sm_bytes = 100 << 10,
     .memory_gbs = 864,
     .matrix_tflops = 362},
    {.backend = BACKEND_CUDA,
     .id = "cuda:0",
     .architecture = "sm_90a",
     .compute_capability = 90,
     .multiprocessors = 132,
     .cache_bytes = 50 << 20,
     .shared_block_bytes = 227 << 10,
     .shared_sm_bytes = 228 << 10,
     .memory_gbs = 3352,
     .matrix_tflops = 989},
};

static const struct problem problems[] = {
    {OP_AWQ_DEQUANT, 1, 7168, 5120, 128, true, EPILOGUE_NONE},
    {OP_AWQ_DEQUANT, 1, 7168, 5120, 32, false, EPILOGUE_NONE},
    {OP_AWQ_DEQUANT, 1, 7168, 5120, 5120, true, EPILOGUE_NONE},
    {OP_MARLIN_GEMM, 1, 7168, 5120, 128, true, EPILOGUE_BIAS},
    {OP_MARLIN_GEMM, 1, 7168, 5120, 128, true, EPILOGUE_SILU_MUL, true},
    {OP_MARLIN_GEMM, 16, 7168, 5120, 32, false, EPILOGUE_RESIDUAL},
    {OP_MARLIN_GEMM, 256, 7168, 5120, 5120, false, EPILOGUE_NONE},
    {OP_MARLIN_GEMM, 4096, 7168, 5120, 64, true, EPILOGUE_SILU_MUL},
    {OP_FP16_GEMM, 1, 7168, 5120, 0, false, EPILOGUE_RESIDUAL},
    {OP_FP16_GEMM, 4096, 7168, 5120, 0, false, EPILOGUE_SILU_MUL},
    {OP_FP16_GEMM, 1, 7168, 5120, 0, false, EPILOGUE_SILU_MUL, false, true},
    {OP_FP16_GEMM, 4096, 7168, 5120, 0, false, EPILOGUE_RESIDUAL, false, true},
    {OP_MARLIN_GEMM, 1, 7168, 5120, 128, true, EPILOGUE_SILU_MUL, false, true},
    {OP_MARLIN_GEMM, 64, 7168, 5120, 5120, true, EPILOGUE_BIAS, false, true},
    {OP_MARLIN_GEMM, 4096, 7168, 5120, 128, true, EPILOGUE_RESIDUAL, false, true},
};

#ifdef __SANITIZE_ADDRESS__
enum { MAX_COMPILES = 0, DEFAULTS_STEP = 8 }; /* the sanitizers see launches and options, not the compiler */
#else
enum { MAX_COMPILES = 60, DEFAULTS_STEP = 1 };
#endif

/* A few spilled bytes of an address cost nothing; more than these and the accumulators are in memory. */
enum { MAX_JOBS = 4096, MAX_STACK = 128 };

struct job {
    bool is_default; /* the built-in default of its problem: must not spill much */
    char source[64], options[LAUNCH_OPTIONS], architecture[16];
    struct error error;
};

static struct job jobs[MAX_JOBS];
static int job_count;

static void add_job(const char *source, const char *options, const char *architecture, bool is_default) {
    for (int i = 0; i < job_count; i++) {
        if (strcmp(jobs[i].source, source) || strcmp(jobs[i].options, options) ||
            strcmp(jobs[i].architecture, architecture))
            continue;
        jobs[i].is_default |= is_default;
        return;
    }
    assert_true(job_count < MAX_JOBS);
    struct job *job = &jobs[job_count++];
    *job = (struct job){.is_default = is_default};
    snprintf(job->source, sizeof job->source, "%s", source);
    snprintf(job->options, sizeof job->options, "%s", options);
    snprintf(job->architecture, sizeof job->architecture, "%s", architecture);
}

static void add_configuration(const struct device *device, const struct kernel *kernel, const struct problem *problem,
                              const struct config *config, bool is_default) {
    struct launch launch = {0};
    char options[LAUNCH_OPTIONS];
    kernel->launch(device, problem, config, &launch);
    assert_true(launch.grid.threads > 0 && launch.grid.threads <= 1024 && launch.grid.threads % 32 == 0);
    assert_true(launch.grid.blocks[0] > 0 && launch.grid.blocks[1] > 0 && launch.grid.blocks[1] < 65536 &&
                launch.grid.blocks[2] > 0 && launch.grid.blocks[2] < 65536);
    assert_true(launch.shared_bytes <= device->shared_block_bytes);
    assert_true(launch.workspace_bytes == 0 || launch.workspace_bytes >= WORKSPACE_COUNTER_BYTES);
    launch_options(kernel, problem, config, &launch, options);
    add_job(launch.source, options, device->architecture, is_default);
}

/* The default, and for each parameter its least and greatest legal value beside it; nothing of a kernel that is
 * not for this architecture and says so. */
static void add_corners(const struct device *device, const struct kernel *kernel, const struct problem *problem) {
    struct config best;
    struct error error;
    if (config_default(device, kernel, problem, &best, &error)) {
        if (!strstr(error.text, "needs compute capability")) fail_msg("%s", error.text);
        return;
    }
    add_configuration(device, kernel, problem, &best, true);
    for (int p = 0; p < kernel->parameter_count; p++) {
        const struct parameter *parameter = &kernel->parameters[p];
        const struct config *ends[2] = {NULL, NULL};
        struct config legal[MAX_VALUES];
        for (int v = 0; v < parameter->count; v++) {
            legal[v] = best;
            legal[v].value[p] = parameter->values[v];
            if (config_legal(device, kernel, problem, &legal[v], NULL)) continue;
            if (!ends[0]) ends[0] = &legal[v];
            ends[1] = &legal[v];
        }
        for (int e = 0; e < 2; e++) add_configuration(device, kernel, problem, ends[e], false);
    }
}

/* Stack bytes of the cubin's entries (EIATTR_MIN_STACK_SIZE of .nv.info): not 0 where registers spill. */
static unsigned stack_bytes(const unsigned char *cubin) {
    enum { MIN_STACK_SIZE = 0x12, FORMAT_SIZED = 4 };
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)(const void *)cubin;
    const Elf64_Shdr *sections = (const Elf64_Shdr *)(const void *)(cubin + header->e_shoff);
    const char *names = (const char *)cubin + sections[header->e_shstrndx].sh_offset;
    unsigned most = 0;
    for (int s = 0; s < header->e_shnum; s++) {
        if (strcmp(names + sections[s].sh_name, ".nv.info")) continue;
        const unsigned char *entry = cubin + sections[s].sh_offset, *end = entry + sections[s].sh_size;
        while (entry + 4 <= end) {
            uint16_t size;
            uint32_t values[2];
            memcpy(&size, entry + 2, 2);
            if (entry[0] == FORMAT_SIZED && entry[1] == MIN_STACK_SIZE && size == 8) {
                memcpy(values, entry + 4, 8); /* symbol, bytes */
                if (values[1] > most) most = values[1];
            }
            entry += 4 + (entry[0] == FORMAT_SIZED ? size : 0);
        }
    }
    return most;
}

static void compile_job(struct job *job) {
    void *cubin;
    size_t bytes;
    if (cuda_compile(job->source, job->options, job->architecture, &cubin, &bytes, &job->error)) return;
    unsigned stack = stack_bytes(cubin);
    if (job->is_default && stack > MAX_STACK)
        error_set(&job->error, "%s %s for %s: a built-in default with %u bytes of stack", job->source, job->options,
                  job->architecture, stack);
    free(cubin);
}

static atomic_int next_job;

/* The defaults, or a share of them, and a share of the others, so that the suite stays short; scattered, since corners
 * come in pairs of least and greatest. */
static void *compile_jobs(void *unused) {
    int others = 0, index;
    (void)unused;
    for (int i = 0; i < job_count; i++) others += !jobs[i].is_default;
    int step = MAX_COMPILES ? (others + MAX_COMPILES - 1) / MAX_COMPILES : MAX_JOBS;
    while ((index = atomic_fetch_add(&next_job, 1)) < job_count)
        if (jobs[index].is_default ? index % DEFAULTS_STEP == 0
                                   : ((unsigned)index * 2654435761u >> 16) % (unsigned)step == 0)
            compile_job(&jobs[index]);
    return NULL;
}

/* Sources that no registered kernel launches, with the options that their callers give. */
static const char *const others[][2] = {
    {"cuda/reference.cu", ""},
    {"cuda/direct.cu", "-DRANKS=2"},
    {"cuda/direct.cu", "-DRANKS=8"},
    {"formats/repack.cu", ""},
    {"ceilings.cu", ""},
    {"chain.cu", "-DBLOCK=512 -DKEPT=2"},
    {"floor.cu", "-DGRID=264 -DBITS=4 -DGROUP=128 -DBLOCKS=2 -DTHREADS=1024 -DIN_FLIGHT=4"},
    {"floor.cu", "-DGRID=132 -DBITS=16 -DGROUP=0 -DBLOCKS=1 -DTHREADS=512 -DIN_FLIGHT=16"},
    {"fp16_gemm/silu_mul.cu", "-DEPILOGUE=3"},
    {"fp16_gemm/silu_mul.cu", "-DEPILOGUE=3 -DBF16"},
    {"marlin_gemm/dequantize.cu", "-DGROUP=0 -DZEROS=1 -DTHREADS=256"},
    {"marlin_gemm/dequantize.cu", "-DGROUP=32 -DZEROS=1 -DTHREADS=256"},
    {"marlin_gemm/dequantize.cu", "-DGROUP=32 -DZEROS=1 -DTHREADS=256 -DBF16"},
    {"marlin_gemm/dequantize.cu", "-DGROUP=128 -DZEROS=0 -DTHREADS=256"},
    {"decoder/ops.cu", "-DBLOCK=256 -DHELD=1 -DHEAD_DIM=64 -DPAGE=64 -DKV_BYTES=2 -DPICKS=128 -DRING=4"},
    {"decoder/ops.cu", "-DBLOCK=256 -DHELD=3 -DHEAD_DIM=128 -DPAGE=64 -DKV_BYTES=2 -DPICKS=128 -DRING=4"},
    {"decoder/attend.cu", "-DHEAD_DIM=64 -DWARPS=4 -DSTAGES=2 -DHEADS=8 -DKV_BYTES=2 -DCLUSTER=1 -DSHARED_BYTES=34960"},
    {"decoder/attend.cu",
     "-DHEAD_DIM=128 -DWARPS=4 -DSTAGES=2 -DHEADS=8 -DKV_BYTES=2 -DCLUSTER=1 -DSHARED_BYTES=69776"},
    {"decoder/attend_prompt.cu", "-DHEAD_DIM=64 -DWARPS=4 -DKEYS=64 -DKV_BYTES=2 -DSHARED_BYTES=49152"},
    {"decoder/attend_prompt.cu", "-DHEAD_DIM=128 -DWARPS=4 -DKEYS=64 -DKV_BYTES=2 -DSHARED_BYTES=98304"},
    {"decoder/sample.cu", "-DCOUNT_THREADS=256 -DWARPS=32 -DBINS=65536 -DRING=4"},
};

/* With a cache in fp8, from sm_89 on. */
static const char *const fp8[][2] = {
    {"decoder/ops.cu", "-DBLOCK=256 -DHELD=1 -DHEAD_DIM=64 -DPAGE=64 -DKV_BYTES=1 -DPICKS=128 -DRING=4"},
    {"decoder/attend.cu", "-DHEAD_DIM=64 -DWARPS=4 -DSTAGES=4 -DHEADS=8 -DKV_BYTES=1 -DCLUSTER=1 -DSHARED_BYTES=34960"},
    {"decoder/attend.cu",
     "-DHEAD_DIM=128 -DWARPS=4 -DSTAGES=4 -DHEADS=8 -DKV_BYTES=1 -DCLUSTER=1 -DSHARED_BYTES=69776"},
    {"decoder/attend_prompt.cu", "-DHEAD_DIM=64 -DWARPS=4 -DKEYS=64 -DKV_BYTES=1 -DSHARED_BYTES=40960"},
    {"decoder/attend_prompt.cu", "-DHEAD_DIM=128 -DWARPS=4 -DKEYS=64 -DKV_BYTES=1 -DSHARED_BYTES=81920"},
};

static void add_other_sources(void) {
    for (size_t d = 0; d < sizeof devices / sizeof *devices; d++) {
        for (size_t i = 0; i < sizeof others / sizeof *others; i++)
            add_job(others[i][0], others[i][1], devices[d].architecture, true);
        for (size_t i = 0; devices[d].compute_capability >= 89 && i < sizeof fp8 / sizeof *fp8; i++)
            add_job(fp8[i][0], fp8[i][1], devices[d].architecture, true);
    }
    add_job("decoder/attend.cu",
            "-DHEAD_DIM=128 -DWARPS=4 -DSTAGES=2 -DHEADS=8 -DKV_BYTES=2 -DCLUSTER=8 -DSHARED_BYTES=69776", "sm_90a",
            true);
    add_job("decoder/attend.cu",
            "-DHEAD_DIM=128 -DWARPS=4 -DSTAGES=4 -DHEADS=8 -DKV_BYTES=1 -DCLUSTER=8 -DSHARED_BYTES=69776", "sm_90a",
            true);
}

/* So that a new source cannot stay out of this suite. */
static void every_source_has_a_job(void) {
    for (const struct embedded_source *s = embedded_sources; s->name; s++) {
        bool compiled = strcmp(s->name + strlen(s->name) - 3, ".cu") != 0;
        for (int i = 0; i < job_count; i++) compiled |= !strcmp(jobs[i].source, s->name);
        if (!compiled) fail_msg("%s is neither a kernel's source nor on the list of others", s->name);
    }
}

static void corners_compile(void **state) {
    (void)state;
    pthread_t threads[2];
    int wrong = 0;
    need_nvrtc();
    for (size_t d = 0; d < sizeof devices / sizeof *devices; d++)
        for (const struct kernel *const *kernel = kernel_list(); *kernel; kernel++)
            for (size_t p = 0; p < sizeof problems / sizeof *problems; p++)
                if ((*kernel)->launch && (*kernel)->op == problems[p].op && (!problems[p].norm || (*kernel)->norms) &&
                    (!problems[p].bf16 || (*kernel)->bf16))
                    add_corners(&devices[d], *kernel, &problems[p]);
    add_other_sources();
    every_source_has_a_job();
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&threads[i], NULL, compile_jobs, NULL), 0);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < job_count; i++)
        if (jobs[i].error.text[0] && wrong++ < 5) print_error("%s\n", jobs[i].error.text);
    assert_int_equal(wrong, 0);
    assert_true(job_count > 0);
}

/* --- the compiler and its cache --- */

static void compile_reference(void **cubin, size_t *bytes) {
    struct error error = {""};
    if (cuda_compile("cuda/reference.cu", "", "sm_80", cubin, bytes, &error)) fail_msg("%s", error.text);
    assert_memory_equal(*cubin, ELFMAG, SELFMAG);
}

static void flip_byte(const char *path) {
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, -100, SEEK_END), 0);
    int byte = fgetc(file);
    assert_int_equal(fseek(file, -1, SEEK_CUR), 0);
    fputc(byte ^ 1, file);
    fclose(file);
}

static void cut(const char *path) {
    assert_int_equal(truncate(path, 1000), 0);
}

static void empty(const char *path) {
    assert_int_equal(truncate(path, 0), 0);
}

static void damaged_entries_are_compiled_again(void **state) {
    (void)state;
    static void (*const damage[])(const char *) = {flip_byte, cut, empty, remove_entry};
    void *first, *again;
    size_t first_bytes, bytes;
    need_nvrtc();
    for_each_entry(remove_entry);
    compile_reference(&first, &first_bytes);
    for (size_t i = 0; i < sizeof damage / sizeof *damage; i++) {
        assert_int_equal(for_each_entry(damage[i]), 1);
        compile_reference(&again, &bytes);
        assert_int_equal(bytes, first_bytes);
        assert_memory_equal(again, first, bytes);
        free(again);
    }
    free(first);
    assert_int_equal(for_each_entry(NULL), 1);
}

static void entries_are_keyed_by_options_and_architecture(void **state) {
    (void)state;
    void *cubin;
    size_t bytes;
    need_nvrtc();
    for_each_entry(remove_entry);
    static const char *const compiled[][2] = {{"", "sm_80"}, {"-DX=1", "sm_80"}, {"", "sm_89"}, {"", "sm_80"}};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(cuda_compile("cuda/reference.cu", compiled[i][0], compiled[i][1], &cubin, &bytes, NULL), 0);
        free(cubin);
    }
    assert_int_equal(for_each_entry(NULL), 3);
}

static void works_without_a_cache(void **state) {
    (void)state;
    void *cubin;
    size_t bytes;
    need_nvrtc();
    assert_int_equal(setenv("TILEBOOK_CACHE", "/proc/no/such/folder", 1), 0);
    compile_reference(&cubin, &bytes);
    free(cubin);
    assert_int_equal(setenv("TILEBOOK_CACHE", folder, 1), 0);
}

static void errors_say_where(void **state) {
    (void)state;
    void *cubin;
    size_t bytes;
    struct error error;
    need_nvrtc();
    assert_int_equal(cuda_compile("cuda/reference.cu", "-DTILE=64", "sm_80", &cubin, &bytes, &error), -1);
    assert_non_null(strstr(error.text, "cuda/reference.cu for sm_80 with '-DTILE=64'"));
    assert_non_null(strstr(error.text, "cuda/reference.cu(6): error"));
    assert_int_equal(cuda_compile("cuda/reference.cu", "--no-such-option", "sm_80", &cubin, &bytes, &error), -1);
    assert_non_null(strstr(error.text, "no-such-option"));
    assert_int_equal(cuda_compile("cuda/reference.cu", "", "sm_10", &cubin, &bytes, &error), -1);
    assert_non_null(strstr(error.text, "sm_10"));
    assert_int_equal(cuda_compile("no/such.cu", "", "sm_80", &cubin, &bytes, &error), -1);
    assert_non_null(strstr(error.text, "'no/such.cu'"));
}

/* What is queued lies in the cache when it is waited for, once. */
static void compiles_ahead(void **state) {
    (void)state;
    const struct device *h100 = &devices[2];
    const struct problem problem = {OP_MARLIN_GEMM, 1, 7168, 5120, 128, true, EPILOGUE_NONE};
    const struct kernel *kernel = kernel_find("marlin_gemm/skinny");
    struct config config;
    need_nvrtc();
    int before = for_each_entry(NULL);
    struct ahead *ahead = ahead_create(h100, plan_compile, 2);
    assert_non_null(ahead);
    static const char *const texts[] = {"tile_m=1 tile_n=64 warps_k=5 stages=2 split_k=1",
                                        "tile_m=1 tile_n=64 warps_k=5 stages=3 split_k=1",
                                        "tile_m=1 tile_n=64 warps_k=5 stages=2 split_k=1"};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(config_parse(kernel, texts[i], &config, NULL), 0);
        ahead_plan(ahead, 0, kernel, &problem, &config);
        ahead_wait(ahead);
    }
    ahead_destroy(ahead);
    assert_int_equal(for_each_entry(NULL), before + 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(corners_compile),
        cmocka_unit_test(damaged_entries_are_compiled_again),
        cmocka_unit_test(entries_are_keyed_by_options_and_architecture),
        cmocka_unit_test(works_without_a_cache),
        cmocka_unit_test(errors_say_where),
        cmocka_unit_test(compiles_ahead),
    };
    return cmocka_run_group_tests(tests, make_cache, remove_cache);
}

#else

static void no_cuda_backend(void **state) {
    (void)state;
    print_message("skipped: this build has no CUDA backend\n");
    skip();
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(no_cuda_backend)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
