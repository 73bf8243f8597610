/* fp16_gemm on the CPU as anyone would write it, on weights of a layout of its own: fp32 (K, N).
 *   cc -O2 -shared -fPIC -I kernels/peer tests/peer/plain.c -o plain.so */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tilebook_peer.h"

/* Finite ones only, as all here are. */
static float to_float(uint16_t half) {
    uint32_t bits = (uint32_t)(half & 0x7fff) << 13;
    float value;
    memcpy(&value, &bits, 4);
    return half & 0x8000 ? -0x1p112f * value : 0x1p112f * value;
}

static uint16_t to_half(float value) {
    float magnitude = fabsf(value) * 0x1p-112f;
    uint32_t bits;
    memcpy(&bits, &magnitude, 4);
    bits += 0xfff + (bits >> 13 & 1);
    return (uint16_t)((value < 0 ? 0x8000 : 0) | bits >> 13);
}

static int legal(const struct tilebook_device *device, const struct tilebook_problem *p, char *why) {
    (void)device;
    if (p->epilogue == TILEBOOK_EPILOGUE_NONE && p->m <= 64) return 0;
    return snprintf(why, TILEBOOK_WHY, "it needs m <= 64 and no epilogue");
}

static int open(const struct tilebook_device *device, const struct tilebook_problem *p, struct tilebook_needs *needs,
                char *why) {
    (void)device, (void)why;
    needs->prepared_bytes = sizeof(float) * (size_t)p->k * (size_t)p->n;
    needs->workspace_bytes = sizeof(float) * (size_t)p->n;
    return 0;
}

static int prepare(const struct tilebook_call *call, char *why) {
    const struct tilebook_problem *p = call->problem;
    const uint16_t *from = call->weights;
    float *to = call->prepared;
    (void)why;
    for (int n = 0; n < p->n; n++)
        for (int k = 0; k < p->k; k++) to[k * p->n + n] = to_float(from[n * p->k + k]);
    return 0;
}

static int run(const struct tilebook_call *call, char *why) {
    const struct tilebook_problem *p = call->problem;
    const uint16_t *x = call->x;
    const float *w = call->prepared;
    float *sums = call->workspace;
    uint16_t *y = call->y;
    (void)why;
    for (int m = 0; m < p->m; m++) {
        memset(sums, 0, sizeof(float) * (size_t)p->n);
        for (int k = 0; k < p->k; k++) {
            float value = to_float(x[m * p->k + k]);
            for (int n = 0; n < p->n; n++) sums[n] += value * w[k * p->n + n];
        }
        for (int n = 0; n < p->n; n++) y[m * p->n + n] = to_half(sums[n]);
    }
    return 0;
}

const struct tilebook_peer tilebook_peer = {.version = TILEBOOK_PEER_VERSION,
                                            .backend = TILEBOOK_ON_CPU,
                                            .name = "plain",
                                            .summary = "three loops over fp32 weights",
                                            .ops = 1u << TILEBOOK_FP16_GEMM,
                                            .legal = legal,
                                            .open = open,
                                            .prepare = prepare,
                                            .run = run};
