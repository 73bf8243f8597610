#include <stdio.h>
#include <string.h>

#include "kernels/kernel.h"

static const char *const op_names[OP_COUNT] = {"awq_dequant", "marlin_gemm", "fp16_gemm"};
static const char *const epilogue_names[EPILOGUE_COUNT] = {"none", "bias", "residual", "silu_mul"};

const char *op_name(enum op op) {
    return op_names[op];
}

int op_parse(const char *text, enum op *op, struct error *error) {
    for (int i = 0; i < OP_COUNT; i++)
        if (!strcmp(text, op_names[i])) {
            *op = (enum op)i;
            return 0;
        }
    return error_set(error, "unknown op '%s'; there are awq_dequant, marlin_gemm, fp16_gemm", text);
}

const char *epilogue_name(enum epilogue epilogue) {
    return epilogue_names[epilogue];
}

int epilogue_parse(const char *text, enum epilogue *epilogue, struct error *error) {
    for (int i = 0; i < EPILOGUE_COUNT; i++)
        if (!strcmp(text, epilogue_names[i])) {
            *epilogue = (enum epilogue)i;
            return 0;
        }
    return error_set(error, "unknown epilogue '%s'; there are none, bias, residual, silu_mul", text);
}

const char *problem_fused(const struct problem *p, char text[FUSED_TEXT]) {
    snprintf(text, FUSED_TEXT, "%s%s", p->norm ? "norm" : epilogue_names[p->epilogue],
             p->norm && p->epilogue ? "+" : "");
    if (p->norm && p->epilogue) strcat(text, epilogue_names[p->epilogue]);
    return text;
}

int problem_fuse(struct problem *p, const char *text, struct error *error) {
    bool both = !strncmp(text, "norm+", 5);
    p->norm = both || !strcmp(text, "norm");
    p->epilogue = EPILOGUE_NONE;
    if (p->norm && !both) return 0;
    return epilogue_parse(both ? text + 5 : text, &p->epilogue, error);
}

static int check_group(const struct problem *p, struct error *error) {
    if (p->group == p->k || p->group == 32 || p->group == 64 || p->group == 128) return 0;
    return error_set(error, "group size %d is not supported; accepted: 32, 64, 128, or one group for all of K (%d)",
                     p->group, p->k);
}

int problem_check(const struct problem *p, struct error *error) {
    if (p->m < 1) return error_set(error, "m is %d; it must be at least 1", p->m);
    if (p->k < 1 || p->n < 1) return error_set(error, "shape %dx%d (KxN) must be positive", p->k, p->n);
    if ((long long)p->m * (p->n > p->k ? p->n : p->k) > 0x7fffffff || (long long)p->n * p->k > 0x7fffffff)
        return error_set(error, "m=%d n=%d k=%d: a matrix would have more than 2^31 - 1 elements", p->m, p->n, p->k);
    if (p->op == OP_FP16_GEMM) {
        if (p->k % 64 || p->n % 64)
            return error_set(error, "fp16_gemm takes K and N divisible by 64; found K=%d, N=%d", p->k, p->n);
        if (p->group || p->zeros) return error_set(error, "fp16_gemm has no groups and no zero points");
        return 0;
    }
    if (p->k % 128 || p->n % 64)
        return error_set(error, "%s takes K divisible by 128 and N divisible by 64; found K=%d, N=%d", op_name(p->op),
                         p->k, p->n);
    if (p->op == OP_AWQ_DEQUANT && p->m != 1)
        return error_set(error, "awq_dequant has no M; m must be 1, not %d", p->m);
    if (p->op == OP_AWQ_DEQUANT && p->epilogue)
        return error_set(error, "awq_dequant has no epilogue; found %s", epilogue_name(p->epilogue));
    if (p->op == OP_AWQ_DEQUANT && p->norm) return error_set(error, "awq_dequant has no x and no norm of it");
    if (p->op == OP_AWQ_DEQUANT && p->bf16) return error_set(error, "awq_dequant writes fp16, not bf16");
    return check_group(p, error);
}

bool problem_equal(const struct problem *a, const struct problem *b) {
    return a->op == b->op && a->m == b->m && a->n == b->n && a->k == b->k && a->group == b->group &&
           a->zeros == b->zeros && a->epilogue == b->epilogue && a->norm == b->norm && a->bf16 == b->bf16;
}

double problem_flops(const struct problem *p) {
    return (p->op == OP_AWQ_DEQUANT ? 2.0 : 2.0 * p->m) * p->n * p->k;
}

static size_t addend_bytes(const struct problem *p) {
    if (p->epilogue == EPILOGUE_BIAS) return 2 * (size_t)p->n;
    return p->epilogue == EPILOGUE_RESIDUAL ? 2 * (size_t)p->m * (size_t)p->n : 0;
}

struct operand_bytes problem_operand_bytes(const struct problem *p) {
    size_t m = (size_t)p->m, n = (size_t)p->n, k = (size_t)p->k;
    struct operand_bytes bytes = {
        .addend = addend_bytes(p), .gain = p->norm ? k * sizeof(float) : 0, .y = 2 * problem_outputs(p)};
    if (p->op != OP_AWQ_DEQUANT) bytes.x = 2 * m * k;
    if (p->op == OP_FP16_GEMM) {
        bytes.weights = 2 * k * n;
        return bytes;
    }
    size_t groups = k / (size_t)p->group;
    bytes.weights = k * n / 2;
    bytes.scales = 2 * groups * n;
    bytes.zeros = p->zeros ? groups * n / 2 : 0;
    return bytes;
}

size_t problem_outputs(const struct problem *p) {
    size_t elements = (size_t)p->n * (size_t)(p->op == OP_AWQ_DEQUANT ? p->k : p->m);
    return p->epilogue == EPILOGUE_SILU_MUL ? elements / 2 : elements;
}

double problem_bytes(const struct problem *p) {
    struct operand_bytes b = problem_operand_bytes(p);
    return (double)b.x + (double)b.weights + (double)b.scales + (double)b.zeros + (double)b.addend + (double)b.gain +
           (double)b.y;
}

const char *problem_text(const struct problem *p, char *text) {
    int used = snprintf(text, 128, "%s m=%d n=%d k=%d", op_name(p->op), p->m, p->n, p->k);
    if (p->op != OP_FP16_GEMM)
        used += snprintf(text + used, 128 - (size_t)used, " group=%d zeros=%d", p->group, p->zeros);
    if (p->epilogue) used += snprintf(text + used, 128 - (size_t)used, " epilogue=%s", epilogue_name(p->epilogue));
    if (p->norm) used += snprintf(text + used, 128 - (size_t)used, " norm");
    if (p->bf16) snprintf(text + used, 128 - (size_t)used, " bf16");
    return text;
}
