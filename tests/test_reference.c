/* The reference against weights decoded here by another way: plain codes are placed bit by bit where the
 * definition of each format wants them. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kernels/half.h"
#include "kernels/reference.h"

static struct device *device;

static int open_device(void **state) {
    (void)state;
    return device_open("cpu", &device, NULL);
}

static int close_device(void **state) {
    (void)state;
    device_close(device);
    return 0;
}

/* A small matrix: plain codes, zero points and scales, and the words of a format. */
struct matrix {
    int k, n, group;
    uint8_t *codes, *zeros;
    uint16_t *scales, *packed_scales;
    uint32_t *words, *zero_words;
};

static void *zeroed(size_t count, size_t size) {
    void *memory = calloc(count, size);
    assert_non_null(memory);
    return memory;
}

static struct matrix make_matrix(int k, int n, int group) {
    size_t weights = (size_t)k * (size_t)n, groups = (size_t)(k / group * n);
    struct matrix m = {k,
                       n,
                       group,
                       zeroed(weights, 1),
                       zeroed(groups, 1),
                       zeroed(groups, 2),
                       zeroed(groups, 2),
                       zeroed(weights / 8, 4),
                       zeroed(groups / 8, 4)};
    uint32_t random = 12345;
    for (size_t i = 0; i < weights; i++) m.codes[i] = (random = random * 1664525 + 1013904223) >> 28;
    for (size_t i = 0; i < groups; i++) m.zeros[i] = (random = random * 1664525 + 1013904223) >> 28;
    for (size_t i = 0; i < groups; i++)
        m.scales[i] = half_from_float((float)((random = random * 1664525 + 1013904223) >> 20) / 4096.0f + 0.01f);
    return m;
}

static void free_matrix(struct matrix *m) {
    void *const all[] = {m->codes, m->zeros, m->scales, m->packed_scales, m->words, m->zero_words};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static const int awq_order[8] = {0, 2, 4, 6, 1, 3, 5, 7};

/* Words (rows, n/8): nibble i holds column 8c + awq_order[i]. */
static void place_awq(const uint8_t *plain, int rows, int n, uint32_t *words) {
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < n / 8; c++)
            for (int i = 0; i < 8; i++)
                words[r * (n / 8) + c] |= (uint32_t)plain[r * n + 8 * c + awq_order[i]] << 4 * i;
}

/* For each word and nibble the k and n that belong there. */
static void place_marlin(const struct matrix *m) {
    for (int kt = 0; kt < m->k / 16; kt++)
        for (int nt = 0; nt < m->n / 64; nt++)
            for (int word = 0; word < 128; word++)
                for (int b = 0; b < 8; b++) {
                    int lane = word / 4, j = word % 4;
                    int k = 16 * kt + 2 * (lane % 4) + (b >> 2) + 8 * (b & 1);
                    int n = 64 * nt + 16 * j + lane / 4 + 8 * (b >> 1 & 1);
                    m->words[kt * 2 * m->n + 128 * nt + word] |= (uint32_t)m->codes[k * m->n + n] << 4 * b;
                }
}

static void place_marlin_groups(const struct matrix *m) {
    static const int single[8] = {0, 1, 8, 9, 16, 17, 24, 25};
    for (int g = 0; g < m->k / m->group; g++) {
        const uint16_t *scales = m->scales + g * m->n;
        uint16_t *packed = m->packed_scales + g * m->n;
        for (int p = 0; p < m->n; p++)
            packed[p] = m->group == m->k ? scales[p / 32 * 32 + 2 * (p % 32 / 8) + single[p % 8]]
                                         : scales[p / 64 * 64 + p % 64 / 8 + 8 * (p % 8)];
        for (int w = 0; w < m->n / 8; w++)
            for (int i = 0; i < 8; i++)
                m->zero_words[g * (m->n / 8) + w] |=
                    (uint32_t)m->zeros[g * m->n + 64 * (w / 8) + w % 8 + 8 * awq_order[i]] << 4 * i;
    }
}

static double weight(const struct matrix *m, bool zeros, int k, int n) {
    int g = k / m->group * m->n + n;
    return (m->codes[k * m->n + n] - (zeros ? m->zeros[g] : 8)) * (double)half_to_float(m->scales[g]);
}

static void check_awq(int k, int n, int group, bool zeros) {
    struct matrix m = make_matrix(k, n, group);
    struct error error = {""};
    float *y = zeroed((size_t)k * (size_t)n, sizeof *y);
    place_awq(m.codes, k, n, m.words);
    place_awq(m.zeros, k / group, n, m.zero_words);
    struct problem problem = {OP_AWQ_DEQUANT, 1, n, k, group, zeros, EPILOGUE_NONE};
    struct operands operands = {.weights = m.words, .scales = m.scales, .zeros = m.zero_words};
    if (reference_run(device, &problem, &operands, y, &error)) fail_msg("%s", error.text);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < k; j++) assert_true(y[i * k + j] == (float)weight(&m, zeros, j, i));
    free(y);
    free_matrix(&m);
}

static void dequantizes_awq(void **state) {
    (void)state;
    check_awq(256, 64, 128, true);
    check_awq(128, 128, 32, true);
    check_awq(256, 64, 256, false);
}

static void check_marlin(int m, int k, int n, int group, bool zeros) {
    struct matrix matrix = make_matrix(k, n, group);
    struct error error = {""};
    uint16_t *x = zeroed((size_t)(m * k), sizeof *x);
    float *y = zeroed((size_t)(m * n), sizeof *y);
    place_marlin(&matrix);
    place_marlin_groups(&matrix);
    assert_int_equal(reference_fill_half(device, x, (size_t)(m * k), -1, 1, 7, &error), 0);
    struct problem problem = {OP_MARLIN_GEMM, m, n, k, group, zeros, EPILOGUE_NONE};
    struct operands operands = {
        .x = x, .weights = matrix.words, .scales = matrix.packed_scales, .zeros = zeros ? matrix.zero_words : NULL};
    if (reference_run(device, &problem, &operands, y, &error)) fail_msg("%s", error.text);
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            double sum = 0;
            for (int l = 0; l < k; l++) sum += half_to_float(x[i * k + l]) * weight(&matrix, zeros, l, j);
            assert_true(fabs(y[i * n + j] - sum) <= 1e-6 * fabs(sum) + 1e-6);
        }
    free(x);
    free(y);
    free_matrix(&matrix);
}

static void multiplies_marlin(void **state) {
    (void)state;
    check_marlin(1, 128, 64, 32, false);
    check_marlin(3, 256, 128, 128, true);
    check_marlin(2, 256, 128, 256, false);
    check_marlin(2, 128, 192, 128, true);
    check_marlin(1, 128, 64, 64, true);
}

static void multiplies_fp16(void **state) {
    (void)state;
    enum { M = 2, N = 64, K = 64 };
    static uint16_t x[M * K], w[N * K];
    static float y[M * N];
    struct error error = {""};
    for (int i = 0; i < M; i++)
        for (int k = 0; k < K; k++) x[i * K + k] = half_from_float((float)(i + 1));
    for (int n = 0; n < N; n++)
        for (int k = 0; k < K; k++) w[n * K + k] = half_from_float((float)(n - k));
    struct problem problem = {.op = OP_FP16_GEMM, .m = M, .n = N, .k = K};
    struct operands operands = {.x = x, .weights = w};
    if (reference_run(device, &problem, &operands, y, &error)) fail_msg("%s", error.text);
    /* sum over k of n - k = 64 n - 2016 */
    for (int i = 0; i < M; i++)
        for (int n = 0; n < N; n++) assert_true(y[i * N + n] == (float)((i + 1) * (64 * n - 2016)));
}

/* Numbers that bf16 has and fp16 does not, in every operand that may be bf16; scales are fp16 all the same. */
static void multiplies_bf16(void **state) {
    (void)state;
    enum { M = 2, N = 64, K = 128 };
    static const float big = 0x1p40f;
    static uint16_t x[M * K], w[N * K], scales[N], addend[N];
    static uint32_t words[N * K / 8];
    static float y[M * N];
    struct error error = {""};
    for (int i = 0; i < M * K; i++) x[i] = bf16_from_float(i % K ? 0 : (float)(1 + i / K) * big);
    for (int i = 0; i < N * K; i++) w[i] = bf16_from_float((float)(i / K) * big);
    for (int n = 0; n < N; n++) addend[n] = bf16_from_float(big), scales[n] = half_from_float(0.5f);
    struct problem problem = {.op = OP_FP16_GEMM, .m = M, .n = N, .k = K, .epilogue = EPILOGUE_BIAS, .bf16 = true};
    struct operands operands = {.x = x, .weights = w, .addend = addend};
    if (reference_run(device, &problem, &operands, y, &error)) fail_msg("%s", error.text);
    for (int i = 0; i < M * N; i++) assert_true(y[i] == (float)((double)(1 + i / N) * (i % N) * big * big + big));
    problem.op = OP_MARLIN_GEMM, problem.group = K;
    operands.weights = words, operands.scales = scales; /* codes of 0 are -8 */
    if (reference_run(device, &problem, &operands, y, &error)) fail_msg("%s", error.text);
    for (int i = 0; i < M * N; i++) assert_true(y[i] == (float)(1 + i / N) * big * -8 * 0.5f + big);
}

/* From the sums that the reference gives without an epilogue. */
static void check_epilogue(enum op op, enum epilogue epilogue, const struct operands *operands, const float *sums) {
    enum { M = 3, N = 192, K = 128 };
    static float y[M * N];
    struct problem problem = {op, M, N, K, op == OP_FP16_GEMM ? 0 : K, false, epilogue};
    const uint16_t *addend = operands->addend;
    struct error error = {""};
    size_t outputs = problem_outputs(&problem), width = outputs / M;
    assert_int_equal(width, epilogue == EPILOGUE_SILU_MUL ? N / 2 : N);
    if (reference_run(device, &problem, operands, y, &error)) fail_msg("%s", error.text);
    for (size_t i = 0; i < outputs; i++) {
        size_t m = i / width, n = i % width;
        const float *row = sums + m * N;
        double expected = row[n];
        if (epilogue == EPILOGUE_BIAS) expected += half_to_float(addend[n]);
        if (epilogue == EPILOGUE_RESIDUAL) expected += half_to_float(addend[i]);
        if (epilogue == EPILOGUE_SILU_MUL) {
            double gate = row[n / 8 * 16 + n % 8], up = row[n / 8 * 16 + n % 8 + 8];
            expected = gate * up / (1 + exp(-gate));
        }
        assert_true(fabs(y[i] - expected) <= 1e-6 * fabs(expected) + 1e-7);
    }
}

static void applies_epilogues(void **state) {
    (void)state;
    enum { M = 3, N = 192, K = 128 };
    static uint16_t x[M * K], w[N * K], scales[N], addend[M * N];
    static float sums[M * N];
    static const enum op ops[] = {OP_FP16_GEMM, OP_MARLIN_GEMM};
    struct operands operands = {.x = x, .weights = w, .scales = scales, .addend = addend};
    assert_int_equal(reference_fill_half(device, x, M * K, -1, 1, 1, NULL), 0);
    assert_int_equal(reference_fill_half(device, scales, N, 0.01f, 0.02f, 2, NULL), 0);
    assert_int_equal(reference_fill_half(device, addend, M * N, -1, 1, 3, NULL), 0);
    assert_int_equal(reference_fill_half(device, w, N * K, -1, 1, 4, NULL), 0);
    for (int i = 0; i < 2; i++) {
        struct problem plain = {ops[i], M, N, K, i ? K : 0, false, EPILOGUE_NONE};
        assert_int_equal(reference_run(device, &plain, &operands, sums, NULL), 0);
        for (int e = 0; e < EPILOGUE_COUNT; e++) check_epilogue(ops[i], (enum epilogue)e, &operands, sums);
    }
}

static void problems_say_their_epilogue(void **state) {
    (void)state;
    struct problem plain = {OP_FP16_GEMM, 2, 128, 64, 0, false, EPILOGUE_NONE}, fused = plain;
    struct problem dequant = {OP_AWQ_DEQUANT, 1, 64, 128, 128, true, EPILOGUE_BIAS};
    struct error error = {""};
    char text[128];
    enum epilogue epilogue;
    assert_string_equal(problem_text(&plain, text), "fp16_gemm m=2 n=128 k=64");
    fused.epilogue = EPILOGUE_SILU_MUL;
    assert_string_equal(problem_text(&fused, text), "fp16_gemm m=2 n=128 k=64 epilogue=silu_mul");
    assert_false(problem_equal(&plain, &fused));
    assert_true(problem_bytes(&plain) - problem_bytes(&fused) == 2 * 64 * 2);
    fused.epilogue = EPILOGUE_RESIDUAL;
    assert_true(problem_bytes(&fused) - problem_bytes(&plain) == 2 * 128 * 2);
    fused.epilogue = EPILOGUE_BIAS;
    assert_true(problem_bytes(&fused) - problem_bytes(&plain) == 128 * 2);
    assert_int_equal(problem_check(&dequant, &error), -1);
    assert_non_null(strstr(error.text, "bias"));
    for (int e = 0; e < EPILOGUE_COUNT; e++) {
        assert_int_equal(epilogue_parse(epilogue_name((enum epilogue)e), &epilogue, &error), 0);
        assert_int_equal(epilogue, e);
    }
    assert_int_equal(epilogue_parse("relu", &epilogue, &error), -1);
    assert_non_null(strstr(error.text, "'relu'"));
}

static void problems_say_their_type(void **state) {
    (void)state;
    struct problem half = {OP_FP16_GEMM, 2, 128, 64, 0, false, EPILOGUE_NONE}, bf16 = half;
    struct problem dequant = {.op = OP_AWQ_DEQUANT, .m = 1, .n = 64, .k = 128, .group = 128, .bf16 = true};
    struct error error = {""};
    char text[128];
    bf16.bf16 = true;
    assert_string_equal(problem_text(&bf16, text), "fp16_gemm m=2 n=128 k=64 bf16");
    assert_false(problem_equal(&half, &bf16));
    assert_true(problem_bytes(&half) == problem_bytes(&bf16));
    assert_int_equal(problem_check(&bf16, &error), 0);
    assert_int_equal(problem_check(&dequant, &error), -1);
    assert_non_null(strstr(error.text, "awq_dequant writes fp16"));
}

static void refuses_what_no_op_takes(void **state) {
    (void)state;
    struct problem problem = {OP_MARLIN_GEMM, 1, 64, 100, 128, true, EPILOGUE_NONE};
    struct operands operands = {0};
    struct error error = {""};
    assert_int_equal(reference_run(device, &problem, &operands, NULL, &error), -1);
    assert_non_null(strstr(error.text, "K=100"));
}

static void fills_are_uniform_and_repeatable(void **state) {
    (void)state;
    enum { COUNT = 20000 };
    static uint16_t a[COUNT], b[COUNT];
    double sum = 0, squares = 0;
    assert_int_equal(reference_fill_half(device, a, COUNT, -1, 1, 1, NULL), 0);
    assert_int_equal(reference_fill_half(device, b, COUNT, -1, 1, 1, NULL), 0);
    assert_memory_equal(a, b, sizeof a);
    for (int i = 0; i < COUNT; i++) {
        float value = half_to_float(a[i]);
        assert_true(value >= -1 && value <= 1);
        sum += value;
        squares += value * value;
    }
    assert_true(fabs(sum / COUNT) < 0.02);
    assert_true(fabs(squares / COUNT - 1.0 / 3) < 0.01);
    assert_int_equal(reference_fill_half(device, b, COUNT, -1, 1, 2, NULL), 0);
    assert_memory_not_equal(a, b, 64);
}

/* The numbers of fp16's, rounded to fewer bits. */
static void fills_in_bf16(void **state) {
    (void)state;
    enum { COUNT = 1000 };
    static uint16_t half[COUNT], bf16[COUNT];
    assert_int_equal(reference_fill_half(device, half, COUNT, -1, 1, 1, NULL), 0);
    assert_int_equal(reference_fill_bf16(device, bf16, COUNT, -1, 1, 1, NULL), 0);
    for (int i = 0; i < COUNT; i++)
        assert_true(fabsf(bf16_to_float(bf16[i]) - half_to_float(half[i])) <=
                    0x1.2p-8f * fabsf(half_to_float(half[i])) + 0x1p-11f);
}

/* The very bits are a contract: other backends and stored results rely on them. */
static void fills_keep_their_bits(void **state) {
    (void)state;
    uint32_t bits[4] = {0}, again[4] = {0};
    int counts[16] = {0};
    static uint8_t many[1001];
    assert_int_equal(reference_fill_bits(device, bits, 13, 42, NULL), 0);
    assert_int_equal(reference_fill_bits(device, again, 16, 42, NULL), 0);
    assert_memory_equal(bits, again, 13);
    assert_int_equal(bits[3] >> 8, 0);
    assert_int_equal(reference_fill_bits(device, many, 1000, 3, NULL), 0);
    assert_int_equal(many[1000], 0);
    for (int i = 0; i < 1000; i++) counts[many[i] & 15]++, counts[many[i] >> 4]++;
    for (int i = 0; i < 16; i++) assert_in_range(counts[i], 80, 170);
}

static void comparison_sees_everything(void **state) {
    (void)state;
    float reference[4] = {3, 4, 0, 12};
    uint16_t y[4] = {half_from_float(3), half_from_float(4), half_from_float(0), half_from_float(12)};
    struct comparison c;
    assert_int_equal(reference_compare(device, y, false, reference, 4, &c, NULL), 0);
    assert_true(c.relative_error == 0 && c.bad == 0);
    y[3] = half_from_float(25); /* ||y - ref|| = 13 = ||ref|| */
    assert_int_equal(reference_compare(device, y, false, reference, 4, &c, NULL), 0);
    assert_true(fabs(c.relative_error - 1) < 1e-12);
    y[1] = 0xffff; /* NaN */
    y[2] = 0x7c00; /* infinite */
    assert_int_equal(reference_compare(device, y, false, reference, 4, &c, NULL), 0);
    assert_int_equal(c.bad, 2);
    assert_int_equal(c.first_bad, 1);
    assert_true(fabs(c.relative_error - sqrt(169.0 / 153.0)) < 1e-12);
    float nothing[1] = {0};
    assert_int_equal(reference_compare(device, y, false, nothing, 1, &c, NULL), 0);
    assert_true(isinf(c.relative_error));
    reference[0] = NAN; /* nothing is near a reference that is no number */
    assert_int_equal(reference_compare(device, y, false, reference, 4, &c, NULL), 0);
    assert_true(isnan(c.relative_error));
}

static void comparison_reads_bf16(void **state) {
    (void)state;
    float reference[3] = {0x1p40f, 2, 3};
    uint16_t y[3] = {bf16_from_float(0x1p40f), bf16_from_float(2), bf16_from_float(3)};
    struct comparison c;
    assert_int_equal(reference_compare(device, y, true, reference, 3, &c, NULL), 0);
    assert_true(c.relative_error == 0 && c.bad == 0);
    y[1] = 0x7f80; /* infinite */
    y[2] = 0xffff; /* NaN */
    assert_int_equal(reference_compare(device, y, true, reference, 3, &c, NULL), 0);
    assert_true(c.bad == 2 && c.first_bad == 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dequantizes_awq),
        cmocka_unit_test(multiplies_marlin),
        cmocka_unit_test(multiplies_fp16),
        cmocka_unit_test(multiplies_bf16),
        cmocka_unit_test(applies_epilogues),
        cmocka_unit_test(problems_say_their_epilogue),
        cmocka_unit_test(problems_say_their_type),
        cmocka_unit_test(refuses_what_no_op_takes),
        cmocka_unit_test(fills_are_uniform_and_repeatable),
        cmocka_unit_test(fills_in_bf16),
        cmocka_unit_test(fills_keep_their_bits),
        cmocka_unit_test(comparison_sees_everything),
        cmocka_unit_test(comparison_reads_bf16),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
