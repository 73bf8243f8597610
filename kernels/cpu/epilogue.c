#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/half.h"

enum { BLOCK = 16, HALF = BLOCK / 2 };

static void add(const struct cpu_vectors *vectors, const uint16_t *addend, bool bf16, int columns, float *sums) {
    float values[BLOCK];
    for (int column = 0; column < columns; column += BLOCK) {
        vectors->to_float(addend + column, bf16, values, BLOCK);
        for (int i = 0; i < BLOCK; i++) sums[column + i] += values[i];
    }
}

static void silu_mul(const float *sums, int columns, uint16_t *y, bool bf16) {
    for (int column = 0; column < columns; column += BLOCK, y += HALF)
        for (int i = 0; i < HALF; i++) {
            float gate = sums[column + i], up = sums[column + HALF + i];
            float value = gate / (1 + expf(-gate)) * up;
            y[i] = bf16 ? bf16_from_float(value) : half_from_float(value);
        }
}

void cpu_store(const struct cpu_vectors *vectors, const struct problem *problem, const struct operands *operands,
               int row, int column, int columns, float *sums) {
    size_t start = (size_t)row * (size_t)problem->n + (size_t)column;
    const uint16_t *addend = operands->addend;
    const bool bf16 = problem->bf16;
    uint16_t *y = operands->y;
    if (problem->epilogue == EPILOGUE_SILU_MUL) {
        silu_mul(sums, columns, y + start / 2, bf16);
        return;
    }
    if (problem->epilogue == EPILOGUE_BIAS) add(vectors, addend + column, bf16, columns, sums);
    if (problem->epilogue == EPILOGUE_RESIDUAL) add(vectors, addend + start, bf16, columns, sums);
    vectors->to_words(sums, y + start, bf16, columns);
}
