/* What GPUs tell each other by NCCL, and by each other's memory, in order with kernels and inside graphs: with all GPUs
 * there are, be it one. With several they share a model. */
#include "kernels/cuda/direct.h"
#include "kernels/cuda/nccl.h"
#include "kernels/half.h"
#include "tests/shared.h"

enum { ROWS = 3, WIDTH = 64, COUNT = ROWS * WIDTH, RUNS = 3 };

static struct communicator *all;
static struct error error;
static bool small; /* under a sanitizer, which lets no two kernels run at a time */

static int open_nccl(struct communicator *c) {
    return c->nccl ? 0 : nccl_open(c, &error);
}

/* NULL where there is no NCCL, whose message then is in the log. */
static int open_all(void **state) {
    (void)state;
    int count = device_cuda_count(&error);
    model_dir_make(directory);
    if (count && !communicator_open("cuda:0", count, &all, &error) && !open_nccl(all)) return 0;
    print_message("%s\n", error.text);
    communicator_close(all);
    all = NULL;
    return strstr(error.text, "no NCCL") ? 0 : -1;
}

static int close_all(void **state) {
    (void)state;
    communicator_close(all);
    model_dir_remove(directory);
    return 0;
}

/* Each rank's buffers. */
struct buffers {
    uint16_t **parts, **sums, **rows; /* (ROWS, WIDTH) twice; (ROWS, ranks * WIDTH) */
};

static uint16_t **take(size_t count) {
    uint16_t **buffers = calloc((size_t)all->count, sizeof *buffers);
    for (int i = 0; i < all->count; i++) {
        buffers[i] = device_alloc(all->devices[i], 2 * count, &error);
        if (!buffers[i]) fail_msg("%s", error.text);
    }
    return buffers;
}

static void release(uint16_t **buffers) {
    for (int i = 0; i < all->count; i++) device_free(all->devices[i], buffers[i]);
    free(buffers);
}

/* Small whole numbers, whose sums are exact in any order. */
static float part(int rank, int i) {
    return (float)((i * 7 + rank * 13) % 32 - 16);
}

static struct buffers make_buffers(void) {
    struct buffers b = {take(COUNT), take(COUNT), take(COUNT * (size_t)all->count)};
    for (int rank = 0; rank < all->count; rank++) {
        uint16_t words[COUNT];
        for (int i = 0; i < COUNT; i++) words[i] = half_from_float(part(rank, i));
        must(device_write(all->devices[rank], b.parts[rank], words, sizeof words, &error), &error);
    }
    return b;
}

static void free_buffers(struct buffers *b) {
    release(b->parts);
    release(b->sums);
    release(b->rows);
}

/* Ahead of the sum something that it has to wait for. */
static int enqueue(void *context, struct error *why) {
    const struct buffers *b = context;
    for (int i = 0; i < all->count; i++)
        if (device_copy(all->devices[i], b->sums[i], b->parts[i], 2 * COUNT, why)) return -1;
    if (all_reduce(all, b->sums, COUNT, why)) return -1;
    return all_gather(all, b->sums, b->rows, ROWS, WIDTH, why);
}

static void check_buffers(const struct buffers *b, const char *what) {
    uint16_t words[COUNT], *rows = malloc(2 * COUNT * (size_t)all->count);
    for (int rank = 0; rank < all->count; rank++) {
        struct device *device = all->devices[rank];
        must(device_read(device, words, b->sums[rank], sizeof words, &error), &error);
        must(device_read(device, rows, b->rows[rank], 2 * COUNT * (size_t)all->count, &error), &error);
        for (int i = 0; i < COUNT; i++) {
            float sum = 0;
            for (int r = 0; r < all->count; r++) sum += part(r, i);
            if (half_to_float(words[i]) != sum)
                fail_msg("%s, rank %d: sum %d is %g, not %g", what, rank, i, half_to_float(words[i]), sum);
        }
        for (int i = 0; i < COUNT * all->count; i++) {
            int row = i / (WIDTH * all->count), column = i % WIDTH;
            if (rows[i] != words[row * WIDTH + column]) fail_msg("%s, rank %d: %d is not in its row", what, rank, i);
        }
        must(device_fill(device, b->sums[rank], 0xff, 2 * COUNT, &error), &error);
        must(device_fill(device, b->rows[rank], 0xff, 2 * COUNT * (size_t)all->count, &error), &error);
    }
    free(rows);
}

static void gpus_add_and_gather(void **state) {
    (void)state;
    if (!all) skip();
    struct buffers b = make_buffers();
    for (int i = 0; i < RUNS; i++) {
        must(enqueue(&b, &error), &error);
        check_buffers(&b, "one by one");
    }
    free_buffers(&b);
}

static void graphs_hold_it(void **state) {
    (void)state;
    if (!all) skip();
    struct buffers b = make_buffers();
    struct device_graph **graphs = calloc((size_t)all->count, sizeof *graphs);
    must(device_graphs_record(all->devices, all->count, enqueue, &b, graphs, &error), &error);
    for (int run = 0; run < RUNS; run++) {
        for (int i = 0; i < all->count; i++) must(device_graph_launch(all->devices[i], graphs[i], &error), &error);
        check_buffers(&b, "in graphs");
    }
    for (int i = 0; i < all->count; i++) device_graph_destroy(all->devices[i], graphs[i]);
    free(graphs);
    free_buffers(&b);
}

static int enqueue_direct(void *context, struct error *why) {
    const struct buffers *b = context;
    for (int i = 0; i < all->count; i++)
        if (device_copy(all->devices[i], b->sums[i], b->parts[i], 2 * COUNT, why)) return -1;
    return direct_all_reduce(all, b->sums, COUNT, why);
}

/* Sums of both; poisons them. */
static void check_direct(const struct buffers *b) {
    uint16_t words[COUNT];
    for (int rank = 0; rank < all->count; rank++) {
        must(device_read(all->devices[rank], words, b->sums[rank], sizeof words, &error), &error);
        must(device_fill(all->devices[rank], b->sums[rank], 0xff, sizeof words, &error), &error);
        for (int i = 0; i < COUNT; i++)
            if (half_to_float(words[i]) != part(0, i) + part(1, i))
                fail_msg("rank %d: sum %d is %g", rank, i, half_to_float(words[i]));
    }
}

/* Two ranks on the first GPU, which wait for each other's kernels; many sums without the host in between. */
static void ranks_write_to_each_other(void **state) {
    (void)state;
    if (small) skip();
    struct communicator two = {.count = 2, .devices = (struct device *[]){NULL, NULL}}, *others = all;
    for (int i = 0; i < 2; i++) must(device_open("cuda:0", &two.devices[i], &error), &error);
    must(direct_open(&two, &error), &error);
    assert_non_null(two.direct);
    all = &two;
    assert_true(direct_takes(all, COUNT) && direct_takes(all, 1 << 19) && !direct_takes(all, (1 << 19) + 2));
    assert_false(direct_takes(all, 5));
    struct buffers b = make_buffers();
    struct device_graph *graphs[2];
    for (int run = 0; run < 50; run++) must(enqueue_direct(&b, &error), &error);
    check_direct(&b);
    must(device_graphs_record(two.devices, 2, enqueue_direct, &b, graphs, &error), &error);
    for (int run = 0; run < 50; run++)
        for (int i = 0; i < 2; i++) must(device_graph_launch(two.devices[i], graphs[i], &error), &error);
    check_direct(&b);
    for (int i = 0; i < 2; i++) device_graph_destroy(two.devices[i], graphs[i]);
    free_buffers(&b);
    direct_close(all);
    all = others;
    for (int i = 0; i < 2; i++) device_close(two.devices[i]);
}

static void gpus_share_a_model(void **state) {
    (void)state;
    if (!all || all->count < 2) {
        print_message("a model is shared by two GPUs or more\n");
        skip();
    }
    int most = all->count < 4 ? all->count : 4;
    make_model(QUANT_NONE, false);
    check_method("cuda:0", METHOD_NONE, most);
    make_model(QUANT_AWQ, false);
    check_method("cuda:0", METHOD_AWQ, most);
    check_method("cuda:0", METHOD_AWQ_MARLIN, most);
    make_model(QUANT_GPTQ, false);
    check_method("cuda:0", METHOD_GPTQ_MARLIN, most);
}

int main(int argc, char **argv) {
    small = argc > 1 && !strcmp(argv[1], "small");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpus_add_and_gather),
        cmocka_unit_test(graphs_hold_it),
        cmocka_unit_test(ranks_write_to_each_other),
        cmocka_unit_test(gpus_share_a_model),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
