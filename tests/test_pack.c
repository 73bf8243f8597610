/* A pack without a GPU: it compiles alone and strictly, and for any problem launches what the library would, seen by a
 * driver that only remembers. Skips without CUDA Toolkit or NVRTC. */
#include "tests/command.h"

#ifdef TILEBOOK_CUDA
#include <cuda.h>
#include <dlfcn.h>

#include "kernels/choice.h"
#include "kernels/cuda/nvrtc.h"
#include "kernels/embedded.h"
#include "tests/cards.h"
#include "tests/fake/fake.h"
#include "tuner/pack/tilebook_pack.h"

static const char head[] = "# tilebook table 1\n"
                           "device    NVIDIA H100 80GB HBM3, sm_90a, 132 SMs\n"
                           "software  cuda 13.0, kernels %s\n"
                           "regime    cold, stream\n";
/* Blocks in steps, workspaces, clusters, boxes, persistent grids; no cubin; two launches; some that cannot run every m.
 */
static const struct {
    const char *kernel, *with; /* one of its parameters */
    int k, n, group, m_low, m_high;
} ranges[] = {
    {"awq_dequant/tiled", "", 256, 128, 64, 1, 1},
    {"fp16_gemm/skinny", "", 256, 192, 0, 1, 16},
    {"fp16_gemm/cublaslt", "", 256, 192, 0, 17, 20},
    {"fp16_gemm/mma", "split_k=2", 256, 192, 0, 21, 500},
    {"fp16_gemm/wgmma", "split_k=2", 5120, 7168, 0, 5, 300},
    {"marlin_gemm/gemv", "", 256, 512, 128, 1, 2},
    {"marlin_gemm/wgmma", "split_k=2", 256, 512, 128, 3, 200},
    {"marlin_gemm/dequantize", "", 2048, 512, 2048, 1, 1},
    {"marlin_gemm/mma", "split_k=1", 2048, 512, 2048, 2, 100},
};

static char rows[4096];
static struct tile_table table;
static struct fake_cuda *fake;
static __typeof__(&tilebook_pack_find) find;
static __typeof__(&tilebook_pack_workspace) workspace;
static __typeof__(&tilebook_pack_open) open_pack;
static __typeof__(&tilebook_pack_launch) launch_pack;
static __typeof__(&tilebook_pack_close) close_pack;

static unsigned roll(unsigned sides) {
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(state >> 33) % sides;
}

/* The configuration with the least estimate that has this parameter. */
static struct config best_with(const struct kernel *kernel, const struct problem *p, const char *with) {
    struct config best = {{0}};
    double least = 0;
    for (long i = 0; i < config_space(kernel); i++) {
        struct config config = config_at(kernel, i);
        char text[MAX_CONFIG_TEXT];
        if (!strstr(config_text(kernel, &config, text), with) || config_legal(&h100, kernel, p, &config, NULL))
            continue;
        double estimate = kernel->estimate(&h100, p, &config);
        if (!least || estimate < least) best = config, least = estimate;
    }
    if (!least) fail_msg("%s/%s has nothing with %s", op_name(kernel->op), kernel->name, with);
    return best;
}

static void print_rows(char text[4096]) {
    size_t used = 0;
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        const struct kernel *kernel = kernel_find(ranges[i].kernel);
        char configuration[MAX_CONFIG_TEXT];
        assert_non_null(kernel);
        const struct problem p = {
            .op = kernel->op, .m = ranges[i].m_high, .k = ranges[i].k, .n = ranges[i].n, .group = ranges[i].group};
        struct config config = best_with(kernel, &p, ranges[i].with);
        used += (size_t)snprintf(text + used, 4096 - used, "%s %d %d %d %d-%d %s %s 1.0 1.0 0 1.0\n", op_name(p.op),
                                 p.k, p.n, p.group, ranges[i].m_low, p.m, ranges[i].kernel,
                                 config_text(kernel, &config, configuration));
    }
}

static void write_table(const char *name, const char *header, const char *body) {
    FILE *file = fopen(in_folder(name), "w");
    assert_non_null(file);
    fprintf(file, header, kernels_hash_cuda);
    fputs(body, file);
    assert_int_equal(fclose(file), 0);
}

#define STRICT "-std=c11 -Wall -Wextra -Werror -pedantic -I${CUDA_HOME:-/usr/local/cuda}/include "
/* Before -Wl options a path of the working directory: where this program and its fakes lie. */
#define FAKE " -L${TILEBOOK%/*}/tests/fake -l:libcuda.so.1 -Wl,-rpath,$PWD/${TILEBOOK%/*}/tests/fake "

static void *symbol(void *library, const char *name) {
    void *found = dlsym(library, name);
    if (!found) fail_msg("%s", dlerror());
    return found;
}

/* Makes the pack once and loads its C file, as a library. */
static int make_pack(void **state) {
    char message[TILES_MESSAGE];
    if (folder_make(state) || setenv("TILEBOOK_CACHE", in_folder("cache"), 1)) return -1;
    if (nvrtc_open(NULL, NULL)) return 0;
    print_rows(rows);
    write_table("tiles.txt", head, rows);
    if (tiles_read(in_folder("tiles.txt"), &table, message)) return -1;
    if (shell("$TILEBOOK table export @/tiles.txt --format pack --epilogue none,bias --out @/pack") ||
        shell("gcc " STRICT "-shared -fPIC @/pack/tilebook_pack.c -o @/pack.so" FAKE)) {
        print_error("%s\n", output);
        return -1;
    }
    void *library = dlopen(in_folder("pack.so"), RTLD_NOW);
    if (!library) return print_error("%s\n", dlerror()), -1;
    find = (__typeof__(find))symbol(library, "tilebook_pack_find");
    workspace = (__typeof__(workspace))symbol(library, "tilebook_pack_workspace");
    open_pack = (__typeof__(open_pack))symbol(library, "tilebook_pack_open");
    launch_pack = (__typeof__(launch_pack))symbol(library, "tilebook_pack_launch");
    close_pack = (__typeof__(close_pack))symbol(library, "tilebook_pack_close");
    fake = symbol(library, "fake");
    return 0;
}

static int remove_pack(void **state) {
    tiles_free(&table);
    return folder_remove(state);
}

static void need_pack(void) {
    if (fake) return;
    print_message("skipped: no NVRTC\n");
    skip();
}

static struct tilebook_pack *opened(void) {
    struct tilebook_pack *pack;
    char message[TILEBOOK_PACK_MESSAGE] = "";
    if (open_pack(in_folder("pack"), &pack, message)) fail_msg("%s", message);
    return pack;
}

/* --- the same launches --- */

static void check_map(const struct launch_tensor *expected, const struct operands *operands, const void *seen) {
    const struct device_tensor *t = &expected->tensor;
    struct fake_map map;
    memcpy(&map, seen, sizeof map);
    assert_ptr_equal(map.memory, *(const void *const *)((const char *)operands + expected->operand));
    assert_int_equal(map.sides[0], t->columns);
    assert_int_equal(map.sides[1], t->rows);
    assert_int_equal(map.row_bytes, t->columns * (size_t)t->element_bytes);
    assert_int_equal(map.box[0], t->box_columns);
    assert_int_equal(map.box[1], t->box_rows);
    assert_int_equal(map.swizzle, t->swizzle ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE);
    assert_int_equal(map.type, t->element_bytes == 1   ? CU_TENSOR_MAP_DATA_TYPE_UINT8
                               : t->element_bytes == 2 ? CU_TENSOR_MAP_DATA_TYPE_UINT16
                               : t->element_bytes == 4 ? CU_TENSOR_MAP_DATA_TYPE_UINT32
                                                       : CU_TENSOR_MAP_DATA_TYPE_UINT64);
}

/* What the driver saw is what the library's own launch says. */
static void check_launch(const struct problem *p, const struct launch *expected, const struct operands *operands,
                         bool overlaps) {
    const struct arguments arguments = {*operands, p->m, p->n, p->k, p->group, overlaps};
    size_t maps = (sizeof arguments + 63) / 64 * 64;
    assert_int_equal(fake->config.gridDimX, expected->grid.blocks[0]);
    assert_int_equal(fake->config.gridDimY, expected->grid.blocks[1]);
    assert_int_equal(fake->config.gridDimZ, expected->grid.blocks[2]);
    assert_int_equal(fake->config.blockDimX * fake->config.blockDimY * fake->config.blockDimZ, expected->grid.threads);
    assert_int_equal(fake->config.sharedMemBytes, expected->shared_bytes);
    assert_int_equal(fake->function->shared_bytes, expected->shared_bytes);
    assert_ptr_equal(fake->config.hStream, (CUstream)16);
    assert_int_equal(fake->cluster, expected->grid.cluster > 1 ? expected->grid.cluster : 0);
    assert_int_equal(fake->overlaps, overlaps);
    assert_string_equal(fake->function->entry, expected->entry);
    assert_memory_equal(fake->parameters, &arguments, offsetof(struct arguments, overlaps) + sizeof arguments.overlaps);
    for (int i = 0; i < expected->tensor_count; i++)
        check_map(&expected->tensors[i], operands, fake->parameters + maps + 128 * (size_t)i);
}

/* The pack's comment on a cubin is what it was compiled from. */
static void check_cubin(const char *file, const struct launch *launch, const char *options) {
    static char code[1 << 20];
    char expected[1024];
    if (!*code) {
        FILE *stream = fopen(in_folder("pack/tilebook_pack.c"), "r");
        assert_non_null(stream);
        code[fread(code, 1, sizeof code - 1, stream)] = 0;
        fclose(stream);
    }
    snprintf(expected, sizeof expected, "/* %s %s */\n    {\"%s\", \"%s\", %zu},", launch->source, options, file,
             launch->entry, launch->shared_bytes);
    if (!strstr(code, expected)) fail_msg("the pack lacks %s", expected);
}

/* The library's choice where that has a cubin, else what the pack names, which must be able to run. */
static struct choice choice_of(const struct problem *p, const struct tilebook_pack_row *row) {
    struct choice choice;
    struct error why;
    char text[MAX_CONFIG_TEXT], name[64];
    choice_look_up(&h100, kernel_list(), &table, p, &choice);
    bool named = choice.kernel && choice.kernel->launch;
    if (!named) {
        choice.kernel = kernel_find(row->kernel);
        assert_non_null(choice.kernel);
        if (config_parse(choice.kernel, row->configuration, &choice.config, &why) ||
            config_legal(&h100, choice.kernel, p, &choice.config, &why))
            fail_msg("%s", why.text);
    }
    assert_string_equal(row->kernel, kernel_full_name(choice.kernel, name));
    assert_string_equal(row->configuration, config_text(choice.kernel, &choice.config, text));
    choice.how = named ? CHOICE_ROW : CHOICE_REFUSED;
    return choice;
}

static int seen_steps, seen_clusters, seen_tensors; /* launches with a workspace in steps, ... */

static void compare(const struct tilebook_pack *pack, const struct problem *p,
                    const struct tilebook_pack_problem *problem, const struct tilebook_pack_row *row, int *others) {
    const struct tilebook_pack_operands operands = {256, 512, 1024, 2048, 4096, 8192, 16384};
    const struct operands same = {(void *)256,  (void *)512,  (void *)1024, (void *)2048,
                                  (void *)4096, (void *)8192, (void *)16384};
    struct choice choice = choice_of(p, row);
    struct launch launch = {0};
    char options[LAUNCH_OPTIONS];
    bool overlaps = roll(2);
    *others += choice.how == CHOICE_REFUSED;
    choice.kernel->launch(&h100, p, &choice.config, &launch);
    launch_options(choice.kernel, p, &choice.config, &launch, options);
    int launches = fake->launches;
    assert_int_equal(launch_pack(pack, problem, &operands, overlaps, (CUstream)16), CUDA_SUCCESS);
    assert_int_equal(fake->launches, launches + 1);
    size_t bytes = workspace(problem);
    if (bytes != launch.workspace_bytes && (row->workspace_step || bytes < launch.workspace_bytes))
        fail_msg("%s: workspace of %zu for %zu", row->kernel, bytes, launch.workspace_bytes);
    seen_steps += row->m_step > 1 && bytes;
    seen_clusters += row->cluster > 1;
    seen_tensors += row->tensor_count > 0;
    check_launch(p, &launch, &same, overlaps && launch.grid.overlaps);
    check_cubin(fake->function->file, &launch, options);
}

/* Mostly of the table's shapes; m small or large. */
static struct problem random_problem(void) {
    static const int limits[] = {10, 30, 700, 40000};
    const struct tile_row *row = &table.rows[roll((unsigned)table.count)];
    struct problem p = {.m = 1 + (int)roll((unsigned)limits[roll(4)]),
                        .k = (int)row->k << !roll(16),
                        .n = (int)row->n << !roll(16),
                        .group = (int)row->group,
                        .zeros = roll(2),
                        .epilogue = (enum epilogue)roll(roll(4) ? 2 : 4)};
    op_parse(row->op, &p.op, NULL);
    if (p.op == OP_AWQ_DEQUANT && roll(4)) p.m = 1, p.epilogue = EPILOGUE_NONE;
    if (p.op == OP_FP16_GEMM && roll(8)) p.zeros = false;
    return p;
}

static void test_same_launches(void **state) {
    (void)state;
    int found = 0, others = 0;
    need_pack();
    struct tilebook_pack *pack = opened();
    for (int i = 0; i < 10000; i++) {
        struct problem p = random_problem();
        struct tilebook_pack_problem problem = {
            (enum tilebook_pack_op)p.op, p.m, p.n, p.k, p.group, p.zeros, (enum tilebook_pack_epilogue)p.epilogue};
        const struct tilebook_pack_row *row = find(&problem);
        bool there = tiles_find(&table, op_name(p.op), p.k, p.n, p.group, p.m) && !problem_check(&p, NULL) &&
                     p.m <= 32768 && p.epilogue <= EPILOGUE_BIAS;
        char text[128];
        if ((row != NULL) != there) fail_msg("%s: row %p", problem_text(&p, text), (const void *)row);
        if (row)
            compare(pack, &p, &problem, row, &others);
        else
            assert_int_equal(launch_pack(pack, &problem, &(struct tilebook_pack_operands){0}, 0, NULL),
                             CUDA_ERROR_NOT_FOUND);
        found += there;
    }
    close_pack(pack);
    assert_int_equal(fake->modules, 0);
    if (found < 5000 || found > 9500 || others < 30) fail_msg("%d found, %d of them others", found, others);
    if (seen_steps < 100 || seen_clusters < 100 || seen_tensors < 100)
        fail_msg("%d workspaces, %d clusters, %d with tensors", seen_steps, seen_clusters, seen_tensors);
}

/* --- its own words --- */

static void test_open_says_what_is_wrong(void **state) {
    (void)state;
    struct tilebook_pack *pack;
    char message[TILEBOOK_PACK_MESSAGE];
    need_pack();
    fake->multiprocessors = 114;
    assert_int_equal(open_pack(in_folder("pack"), &pack, message), CUDA_ERROR_INVALID_DEVICE);
    assert_non_null(strstr(message, "is for NVIDIA H100 80GB HBM3, compute capability 9.0, 132 SMs; "));
    assert_non_null(strstr(message, "is NVIDIA H100 80GB HBM3, 9.0, 114 SMs"));
    fake->multiprocessors = 132;
    fake->no_context = true;
    assert_int_equal(open_pack(in_folder("pack"), &pack, message), CUDA_ERROR_INVALID_CONTEXT);
    assert_string_equal(message, "no context is current");
    fake->no_context = false;
    assert_int_equal(open_pack(in_folder("nothing"), &pack, message), CUDA_ERROR_FILE_NOT_FOUND);
    assert_non_null(strstr(message, "/nothing/awq_dequant-tiled-0.cubin: file not found"));
    assert_null(pack);
    assert_int_equal(fake->modules, 0);
    close_pack(NULL);
}

/* The table is in the pack as it was, each cubin is an ELF file, and nothing else is there. */
static void test_folder(void **state) {
    (void)state;
    need_pack();
    expect_shell(0, "$TILEBOOK table show @/tiles.txt | cmp - @/pack/tiles.txt", "");
    expect_shell(0, "cd @/pack && for f in *.cubin; do head -c 4 $f | grep -q ELF || echo $f; done; ls | grep -v cubin",
                 "");
    assert_string_equal(output, "tilebook_pack.c\ntilebook_pack.h\ntiles.txt\n");
}

/* Not one for each M, nor for each step. */
static void test_rows_are_few(void **state) {
    (void)state;
    need_pack();
    expect_shell(0, "grep -c '{TILEBOOK_PACK_' @/pack/tilebook_pack.c", "");
    int count = atoi(output), least = 2 + 4 * 2 + 4 * 4;
    if (count < least || count > least + 5) fail_msg("%d rows, expected %d and a few", count, least);
}

static void test_compiles_strictly(void **state) {
    (void)state;
    need_pack();
    expect_shell(0, "gcc " STRICT "-fsyntax-only -x c @/pack/tilebook_pack.h", "");
    expect_shell(0, "gcc " STRICT "-I@/pack -fsyntax-only tuner/pack/example.c", "");
}

static void test_refuses(void **state) {
    (void)state;
    static const char cpu[] = "# tilebook table 1\ndevice    EPYC, avx2, 4 cores\nsoftware  gcc, kernels %s\n"
                              "regime    cold, stream\n";
    static const char other[] = "# tilebook table 1\ndevice    H100, sm_90a, 132 SMs\nsoftware  cuda, kernels 0%.0s\n"
                                "regime    cold, stream\n";
    static const char old[] = "# tilebook table 1\ndevice    V100, sm_70, 80 SMs\nsoftware  cuda, kernels %s\n"
                              "regime    cold, stream\n";
    write_table("cpu.txt", cpu, "fp16_gemm 256 192 0 1-16 fp16_gemm/cpu tile_m=8 1.0 1.0 0 1.0\n");
    expect(1, "table export @/cpu.txt --format pack --out @/no", "the table is for EPYC (avx2), which runs no cubins");
    write_table("other.txt", other, rows);
    expect(1, "table export @/other.txt --format pack --out @/no", "measured with kernels 0, this program has");
    write_table("old.txt", old, rows);
    expect(1, "table export @/old.txt --format pack --out @/no", "V100 (sm_70); packs can be made for");
    expect(2, "table export @/old.txt --format pack", "--format pack needs --out FOLDER");
    expect(2, "table export @/old.txt --format pack --out @/no --epilogue relu", "unknown epilogue 'relu'");
    expect(2, "table export @/old.txt --format c --epilogue bias", "--epilogue belongs to export --format pack");
    assert_int_not_equal(access(in_folder("no"), F_OK), 0);
    write_table("tiles.txt", head, rows);
    expect(1, "table export @/tiles.txt --format pack --out @", "the folder is not empty");
    expect(1, "table export @/tiles.txt --format pack --out @/tiles.txt", "cannot write: Not a directory");
}
#endif

int main(void) {
#ifdef TILEBOOK_CUDA
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_launches),
        cmocka_unit_test(test_open_says_what_is_wrong),
        cmocka_unit_test(test_folder),
        cmocka_unit_test(test_rows_are_few),
        cmocka_unit_test(test_compiles_strictly),
        cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, make_pack, remove_pack);
#else
    print_message("skipped: this build has no CUDA backend\n");
    return 0;
#endif
}
