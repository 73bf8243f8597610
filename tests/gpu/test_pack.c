/* A pack on its GPU: made of a table of defaults, compiled by gcc, linked with -lcuda; each launch is compared with the
 * reference. Skips without gcc or <cuda.h>.
 * Argument: "small" says that a sanitizer runs this: fewer problems. */
#include "tests/command.h"

#include <dlfcn.h>

#include "bench/instance.h"
#include "kernels/choice.h"
#include "kernels/reference.h"
#include "tuner/pack/tilebook_pack.h"

enum { K = 512, N = 1024, GROUP = 128 };

static struct device *gpu;
static struct error error;
static bool small;
static struct tilebook_pack *pack;
static __typeof__(&tilebook_pack_find) find;
static __typeof__(&tilebook_pack_workspace) workspace;
static __typeof__(&tilebook_pack_open) open_pack;
static __typeof__(&tilebook_pack_launch) launch_pack;
static __typeof__(&tilebook_pack_close) close_pack;
static __typeof__(&cuCtxSynchronize) wait_for_all;

#define CUDA "${CUDA_HOME:-/usr/local/cuda}"
#define GCC "gcc -std=c11 -Wall -Wextra -Werror -pedantic -I" CUDA "/include -I@/pack -L" CUDA "/lib64/stubs "

static void done(int status) {
    if (status) fail_msg("%s", error.text);
}

/* The built-in default of our own kernels at m, as a row of the table. */
static void add_row(FILE *file, enum op op, int from, int to) {
    struct problem p = {.op = op, .m = to, .n = N, .k = K, .group = op == OP_FP16_GEMM ? 0 : GROUP};
    struct choice choice;
    char kernel[64], configuration[MAX_CONFIG_TEXT];
    done(choice_default(gpu, kernel_list(), &p, &choice, &error));
    fprintf(file, "%s %d %d %d %d-%d %s %s 1.0 1.0 0 1.0\n", op_name(op), K, N, p.group, from, to,
            kernel_full_name(choice.kernel, kernel), config_text(choice.kernel, &choice.config, configuration));
}

static void write_table(void) {
    FILE *file = fopen(in_folder("tiles.txt"), "w");
    assert_non_null(file);
    fprintf(file, "# tilebook table 1\ndevice %s, %s, %d SMs\nsoftware %s, kernels %s\nregime cold, stream\n",
            gpu->name, gpu->architecture, gpu->multiprocessors, gpu->software, gpu->kernels);
    add_row(file, OP_AWQ_DEQUANT, 1, 1);
    add_row(file, OP_FP16_GEMM, 1, 4);
    add_row(file, OP_FP16_GEMM, 5, 64);
    fprintf(file, "fp16_gemm %d %d 0 65-700 fp16_gemm/cublaslt - 1.0 1.0 0 1.0\n", K, N);
    add_row(file, OP_MARLIN_GEMM, 1, 2);
    add_row(file, OP_MARLIN_GEMM, 3, 32);
    add_row(file, OP_MARLIN_GEMM, 33, 700);
    assert_int_equal(fclose(file), 0);
}

static int open_all(void **state) {
    return folder_make(state) || device_open("cuda:0", &gpu, &error) ? -1 : 0;
}

static int close_all(void **state) {
    if (pack) close_pack(pack);
    device_close(gpu);
    return folder_remove(state);
}

static void need_compiler(void) {
    if (shell("echo '#include <cuda.h>' | " GCC "-fsyntax-only -xc -")) skip();
}

static void *symbol(void *library, const char *name) {
    void *found = dlsym(library, name);
    if (!found) fail_msg("%s", dlerror());
    return found;
}

static void test_builds_and_opens(void **state) {
    (void)state;
    char message[TILEBOOK_PACK_MESSAGE] = "";
    need_compiler();
    write_table();
    expect_shell(0, "$TILEBOOK table export @/tiles.txt --format pack --epilogue none,residual,silu_mul --out @/pack",
                 "m 65-700: fp16_gemm/cublaslt: it has no cubin");
    expect_shell(0, GCC "-shared -fPIC @/pack/tilebook_pack.c -lcuda -o @/pack.so", "");
    void *library = dlopen(in_folder("pack.so"), RTLD_NOW);
    if (!library) fail_msg("%s", dlerror());
    find = (__typeof__(find))symbol(library, "tilebook_pack_find");
    workspace = (__typeof__(workspace))symbol(library, "tilebook_pack_workspace");
    open_pack = (__typeof__(open_pack))symbol(library, "tilebook_pack_open");
    launch_pack = (__typeof__(launch_pack))symbol(library, "tilebook_pack_launch");
    close_pack = (__typeof__(close_pack))symbol(library, "tilebook_pack_close");
    wait_for_all = (__typeof__(wait_for_all))symbol(library, "cuCtxSynchronize");
    if (open_pack(in_folder("pack"), &pack, message)) fail_msg("%s", message);
}

static void test_example(void **state) {
    (void)state;
    need_compiler();
    expect_shell(0, GCC "tuner/pack/example.c @/pack/tilebook_pack.c -lcuda -o @/example", "");
    expect_shell(0, "@/example @/pack 3 1024 512", "3072 elements of y are right");
    expect_shell(0, "@/example @/pack 257 1024 512", "263168 elements of y are right");
    expect_shell(1, "@/example @/pack 3 1024 1024", "tilebook_pack_launch: ");
}

static CUdeviceptr address(const void *memory) {
    return (CUdeviceptr)(uintptr_t)memory;
}

/* Twice, the second time as one that may overlap: right, and the counters of the workspace are left at zero. */
static void check(const struct problem *p) {
    static unsigned counters[WORKSPACE_COUNTER_BYTES / 4];
    const struct tilebook_pack_problem problem = {
        (enum tilebook_pack_op)p->op, p->m, p->n, p->k, p->group, p->zeros, (enum tilebook_pack_epilogue)p->epilogue};
    struct instance *instance;
    struct comparison comparison;
    char text[128];
    done(instance_create(gpu, p, 1, false, &instance, &error));
    done(instance_reference(instance, &error));
    const struct operands *o = &instance->copies[0];
    size_t bytes = workspace(&problem);
    void *memory = bytes ? device_alloc(gpu, bytes, &error) : NULL;
    const struct tilebook_pack_operands operands = {address(o->x),     address(o->weights), address(o->scales),
                                                    address(o->zeros), address(o->addend),  address(o->y),
                                                    address(memory)};
    if (bytes) done(!memory || device_fill(gpu, memory, 0, bytes, &error));
    for (int overlaps = 0; overlaps < 2; overlaps++) {
        done(device_fill(gpu, o->y, 0xff, 2 * problem_outputs(p), &error) || device_synchronize(gpu, &error));
        assert_int_equal(launch_pack(pack, &problem, &operands, overlaps, NULL), CUDA_SUCCESS);
        assert_int_equal(wait_for_all(), CUDA_SUCCESS);
        done(reference_compare(gpu, o->y, false, instance->reference, problem_outputs(p), &comparison, &error));
        if (comparison.bad || !(comparison.relative_error <= INSTANCE_TOLERANCE))
            fail_msg("%s, %s: %zu not finite, error %g", problem_text(p, text), find(&problem)->kernel, comparison.bad,
                     comparison.relative_error);
    }
    if (bytes) done(device_read(gpu, counters, memory, sizeof counters, &error));
    for (size_t i = 0; bytes && i < sizeof counters / sizeof *counters; i++) assert_int_equal(counters[i], 0);
    device_free(gpu, memory);
    instance_destroy(instance);
}

static void test_launches(void **state) {
    (void)state;
    static const int ms[] = {1, 3, 40, 2, 17, 32, 33, 65, 200, 257, 700, 1000};
    static const enum epilogue epilogues[] = {EPILOGUE_NONE, EPILOGUE_RESIDUAL, EPILOGUE_SILU_MUL};
    if (!pack) skip();
    for (int op = 0; op < OP_COUNT; op++)
        for (int zeros = 0; zeros <= (op != OP_FP16_GEMM); zeros++)
            for (int e = 0; e < (op == OP_AWQ_DEQUANT || small ? 1 : 3); e++)
                for (int i = 0; i < (op == OP_AWQ_DEQUANT ? 1 : small ? 3 : 12); i++) {
                    const struct problem p = {(enum op)op, ms[i],       N, K, op == OP_FP16_GEMM ? 0 : GROUP,
                                              zeros,       epilogues[e]};
                    check(&p);
                }
}

int main(int argc, char **argv) {
    small = argc > 1 && !strcmp(argv[1], "small");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_builds_and_opens),
        cmocka_unit_test(test_example),
        cmocka_unit_test(test_launches),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
