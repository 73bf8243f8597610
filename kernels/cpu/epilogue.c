#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/half.h"

enum { BLOCK = 16, HALF = BLOCK / 2 };

static void add(const struct cpu_vectors *vectors, const uint16_t *addend, int columns, float *sums) {
    float values[BLOCK];
    for (int column = 0; column < columns; column += BLOCK) {
        vectors->to_float(addend + column, values, BLOCK);
        for (int i = 0; i < BLOCK; i++) sums[column + i] += values[i];
    }
}

static void silu_mul(const float *sums, int columns, uint16_t *y) {
    for (int column = 0; column < columns; column += BLOCK, y += HALF)
        for (int i = 0; i < HALF; i++) {
            float gate = sums[column + i], up = sums[column + HALF + i];
            y[i] = half_from_float(gate / (1 + expf(-gate)) * up);
        }
}

void cpu_store(const struct cpu_vectors *vectors, const struct problem *problem, const struct operands *operands,
               int row, int column, int columns, float *sums) {
    size_t start = (size_t)row * (size_t)problem->n + (size_t)column;
    const uint16_t *addend = operands->addend;
    uint16_t *y = operands->y;
    if (problem->epilogue == EPILOGUE_SILU_MUL) {
        silu_mul(sums, columns, y + start / 2);
        return;
    }
    if (problem->epilogue == EPILOGUE_BIAS) add(vectors, addend + column, columns, sums);
    if (problem->epilogue == EPILOGUE_RESIDUAL) add(vectors, addend + start, columns, sums);
    vectors->to_half(sums, y + start, columns);
}
