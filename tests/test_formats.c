/* Packing, unpacking and repacking against golden words made by an independent program, and round trips. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kernels/formats/formats.h"
#include "tests/fixtures/golden_formats.h"

enum { K = GOLDEN_K, N = GOLDEN_N, GROUPS = GOLDEN_K / GOLDEN_GROUP };

static struct device *device;
static uint8_t codes[K * N], zeros[GROUPS * N];

static int open_device(void **state) {
    (void)state;
    struct error error;
    for (int i = 0; i < K * N; i++) codes[i] = (uint8_t)strtol((char[]){golden_codes[i], 0}, NULL, 16);
    for (int i = 0; i < GROUPS * N; i++) zeros[i] = (uint8_t)strtol((char[]){golden_zeros[i], 0}, NULL, 16);
    return device_open("cpu", &device, &error);
}

static int close_device(void **state) {
    (void)state;
    device_close(device);
    return 0;
}

static void golden_weights(void **state) {
    (void)state;
    uint32_t words[K * N / 8];
    awq_pack(codes, GOLDEN_ROWS, N, words);
    assert_memory_equal(words, golden_awq, sizeof golden_awq);
    gptq_pack(codes, GOLDEN_ROWS, N, words);
    assert_memory_equal(words, golden_gptq, sizeof golden_gptq);
    marlin_pack(codes, K, N, words);
    assert_memory_equal(words, golden_marlin, sizeof golden_marlin);
}

static void golden_weights_read_back(void **state) {
    (void)state;
    uint8_t back[K * N];
    awq_unpack(golden_awq, GOLDEN_ROWS, N, back);
    assert_memory_equal(back, codes, GOLDEN_ROWS * N);
    gptq_unpack(golden_gptq, GOLDEN_ROWS, N, back);
    assert_memory_equal(back, codes, GOLDEN_ROWS * N);
    marlin_unpack(golden_marlin, K, N, back);
    assert_memory_equal(back, codes, sizeof codes);
}

static void golden_zero_points(void **state) {
    (void)state;
    uint32_t words[GROUPS * N / 8];
    awq_pack(zeros, GROUPS, N, words);
    assert_memory_equal(words, golden_awq_zeros, sizeof words);
    gptq_pack_zeros(zeros, GROUPS, N, true, words);
    assert_memory_equal(words, golden_gptq_v1_zeros, sizeof words);
    assert_int_equal(words[N / 8], 0x77777777); /* the symmetric group */
    gptq_pack_zeros(zeros, GROUPS, N, false, words);
    assert_memory_equal(words, golden_gptq_v2_zeros, sizeof words);
    marlin_pack_zeros(zeros, GROUPS, N, words);
    assert_memory_equal(words, golden_marlin_zeros, sizeof words);
}

static void golden_zero_points_read_back(void **state) {
    (void)state;
    uint8_t back[GROUPS * N];
    awq_unpack(golden_awq_zeros, GROUPS, N, back);
    assert_memory_equal(back, zeros, sizeof zeros);
    gptq_unpack_zeros(golden_gptq_v1_zeros, GROUPS, N, true, back);
    assert_memory_equal(back, zeros, sizeof zeros);
    gptq_unpack_zeros(golden_gptq_v2_zeros, GROUPS, N, false, back);
    assert_memory_equal(back, zeros, sizeof zeros);
    marlin_unpack_zeros(golden_marlin_zeros, GROUPS, N, back);
    assert_memory_equal(back, zeros, sizeof zeros);
}

static void golden_scales_both_orders(void **state) {
    (void)state;
    uint16_t packed[GROUPS * N], back[GROUPS * N];
    marlin_pack_scales(golden_scales, GROUPS, N, packed);
    assert_memory_equal(packed, golden_marlin_scales, sizeof golden_marlin_scales);
    marlin_unpack_scales(packed, GROUPS, N, back);
    assert_memory_equal(back, golden_scales, sizeof golden_scales);
    marlin_pack_scales(golden_scales, 1, N, packed);
    assert_memory_equal(packed, golden_marlin_scales_one_group, sizeof golden_marlin_scales_one_group);
    marlin_unpack_scales(packed, 1, N, back);
    assert_memory_equal(back, golden_scales, N * sizeof *back);
}

static void round_trips(void **state) {
    (void)state;
    static const int shapes[][2] = {{16, 64}, {128, 64}, {384, 192}, {256, 1088}};
    srand(7);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        int k = shapes[i][0], n = shapes[i][1];
        size_t count = (size_t)(k * n);
        uint8_t *plain = malloc(count), *back = malloc(count);
        uint32_t *words = malloc(count / 2);
        for (size_t c = 0; c < count; c++) plain[c] = (uint8_t)(rand() >> 4 & 15);
        awq_pack(plain, k, n, words), awq_unpack(words, k, n, back);
        assert_memory_equal(back, plain, count);
        gptq_pack(plain, k, n, words), gptq_unpack(words, k, n, back);
        assert_memory_equal(back, plain, count);
        marlin_pack(plain, k, n, words), marlin_unpack(words, k, n, back);
        assert_memory_equal(back, plain, count);
        for (int v1 = 0; v1 < 2; v1++) {
            gptq_pack_zeros(plain, k, n, v1, words), gptq_unpack_zeros(words, k, n, v1, back);
            assert_memory_equal(back, plain, count);
        }
        marlin_pack_zeros(plain, k, n, words), marlin_unpack_zeros(words, k, n, back);
        assert_memory_equal(back, plain, count);
        free(plain), free(back), free(words);
    }
}

/* Words of `rows` by N/8 columns of nibbles, at columns 64.. of a matrix 256 wide that is poisoned. */
enum { TOTAL = 256, OFFSET = 64 };

static struct repack fused(enum format from, enum format to, const int32_t *perm) {
    return (struct repack){from, to, K, N, GROUPS, TOTAL, OFFSET, perm, COLUMNS_TOGETHER};
}

/* Rows of `width` words inside rows of `total` words equal the expected ones, and nothing else was written. */
static void check_fused(const uint32_t *to, int rows, int width, int total, int offset, const uint32_t *expected) {
    for (int row = 0; row < rows; row++)
        for (int i = 0; i < total; i++) {
            bool inside = i >= offset && i < offset + width;
            assert_int_equal(to[row * total + i], inside ? expected[row * width + i - offset] : 0xdeadbeef);
        }
}

static void poison(uint32_t *words, int count) {
    for (int i = 0; i < count; i++) words[i] = 0xdeadbeef;
}

static void repack_to_fused_matrix(void **state) {
    (void)state;
    static uint32_t from[K * N / 8], to[K * TOTAL / 8], awq[K * N / 8];
    struct error error;
    awq_pack(codes, K, N, awq);
    for (int source = FORMAT_AWQ; source <= FORMAT_GPTQ_V2; source++) {
        (source == FORMAT_AWQ ? awq_pack : gptq_pack)(codes, K, N, from);
        struct repack r = fused((enum format)source, FORMAT_MARLIN, NULL);
        poison(to, K * TOTAL / 8);
        assert_int_equal(repack_weights(device, &r, from, to, &error), 0);
        check_fused(to, K / 16, 2 * N, 2 * TOTAL, 2 * OFFSET, golden_marlin);
        r.to = FORMAT_AWQ;
        poison(to, K * TOTAL / 8);
        assert_int_equal(repack_weights(device, &r, from, to, &error), 0);
        check_fused(to, K, N / 8, TOTAL / 8, OFFSET / 8, awq);
    }
}

static void repack_zero_points(void **state) {
    (void)state;
    static const uint32_t *const from[] = {golden_awq_zeros, golden_gptq_v1_zeros, golden_gptq_v2_zeros};
    uint32_t to[GROUPS * TOTAL / 8];
    struct error error;
    for (int source = FORMAT_AWQ; source <= FORMAT_GPTQ_V2; source++) {
        struct repack r = fused((enum format)source, FORMAT_MARLIN, NULL);
        poison(to, GROUPS * TOTAL / 8);
        assert_int_equal(repack_zeros(device, &r, from[source], to, &error), 0);
        check_fused(to, GROUPS, N / 8, TOTAL / 8, OFFSET / 8, golden_marlin_zeros);
        r.to = FORMAT_AWQ;
        poison(to, GROUPS * TOTAL / 8);
        assert_int_equal(repack_zeros(device, &r, from[source], to, &error), 0);
        check_fused(to, GROUPS, N / 8, TOTAL / 8, OFFSET / 8, golden_awq_zeros);
    }
}

static void check_scales(struct repack r, const uint16_t *expected) {
    uint16_t to[GROUPS * TOTAL];
    struct error error;
    memset(to, 0xff, sizeof to);
    assert_int_equal(repack_scales(device, &r, golden_scales, to, &error), 0);
    for (int g = 0; g < r.groups; g++)
        for (int i = 0; i < TOTAL; i++)
            assert_int_equal(to[g * TOTAL + i], i >= OFFSET && i < OFFSET + N ? expected[g * N + i - OFFSET] : 0xffff);
}

static void repack_both_scale_orders(void **state) {
    (void)state;
    struct repack r = fused(FORMAT_GPTQ_V1, FORMAT_MARLIN, NULL);
    check_scales(r, golden_marlin_scales);
    r.to = FORMAT_AWQ;
    check_scales(r, golden_scales);
    r.groups = 1;
    check_scales(r, golden_scales);
    r.to = FORMAT_MARLIN;
    check_scales(r, golden_marlin_scales_one_group);
}

/* Elements (rows, N) of two sources as (rows, 2N) in which each has every other eight columns. */
static void interleave(const void *first, const void *second, int rows, size_t size, void *to) {
    for (int row = 0; row < rows; row++)
        for (int n = 0; n < 2 * N; n++) {
            const char *from = n / 8 % 2 ? second : first;
            size_t source = (size_t)(row * N + n / 16 * 8 + n % 8) * size;
            memcpy((char *)to + (size_t)(row * 2 * N + n) * size, from + source, size);
        }
}

/* Both sources into a poisoned matrix of just their columns: no word of poison may be left. */
static void repack_two(int (*repack)(struct device *, const struct repack *, const uint32_t *, uint32_t *,
                                     struct error *),
                       struct repack r, const uint32_t *first, const uint32_t *second, uint32_t *to, int words) {
    struct error error = {""};
    poison(to, words);
    r.columns = COLUMNS_SECOND_EIGHTS;
    if (repack(device, &r, second, to, &error)) fail_msg("%s", error.text);
    r.columns = COLUMNS_FIRST_EIGHTS;
    if (repack(device, &r, first, to, &error)) fail_msg("%s", error.text);
}

static void repack_interleaved(void **state) {
    (void)state;
    enum { WORDS = K * 2 * N / 8, ZERO_WORDS = GROUPS * 2 * N / 8 };
    static uint8_t others[K * N], both[K * 2 * N];
    static uint32_t first[K * N / 8], second[K * N / 8], to[WORDS], expected[WORDS];
    for (int i = 0; i < K * N; i++) others[i] = codes[K * N - 1 - i] ^ 5;
    for (int source = FORMAT_AWQ; source <= FORMAT_GPTQ_V2; source++) {
        bool awq = source == FORMAT_AWQ, v1 = source == FORMAT_GPTQ_V1;
        struct repack r = {(enum format)source, FORMAT_MARLIN, K, N, GROUPS, 2 * N, 0, NULL, COLUMNS_TOGETHER};
        (awq ? awq_pack : gptq_pack)(codes, K, N, first), (awq ? awq_pack : gptq_pack)(others, K, N, second);
        interleave(codes, others, K, 1, both);
        marlin_pack(both, K, 2 * N, expected);
        repack_two(repack_weights, r, first, second, to, WORDS);
        assert_memory_equal(to, expected, sizeof to);
        r.to = FORMAT_AWQ;
        awq_pack(both, K, 2 * N, expected);
        repack_two(repack_weights, r, first, second, to, WORDS);
        assert_memory_equal(to, expected, sizeof to);

        awq ? awq_pack(codes, GROUPS, N, first) : gptq_pack_zeros(codes, GROUPS, N, v1, first);
        awq ? awq_pack(others, GROUPS, N, second) : gptq_pack_zeros(others, GROUPS, N, v1, second);
        interleave(codes, others, GROUPS, 1, both);
        awq_pack(both, GROUPS, 2 * N, expected);
        repack_two(repack_zeros, r, first, second, to, ZERO_WORDS);
        assert_memory_equal(to, expected, ZERO_WORDS * 4);
        r.to = FORMAT_MARLIN;
        marlin_pack_zeros(both, GROUPS, 2 * N, expected);
        repack_two(repack_zeros, r, first, second, to, ZERO_WORDS);
        assert_memory_equal(to, expected, ZERO_WORDS * 4);
    }
}

static void repack_interleaved_scales(void **state) {
    (void)state;
    uint16_t others[GROUPS * N], both[GROUPS * 2 * N], to[GROUPS * 2 * N], expected[GROUPS * 2 * N];
    struct error error;
    for (int i = 0; i < GROUPS * N; i++) others[i] = (uint16_t)(0x3c00 + i);
    for (int groups = GROUPS; groups; groups = groups > 1 ? 1 : 0)
        for (int marlin = 0; marlin < 2; marlin++) {
            struct repack r = {FORMAT_AWQ,          marlin ? FORMAT_MARLIN : FORMAT_AWQ, K, N, groups, 2 * N, 0, NULL,
                               COLUMNS_FIRST_EIGHTS};
            memset(to, 0xff, sizeof to);
            assert_int_equal(repack_scales(device, &r, golden_scales, to, &error), 0);
            r.columns = COLUMNS_SECOND_EIGHTS;
            assert_int_equal(repack_scales(device, &r, others, to, &error), 0);
            interleave(golden_scales, others, groups, 2, both);
            memcpy(expected, both, sizeof both);
            if (marlin) marlin_pack_scales(both, groups, 2 * N, expected);
            assert_memory_equal(to, expected, (size_t)(groups * 2 * N) * 2);
        }
}

static void repack_rows_of_halves(void **state) {
    (void)state;
    enum { DEPTH = 64, ROWS = N };
    static uint16_t first[ROWS * DEPTH], second[ROWS * DEPTH], to[(2 * ROWS + 64) * DEPTH];
    struct error error;
    for (int i = 0; i < ROWS * DEPTH; i++) first[i] = (uint16_t)i, second[i] = (uint16_t)(i + ROWS * DEPTH);
    struct repack r = {FORMAT_HALF, FORMAT_HALF, DEPTH, ROWS, 1, 2 * ROWS + 64, 64, NULL, COLUMNS_FIRST_EIGHTS};
    memset(to, 0xff, sizeof to);
    assert_int_equal(repack_weights(device, &r, (const uint32_t *)(void *)first, (uint32_t *)(void *)to, &error), 0);
    r.columns = COLUMNS_SECOND_EIGHTS;
    assert_int_equal(repack_weights(device, &r, (const uint32_t *)(void *)second, (uint32_t *)(void *)to, &error), 0);
    for (int n = 0; n < 2 * ROWS; n++) {
        const uint16_t *expected = (n / 8 % 2 ? second : first) + (n / 16 * 8 + n % 8) * DEPTH;
        assert_memory_equal(to + (64 + n) * DEPTH, expected, DEPTH * 2);
    }
    for (int i = 0; i < 64 * DEPTH; i++) assert_int_equal(to[i], 0xffff);
}

/* Rows given to groups at random: repacking with the permutation must equal packing the sorted rows. */
static void repack_desc_act(void **state) {
    (void)state;
    int32_t g_idx[K], perm[K];
    static uint8_t sorted[K * N];
    static uint32_t from[K * N / 8], to[K * N / 8], expected[K * N / 8];
    struct error error;
    srand(3);
    for (int i = 0; i < K; i++) g_idx[i] = i / GOLDEN_GROUP;
    for (int i = K - 1; i > 0; i--) {
        int j = rand() % (i + 1), swap = g_idx[i];
        g_idx[i] = g_idx[j], g_idx[j] = swap;
    }
    assert_int_equal(gptq_permutation(g_idx, K, GOLDEN_GROUP, perm, &error), 0);
    for (int i = 0; i < K; i++) {
        assert_int_equal(g_idx[perm[i]], i / GOLDEN_GROUP);
        if (i % GOLDEN_GROUP) assert_true(perm[i] > perm[i - 1]);
        memcpy(sorted + i * N, codes + perm[i] * N, N);
    }
    gptq_pack(codes, K, N, from);
    struct repack r = {FORMAT_GPTQ_V1, FORMAT_MARLIN, K, N, GROUPS, N, 0, perm, COLUMNS_TOGETHER};
    marlin_pack(sorted, K, N, expected);
    assert_int_equal(repack_weights(device, &r, from, to, &error), 0);
    assert_memory_equal(to, expected, sizeof to);
    r.to = FORMAT_AWQ;
    awq_pack(sorted, K, N, expected);
    assert_int_equal(repack_weights(device, &r, from, to, &error), 0);
    assert_memory_equal(to, expected, sizeof to);
}

static void bad_group_index(void **state) {
    (void)state;
    int32_t g_idx[K], perm[K];
    struct error error;
    for (int i = 0; i < K; i++) g_idx[i] = i / 32;
    g_idx[5] = 1;
    assert_int_equal(gptq_permutation(g_idx, K, 32, perm, &error), -1);
    assert_non_null(strstr(error.text, "group 1 has more than 32 rows"));
    g_idx[5] = 4;
    assert_int_equal(gptq_permutation(g_idx, K, 32, perm, &error), -1);
    assert_non_null(strstr(error.text, "g_idx[5] is 4"));
    g_idx[5] = -1;
    assert_int_equal(gptq_permutation(g_idx, K, 32, perm, &error), -1);
    assert_int_equal(gptq_permutation(g_idx, K, 48, perm, &error), -1);
    assert_non_null(strstr(error.text, "not a multiple"));
}

static void refused_repacks(void **state) {
    (void)state;
    static const struct {
        struct repack repack;
        const char *says;
    } cases[] = {
        {{FORMAT_MARLIN, FORMAT_AWQ, K, N, GROUPS, N, 0, NULL, COLUMNS_TOGETHER}, "from Marlin to AWQ"},
        {{FORMAT_AWQ, FORMAT_MARLIN, K, N, GROUPS, N, 0, NULL, COLUMNS_FIRST_EIGHTS}, "columns 0 to 256 of 128"},
        {{FORMAT_HALF, FORMAT_MARLIN, K, N, 1, N, 0, NULL, COLUMNS_TOGETHER}, "from fp16 to Marlin"},
        {{FORMAT_AWQ, FORMAT_GPTQ_V1, K, N, GROUPS, N, 0, NULL, COLUMNS_TOGETHER}, "from AWQ to GPTQ v1"},
        {{FORMAT_AWQ, FORMAT_MARLIN, 64, N, GROUPS, N, 0, NULL, COLUMNS_TOGETHER}, "K=64"},
        {{FORMAT_AWQ, FORMAT_MARLIN, K, 96, GROUPS, N, 0, NULL, COLUMNS_TOGETHER}, "N=96"},
        {{FORMAT_AWQ, FORMAT_MARLIN, K, N, 3, N, 0, NULL, COLUMNS_TOGETHER}, "3 groups"},
        {{FORMAT_AWQ, FORMAT_MARLIN, K, N, GROUPS, N, 64, NULL, COLUMNS_TOGETHER}, "columns 64 to 192 of 128"},
        {{FORMAT_AWQ, FORMAT_MARLIN, K, N, GROUPS, 256, 32, NULL, COLUMNS_TOGETHER}, "columns 32 to 160 of 256"},
    };
    uint32_t words[1];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error error = {""};
        assert_int_equal(repack_weights(device, &cases[i].repack, words, words, &error), -1);
        if (!strstr(error.text, cases[i].says)) fail_msg("'%s' does not say '%s'", error.text, cases[i].says);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_weights),
        cmocka_unit_test(golden_weights_read_back),
        cmocka_unit_test(golden_zero_points),
        cmocka_unit_test(golden_zero_points_read_back),
        cmocka_unit_test(golden_scales_both_orders),
        cmocka_unit_test(round_trips),
        cmocka_unit_test(repack_to_fused_matrix),
        cmocka_unit_test(repack_zero_points),
        cmocka_unit_test(repack_both_scale_orders),
        cmocka_unit_test(repack_interleaved),
        cmocka_unit_test(repack_interleaved_scales),
        cmocka_unit_test(repack_rows_of_halves),
        cmocka_unit_test(repack_desc_act),
        cmocka_unit_test(bad_group_index),
        cmocka_unit_test(refused_repacks),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
