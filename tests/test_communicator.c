/* What devices that share a model tell each other: on the CPU, and as GPUs do, by a library in the place of NCCL and by
 * device code on the host. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "kernels/communicator.h"
#include "kernels/cuda/direct.cuh"
#include "kernels/half.h"
#include "tests/emulation/load.h"
#include "tests/fake/fake.h"
#include "tests/fake/load.h"
#include "tests/model_dir.h"
#ifdef TILEBOOK_CUDA
#include "kernels/cuda/nccl.h"
#endif

enum { RANKS = 3 };

/* In fp32 and in this order the last part of the first sum is not lost, and both halves of the second count. */
static const float parts[RANKS][2] = {{60000, 1}, {-60000, 0x1p-11f}, {0x1p-10f, 0x1p-11f}};
static const float sums[2] = {0x1p-10f, 1 + 0x1p-10f};

static void must(int status, const struct error *error) {
    if (status) fail_msg("%s", error->text);
}

static void check_sum(struct communicator *c) {
    uint16_t words[RANKS][2], *buffers[RANKS];
    struct error error = {""};
    for (int rank = 0; rank < RANKS; rank++) {
        buffers[rank] = words[rank];
        for (int i = 0; i < 2; i++) words[rank][i] = half_from_float(parts[rank][i]);
    }
    must(all_reduce(c, buffers, 2, &error), &error);
    for (int rank = 0; rank < RANKS; rank++)
        for (int i = 0; i < 2; i++) assert_float_equal(half_to_float(words[rank][i]), sums[i], 0);
}

static void check_rows(struct communicator *c) {
    uint16_t own[RANKS][4] = {{1, 2, 3, 4}, {11, 12, 13, 14}, {21, 22, 23, 24}}, all[RANKS][12], *from[RANKS],
             *to[RANKS];
    const uint16_t expected[12] = {1, 2, 11, 12, 21, 22, 3, 4, 13, 14, 23, 24};
    struct error error = {""};
    for (int rank = 0; rank < RANKS; rank++) {
        from[rank] = own[rank];
        to[rank] = all[rank];
    }
    must(all_gather(c, from, to, 2, 2, &error), &error);
    for (int rank = 0; rank < RANKS; rank++) assert_memory_equal(all[rank], expected, sizeof expected);
}

static void cpus_add_in_the_order_of_ranks_and_gather(void **state) {
    (void)state;
    struct communicator *c;
    struct error error = {""};
    must(communicator_open("cpu", RANKS, &c, &error), &error);
    assert_int_equal(c->count, RANKS);
    for (int i = 0; i < RANKS; i++) assert_string_equal(c->devices[i]->id, "cpu");
    check_sum(c);
    check_rows(c);
    communicator_close(c);
    assert_int_equal(communicator_open("cpu:1", 2, &c, &error), -1);
    assert_null(c);
    assert_says(error.text, "cpu:1|accepted");
}

#ifdef TILEBOOK_CUDA
enum { STATE_BYTES = 4096, FIRST = 5 };

/* GPUs as far as NCCL is concerned, whose memory is the host's: a backend's own state is all zero. */
static void make_gpus(struct communicator *c, struct device *devices, struct device **list, const struct device *cpu) {
    *c = (struct communicator){.count = RANKS, .devices = list};
    for (int i = 0; i < RANKS; i++) {
        devices[i] = *cpu;
        devices[i].backend = BACKEND_CUDA;
        devices[i].index = FIRST + i;
        devices[i].state = calloc(1, STATE_BYTES);
        list[i] = &devices[i];
    }
}

static void gpus_do_it_by_nccl(void **state) {
    (void)state;
    struct fake_nccl *fake = fake_load("libnccl.so.2");
    struct communicator c;
    struct device devices[RANKS], *list[RANKS], *cpu;
    struct error error = {""};
    assert_non_null(fake);
    must(device_open("cpu", &cpu, &error), &error);
    make_gpus(&c, devices, list, cpu);
    fake->refuses = true;
    assert_int_equal(nccl_open(&c, &error), -1);
    assert_says(error.text, "connecting the GPUs: NCCL: invalid argument (the last one)");
    nccl_close(&c);
    fake->refuses = false;
    fake->first = FIRST;
    must(nccl_open(&c, &error), &error);
    assert_int_equal(fake->comms, RANKS);
    assert_int_equal(fake->groups, 1); /* the connections are there */
    check_sum(&c);
    check_rows(&c);
    assert_int_equal(fake->groups, 3);
    nccl_close(&c);
    assert_int_equal(fake->comms, 0);
    assert_null(c.nccl);
    for (int i = 0; i < RANKS; i++) free(devices[i].state);
    device_close(cpu);
}
#else
static void gpus_do_it_by_nccl(void **state) {
    (void)state;
    print_message("skipped: no CUDA backend\n");
    skip();
}
#endif

/* --- short sums, by the memory of others --- */

enum { PAIRS = 2 * DIRECT_CHUNK - 100, BLOCKS = 2, LINES = 2 * RANKS * DIRECT_PAIRS, OURS = 1 };

static unsigned pair_of(int rank, int pair, unsigned epoch) {
    uint16_t low = half_from_float((float)((pair * 7 + rank * 5 + (int)epoch) % 64) - 31.5f);
    return low | (unsigned)half_from_float((float)(pair % 13 * (rank + 1))) << 16;
}

static unsigned long long *line_of(unsigned long long *lines, unsigned epoch, int sender, int pair) {
    return lines + ((size_t)(epoch % 2) * RANKS + (size_t)sender) * DIRECT_PAIRS + (size_t)pair;
}

/* The sums of all, by the order of ranks. */
static unsigned sum_of(int pair, unsigned epoch) {
    float low = 0, high = 0;
    for (int rank = 0; rank < RANKS; rank++) {
        unsigned word = pair_of(rank, pair, epoch);
        low += half_to_float((uint16_t)word);
        high += half_to_float((uint16_t)(word >> 16));
    }
    return half_from_float(low) | (unsigned)half_from_float(high) << 16;
}

/* Everyone was sent our pairs, and nothing else. */
static void check_sent(unsigned long long *const lines[RANKS], unsigned epoch) {
    for (int rank = 0; rank < RANKS; rank++)
        for (int pair = 0; pair < PAIRS + 100 && rank != OURS; pair++) {
            unsigned long long expected = (unsigned long long)epoch << 32 | pair_of(OURS, pair, epoch);
            assert_int_equal(*line_of(lines[rank], epoch, OURS, pair), pair < PAIRS ? expected : 0);
            assert_int_equal(*line_of(lines[rank], epoch, (OURS + 1) % RANKS, pair), 0);
        }
}

/* The others have sent theirs before; those of the epoch before last lie there still. */
static void ranks_write_to_each_other(void **state) {
    (void)state;
    static unsigned values[PAIRS + 1], epochs[DIRECT_BLOCKS];
    const struct device_grid grid = {.blocks = {BLOCKS, 1, 1}, .threads = DIRECT_THREADS, .overlaps = true};
    struct direct_arguments a = {values, epochs, .pairs = PAIRS, .rank = OURS};
    emulate_function *emulate;
    void *library =
        emulation_load("cuda/direct.cu", "direct_all_reduce", "struct direct_arguments", "-DRANKS=3", &emulate);
    for (int i = 0; i < RANKS; i++) assert_non_null(a.sent[i] = calloc(LINES, sizeof **a.sent));
    a.received = a.sent[OURS];
    for (unsigned epoch = 1; epoch <= 4; epoch++) {
        for (int pair = 0; pair < PAIRS; pair++) {
            values[pair] = pair_of(OURS, pair, epoch);
            for (int rank = 0; rank < RANKS; rank++)
                if (rank != OURS)
                    *line_of(a.sent[OURS], epoch, rank, pair) =
                        (unsigned long long)epoch << 32 | pair_of(rank, pair, epoch);
        }
        values[PAIRS] = 12345;
        emulate(&a, &grid, epoch % 2, epoch);
        for (int pair = 0; pair < PAIRS; pair++) assert_int_equal(values[pair], sum_of(pair, epoch));
        assert_int_equal(values[PAIRS], 12345);
        check_sent(a.sent, epoch);
        for (int i = 0; i < DIRECT_BLOCKS; i++) assert_int_equal(epochs[i], i < BLOCKS ? epoch : 0);
    }
    for (int i = 0; i < RANKS; i++) free(a.sent[i]);
    dlclose(library);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cpus_add_in_the_order_of_ranks_and_gather),
        cmocka_unit_test(gpus_do_it_by_nccl),
        cmocka_unit_test(ranks_write_to_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
